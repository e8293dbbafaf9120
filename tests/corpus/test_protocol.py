import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serein.corpus.corpus import Corpus, Utterance
from serein.corpus.protocol import Fold, Leak, Protocol, check_talkers, find_leaks
from serein.errors import CorpusError

FOLD = Fold("one", train=("a", "b"), validation=("c",), test=("d", "e"))


def protocol(*folds: Fold, **changes) -> Protocol:
    return Protocol(
        **{"name": "mine", "description": "d", "corpus": "toy", "labels": ("x", "y"), "folds": folds} | changes
    )


def utterance(id_: str, talker: str, audio_hash: str = "", text: str = "") -> Utterance:
    return Utterance(id_, Path(f"{id_}.wav"), talker, "x", audio_hash=audio_hash, text=text)


@pytest.mark.parametrize(
    ("folds", "changes", "message"),
    [
        ((), {}, "has no folds"),
        ((replace(FOLD, test=("a",)),), {}, "'a' is in both train and test"),
        ((replace(FOLD, validation=("b",)),), {}, "'b' is in both train and validation"),
        ((replace(FOLD, validation=("e",)),), {}, "'e' is in both validation and test"),
        ((replace(FOLD, train=("a", "a")),), {}, "'a' stands twice in train"),
        ((replace(FOLD, train=()),), {}, "fold one: train is empty"),
        ((replace(FOLD, test=()),), {}, "fold one: test is empty"),
        ((FOLD, replace(FOLD, name="two")), {}, "utterance 'd' is tested more than once"),
        ((FOLD, replace(FOLD, name="ONE", test=("f",))), {}, "two folds are named 'one'"),
        ((replace(FOLD, name="a/b"),), {}, "cannot name a folder"),
        ((replace(FOLD, name=".."),), {}, "cannot name a folder"),
        ((replace(FOLD, name=""),), {}, "cannot name a folder"),
        ((replace(FOLD, name="n" * 101),), {}, "cannot name a folder"),
        ((replace(FOLD, validation=FOLD.test),), {}, "is in both validation and test"),
        ((FOLD,), {"name": "mine-ORACLE", "oracle": True}, "an oracle's validation is its test"),
        ((replace(FOLD, validation=FOLD.test),), {"oracle": True}, "must hold the word ORACLE"),
        ((FOLD,), {"name": "mine-ORACLE"}, "must hold the word ORACLE"),
        ((FOLD,), {"shares_talkers": True}, "must hold the word TALKERS-SHARED"),
        ((FOLD,), {"name": "mine-TALKERS-SHARED"}, "must hold the word TALKERS-SHARED"),
    ],
)
def test_what_would_falsify_a_score_cannot_be_built(folds, changes, message):
    with pytest.raises(CorpusError, match=message):
        protocol(*folds, **changes)


def test_only_an_oracle_validates_on_its_test():
    same = replace(FOLD, validation=("e", "d"))
    assert protocol(same, name="mine-ORACLE", oracle=True).folds == (same,)


def test_an_oracle_still_keeps_training_apart():
    with pytest.raises(CorpusError, match="in both train and test"):
        protocol(replace(FOLD, train=("d",), validation=FOLD.test), name="mine-ORACLE", oracle=True)


def test_the_hash_is_the_sha256_of_canonical_json():
    folds = '[{"name":"one","test":["d","e"],"train":["a","b"],"validation":["c"]}]'
    canonical = f'{{"folds":{folds},"labels":["x","y"],"name":"mine"}}'
    assert protocol(FOLD).hash == hashlib.sha256(canonical.encode()).hexdigest()[:12]


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"labels": ("y", "x")},
        {"folds": (replace(FOLD, name="other"),)},
        {"folds": (replace(FOLD, train=("a",), validation=("b", "c")),)},
        {"folds": (replace(FOLD, test=("d",)),)},
    ],
)
def test_the_hash_moves_with_name_labels_and_folds(changes):
    assert protocol(FOLD, **changes).hash != protocol(FOLD).hash


def test_the_hash_stays_with_order_in_a_part_and_with_words():
    shuffled = replace(FOLD, train=("b", "a"), test=("e", "d"))
    assert protocol(shuffled, description="other words").hash == protocol(FOLD).hash


