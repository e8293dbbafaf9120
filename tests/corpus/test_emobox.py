import json
from itertools import product
from pathlib import Path

import pytest

from serein.corpus.corpus import Corpus, Utterance
from serein.corpus.emobox import read_emobox_folds
from serein.corpus.protocol import find_leaks
from serein.corpus.splits import make_protocol
from serein.errors import CorpusError


def toy(talkers: int = 6) -> Corpus:
    """As RAVDESS names its files: the talker's number at the end."""
    return Corpus(
        "toy",
        tuple(
            Utterance(f"03-{emotion}-{talker:02}", Path("a.wav"), f"{talker:02}", emotion)
            for talker, emotion in product(range(1, talkers + 1), ("angry", "sad"))
        ),
    )


def write_folder(root: Path, folds: list[list[dict[str, str]]]) -> Path:
    for number, rows in enumerate(folds, start=1):
        folder = root / f"fold_{number}"
        folder.mkdir(parents=True)
        lines = "\n".join(json.dumps(row) for row in rows)
        (folder / f"toy_test_fold_{number}.jsonl").write_text(lines + "\n\n")
        (folder / f"toy_train_fold_{number}.jsonl").write_text("not read")
        (folder / f"toy_test_fold{number}.jsonl").write_text("not read either")
    return root


def write_talkers(root: Path, folds: object) -> Path:
    path = root / "folds.json"
    path.write_text(json.dumps({"test_actors": folds}))
    return path


def by_talkers(corpus: Corpus, *folds: tuple[str, ...]) -> list[list[dict[str, str]]]:
    return [[{"key": f"toy-{u.id}"} for u in corpus if u.talker in talkers] for talkers in folds]


@pytest.mark.parametrize("form", ["folder", "numbers", "names"])
def test_folder_and_talker_list_give_the_same_folds(tmp_path, form):
    corpus = toy()
    if form == "folder":
        source = write_folder(tmp_path, by_talkers(corpus, ("01", "02"), ("03", "05"), ("04", "06")))
    else:
        folds = {"numbers": [[1, 2], [3, 5], [4, 6]], "names": [["01", "02"], ["03", "05"], ["04", "06"]]}[form]
        source = write_talkers(tmp_path, {f"fold_{i}": fold for i, fold in enumerate(folds, start=1)})
    protocol = make_protocol("emobox", corpus, folds_file=source)
    first = protocol.folds[0]
    assert [fold.name for fold in protocol.folds] == ["fold_1", "fold_2", "fold_3"]
    assert first.test == ("03-angry-01", "03-angry-02", "03-sad-01", "03-sad-02")
    assert first.validation == ("03-angry-03", "03-angry-05", "03-sad-03", "03-sad-05")
    assert first.train == ("03-angry-04", "03-angry-06", "03-sad-04", "03-sad-06")


@pytest.mark.parametrize(
    "row",
    [
        {"key": "03-sad-01"},
        {"key": "toy-03-sad-01"},
        {"key": "x", "wav": "downloads/toy/Actor_01/03-sad-01.wav"},
    ],
)
def test_a_row_is_known_by_its_key_with_or_without_prefix_or_by_its_file(tmp_path, row):
    folds, missing = read_emobox_folds(write_folder(tmp_path, [[row]]), toy().utterances)
    assert [u.id for u in folds["fold_1"]] == ["03-sad-01"]
    assert missing == 0


def test_ten_folds_come_in_the_order_of_their_numbers(tmp_path):
    corpus = toy(11)
    source = write_folder(tmp_path, by_talkers(corpus, *((f"{i:02}",) for i in range(1, 12))))
    assert list(read_emobox_folds(source, corpus.utterances)[0]) == [f"fold_{i}" for i in range(1, 12)]


def test_what_the_corpus_lacks_is_counted_in_the_description(tmp_path):
    corpus = toy()
    rows = by_talkers(corpus, ("01", "02"), ("03", "05"), ("04", "06"))
    rows[1] += [{"key": "toy-03-calm-03"}, {"wav": "03-calm-05.wav"}]
    protocol = make_protocol("emobox", corpus, folds_file=write_folder(tmp_path, rows))
    assert "EmoBox's test folds (without 2 utterances that this corpus lacks);" in protocol.description


def test_what_emobox_leaves_out_is_named_and_not_trained_on(tmp_path):
    corpus = toy()
    rows = by_talkers(corpus, ("01", "02"), ("03", "05"), ("04", "06"))
    left_out = rows[0].pop()["key"].removeprefix("toy-")
    source = str(write_folder(tmp_path, rows))
    with pytest.raises(CorpusError, match=rf"1 in all, as '{left_out}' .*--map.*emobox-TALKERS-SHARED"):
        make_protocol("emobox", corpus, folds_file=source)
    shared = make_protocol("emobox-TALKERS-SHARED", corpus, folds_file=source)
    assert any(left_out in fold.train for fold in shared.folds)


def test_talker_10_is_not_talker_1(tmp_path):
    source = write_talkers(tmp_path, {"fold_1": [1, 2, 3], "fold_2": [4, 5, 6, 7], "fold_3": [8, 9, 10]})
    folds, _ = read_emobox_folds(source, toy(10).utterances)
    assert {fold: sorted({u.talker for u in tested}) for fold, tested in folds.items()} == {
        "fold_1": ["01", "02", "03"], "fold_2": ["04", "05", "06", "07"], "fold_3": ["08", "09", "10"],
    }  # fmt: skip