@given(st.data())
def test_the_hash_moves_when_any_one_id_moves_to_another_part(data):
    ids = data.draw(st.lists(st.text(min_size=1), min_size=4, max_size=12, unique=True))
    a, b = sorted(data.draw(st.lists(st.integers(2, len(ids) - 1), min_size=2, max_size=2)))
    train, validation, test = tuple(ids[:a]), tuple(ids[a:b]), tuple(ids[b:])
    moved = data.draw(st.sampled_from(train))
    rest = tuple(id_ for id_ in train if id_ != moved)
    before = protocol(Fold("f", train, validation, test)).hash
    assert protocol(Fold("f", rest, (*validation, moved), test)).hash != before
    assert protocol(Fold("f", rest, validation, (*test, moved))).hash != before


def test_a_saved_protocol_comes_back_whole(tmp_path):
    made = protocol(
        replace(FOLD, train=("ä", "b")),
        Fold("two", ("d",), (), ("c",)),
        name="p-TALKERS-SHARED",
        shares_talkers=True,
    )
    made.save(tmp_path / "deep" / "protocol.json")
    assert Protocol.load(tmp_path / "deep" / "protocol.json") == made
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["protocol.json"]


def test_the_saved_file_states_hash_and_description_for_a_reader(tmp_path):
    protocol(FOLD, description="One fold.").save(tmp_path / "p.json")
    content = json.loads((tmp_path / "p.json").read_text())
    assert content["hash"] == protocol(FOLD).hash
    assert content["description"] == "One fold."


def test_keys_that_others_add_to_the_file_are_passed_over(tmp_path):
    protocol(FOLD).save(tmp_path / "p.json")
    content = json.loads((tmp_path / "p.json").read_text())
    (tmp_path / "p.json").write_text(json.dumps(content | {"leaks": ["a sentence"]}))
    assert Protocol.load(tmp_path / "p.json") == protocol(FOLD)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"c"', '"z"', "it was changed"),
        ('"x"', '"w"', "it was changed"),
        ('"mine"', '"better"', "it was changed"),
        ('"oracle": false', '"oracle": true', "p.json: protocol mine: the name must hold the word ORACLE"),
        ('"c"', '"a"', "p.json: protocol mine, fold one: utterance 'a' is in both train and validation"),
        ('"labels"', '"lables"', "not a protocol that serein saved"),
        ('"hash"', '"hush"', "not a protocol that serein saved"),
        ('"folds": [', '"folds": [3, ', "not a protocol that serein saved"),
        ("{", "", "not a protocol that serein saved"),
    ],
)
def test_a_file_that_was_changed_is_refused(tmp_path, before, after, message):
    path = tmp_path / "p.json"
    protocol(FOLD).save(path)
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(CorpusError, match=message):
        Protocol.load(path)


@pytest.mark.parametrize("content", [b"[]", b"null", b'"hash"', b"\xff\xfe", b""])
def test_a_file_that_is_no_protocol_is_refused(tmp_path, content):
    (tmp_path / "p.json").write_bytes(content)
    with pytest.raises(CorpusError, match="not a protocol that serein saved"):
        Protocol.load(tmp_path / "p.json")


def test_a_file_that_is_not_there_is_refused_with_the_reason(tmp_path):
    with pytest.raises(CorpusError, match="No such file"):
        Protocol.load(tmp_path / "p.json")


def test_every_kind_of_leak_is_found_between_the_parts_that_have_it():
    corpus = Corpus(
        "toy",
        (
            utterance("a", "F1", "h1", "hello"),
            utterance("b", "F2", "h2", ""),
            utterance("c", "F2", "h3", "hello"),
            utterance("d", "F1", "h4", "other"),
            utterance("e", "M1", "h3", ""),
        ),
    )
    found = find_leaks(protocol(FOLD), corpus)
    assert {(leak.kind, leak.between, leak.values) for leak in found} == {
        ("talker", ("train", "test"), ("F1",)),
        ("talker", ("train", "validation"), ("F2",)),
        ("audio", ("validation", "test"), ("c = e",)),
        ("text", ("train", "validation"), ("hello",)),
    }
    assert {leak.fold for leak in found} == {"one"}


def test_unknown_hashes_and_texts_are_no_leak():
    corpus = Corpus("toy", tuple(utterance(id_, talker=id_) for id_ in "abcde"))
    assert find_leaks(protocol(FOLD), corpus) == []


def test_without_hashes_a_recording_is_known_by_its_place():
    one = Path("same.wav")
    corpus = Corpus(
        "toy", tuple(replace(utterance(id_, talker=id_), path=one if id_ in "ad" else Path(id_)) for id_ in "abcde")
    )
    assert [(leak.kind, leak.between, leak.values) for leak in find_leaks(protocol(FOLD), corpus)] == [
        ("audio", ("train", "test"), ("a = d",))
    ]


def test_what_an_oracle_scores_on_its_validation_is_not_listed_again():
    corpus = Corpus("toy", tuple(utterance(id_, talker=id_, text="same") for id_ in "abcde"))
    oracle = protocol(replace(FOLD, validation=FOLD.test), name="mine-ORACLE", oracle=True)
    assert [leak.between for leak in find_leaks(oracle, corpus)] == [("train", "test")]


@pytest.mark.parametrize(
    ("leak", "sentence"),
    [
        (Leak("talker", "f", ("train", "test"), ("F1",)), "fold f: 1 talker is in both train and test: F1"),
        (
            Leak("text", "f", ("train", "validation"), tuple("abcdef")),
            "fold f: 6 texts are in both train and validation (milder: test stays apart): a, b, c, d and 2 more",
        ),
        (
            Leak("audio", "f", ("validation", "test"), ("a1 = b1", "0" * 64)),
            f"fold f: 2 recordings are in both validation and test: a1 = b1, {'0' * 59}…",
        ),
        (
            Leak("text", "f", ("train", "test"), ("0" * 25,)),
            f"fold f: 1 text is in both train and test: {'0' * 23}…",
        ),
    ],
)
def test_a_leak_reads_as_a_sentence(leak, sentence):
    assert str(leak) == sentence


def test_a_protocol_of_another_table_is_refused():
    corpus = Corpus("toy", tuple(utterance(id_, talker=id_) for id_ in "abc"))
    with pytest.raises(CorpusError, match=r"fold one: 2 utterances are not in corpus toy \('d', ...\)"):
        check_talkers(protocol(FOLD), corpus)


@pytest.mark.parametrize("id_in_test_talker", ["a", "c"])
def test_a_talker_on_both_sides_is_refused_by_name_unless_the_name_says_so(id_in_test_talker):
    corpus = Corpus("toy", tuple(utterance(i, "Maja" if i in ("d", id_in_test_talker) else i) for i in "abcde"))
    with pytest.raises(CorpusError, match=r"1 talker is in both (train|validation) and test: Maja"):
        check_talkers(protocol(FOLD), corpus)
    check_talkers(protocol(FOLD, name="mine-TALKERS-SHARED", shares_talkers=True), corpus)


def test_a_talker_in_training_and_validation_is_a_milder_finding_and_no_error():
    corpus = Corpus("toy", tuple(utterance(i, "Maja" if i in "abc" else i) for i in "abcde"))
    check_talkers(protocol(FOLD), corpus)
    assert [str(leak) for leak in find_leaks(protocol(FOLD), corpus)] == [
        "fold one: 1 talker is in both train and validation (milder: test stays apart): Maja"
    ]


def test_an_oracle_that_trains_on_its_test_talkers_is_refused():
    corpus = Corpus("toy", tuple(utterance(i, "Maja" if i in "ad" else i) for i in "abcde"))
    oracle = protocol(replace(FOLD, validation=FOLD.test), name="mine-ORACLE", oracle=True)
    with pytest.raises(CorpusError, match="1 talker is in both train and test: Maja"):
        check_talkers(oracle, corpus)


def test_a_protocol_and_its_parts_cannot_be_changed_after_the_checks():
    with pytest.raises(AttributeError):
        protocol(FOLD).folds = ()
    with pytest.raises(AttributeError):
        protocol(FOLD).folds[0].test = ()