def test_folds_that_share_talkers_are_made_only_under_a_name_that_says_so(tmp_path):
    corpus = toy()
    ids = [{"key": u.id} for u in corpus]
    source = write_folder(tmp_path, [ids[0::3], ids[1::3], ids[2::3]])
    with pytest.raises(CorpusError, match=r"protocol emobox: fold fold_1: .* talkers are in both train and test"):
        make_protocol("emobox", corpus, folds_file=source)
    protocol = make_protocol("emobox-TALKERS-SHARED", corpus, folds_file=source)
    assert protocol.shares_talkers
    assert protocol.description.startswith("TALKERS SHARED: ")
    # 4 of each emotion beside the test: a fifth, rounded, is 1.
    assert [(len(fold.train), len(fold.validation), len(fold.test)) for fold in protocol.folds] == [(6, 2, 4)] * 3
    assert any(leak.kind == "talker" and "test" in leak.between for leak in find_leaks(protocol, corpus))


def test_one_published_fold_can_be_used_with_a_drawn_validation(tmp_path):
    source = write_folder(tmp_path, [[{"key": u.id} for u in toy()][:3]])
    with pytest.raises(CorpusError, match="there is only fold_1"):
        make_protocol("emobox", toy(), folds_file=source)
    protocol = make_protocol("emobox-TALKERS-SHARED", toy(), folds_file=source)
    assert "Over 1 fold(s), 3 of 12 labelled utterances are tested" in protocol.description


def test_a_talker_of_two_folds_is_named(tmp_path):
    source = write_talkers(tmp_path, {"fold_1": [1, 2, 3], "fold_2": [3, 4], "fold_3": [5, 6]})
    with pytest.raises(CorpusError, match="several folds test talker 3; each talker belongs to one"):
        make_protocol("emobox", toy(), folds_file=source)


def test_two_talkers_who_differ_in_zeros_only_are_refused(tmp_path):
    source = write_talkers(tmp_path, {"fold_1": [1, 2], "fold_2": [3, 4], "fold_3": [5, 6]})
    doubled = Utterance("another", Path("a.wav"), "1", "sad")
    with pytest.raises(CorpusError, match="takes 1 and 01 for one talker"):
        make_protocol("emobox", Corpus("toy", (*toy().utterances, doubled)), folds_file=source)


def test_other_talkers_than_the_corpus_has_are_named(tmp_path):
    source = write_talkers(tmp_path, {"fold_1": [1, 2], "fold_2": [3, 4], "fold_3": [5, 77]})
    with pytest.raises(CorpusError, match=r"only the file has \['77'\], only the corpus has \['6'\]"):
        make_protocol("emobox", toy(), folds_file=source)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"test_actors": [1]}', '{"test_actors": {"fold_1": 3}}', '{"folds": {}}']
)
def test_a_talker_list_of_another_form_is_refused(tmp_path, text):
    (tmp_path / "folds.json").write_text(text)
    with pytest.raises(CorpusError, match=r"does not have the form \{\"test_actors\""):
        make_protocol("emobox", toy(), folds_file=tmp_path / "folds.json")


def test_sources_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(CorpusError, match=r"nowhere\.json: cannot be read \(No such file"):
        make_protocol("emobox", toy(), folds_file=tmp_path / "nowhere.json")
    with pytest.raises(CorpusError, match="has no folder fold_1"):
        make_protocol("emobox", toy(), folds_file=tmp_path)
    (tmp_path / "fold_1").mkdir()
    with pytest.raises(CorpusError, match=r"has 0 files \*_test_fold_1.jsonl"):
        make_protocol("emobox", toy(), folds_file=tmp_path)
    table = tmp_path / "fold_1" / "toy_test_fold_1.jsonl"
    table.write_text("{]\n")
    with pytest.raises(CorpusError, match="cannot be read as one JSON object a line"):
        make_protocol("emobox", toy(), folds_file=tmp_path)
    table.write_text("[3]\n")
    with pytest.raises(CorpusError, match="has a line that is no JSON object"):
        make_protocol("emobox", toy(), folds_file=tmp_path)


def test_emobox_folds_of_ravdess_are_six_of_four_talkers(shared):
    files = sorted((shared / "data" / "ravdess").glob("Actor_*/*.flac"))
    corpus = Corpus("ravdess", tuple(Utterance(f.stem, f, f.stem[-2:], f.stem[6:8]) for f in files))
    protocol = make_protocol("emobox", corpus, folds_file=shared / "data" / "emobox_ravdess_folds.json")
    tested = [{corpus.by_id()[id_].talker for id_ in fold.test} for fold in protocol.folds]
    assert tested[0] == {"01", "11", "20", "21"}
    assert [(len(talkers), len(fold.test)) for talkers, fold in zip(tested, protocol.folds, strict=True)] == [
        (4, 240)
    ] * 6
    assert len(protocol.labels) == 8
    assert find_leaks(protocol, corpus) == []
