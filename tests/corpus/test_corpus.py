import csv
import os
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serein.corpus.corpus import Corpus, Utterance, same_recording
from serein.errors import CorpusError


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    table = folder / "calls.csv"
    table.write_bytes(text.encode(encoding))
    return table


def utterance(id: str, talker: str = "F1", emotion: str = "sad", **rest: object) -> Utterance:
    return Utterance(id, Path(f"{id}.wav"), talker, emotion, **rest)  # type: ignore[arg-type]


def faults(table: Path) -> list[str]:
    with pytest.raises(CorpusError) as error:
        Corpus.from_csv(table)
    assert str(error.value).startswith(str(table))
    return str(error.value).splitlines()


def test_a_table_by_hand_is_read_with_every_column(tmp_path: Path) -> None:
    table = write(
        tmp_path,
        "id,path,talker,emotion,session,text,seconds,audio_hash,release,channel\n"
        "a,audio/a.wav,F1,sad,s1,hello,1.25,ab12,ravdess,phone\n"
        "b,/data/b.wav,M1,,,,,,,\n",
    )
    corpus = Corpus.from_csv(table)
    assert corpus.name == "calls"
    assert list(corpus) == [
        Utterance(
            "a", tmp_path / "audio/a.wav", "F1", "sad", "s1", "hello", 1.25, "ab12", {"channel": "phone"}, "ravdess"
        ),
        Utterance("b", Path("/data/b.wav"), "M1", extra={"channel": ""}),
    ]


def test_only_four_columns_are_needed_in_any_order_and_blank_lines_pass(tmp_path: Path) -> None:
    table = write(tmp_path, "talker,emotion,path,id\n\nF1,sad,a.wav,a\n\n")
    assert list(Corpus.from_csv(str(table))) == [Utterance("a", tmp_path / "a.wav", "F1", "sad")]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_byte_order_mark_quotes_and_spaces_around_cells_do_no_harm(tmp_path: Path, newline: str) -> None:
    lines = (
        ' id , path,talker,emotion,"said ""aloud"""',
        ' a ,"a, b.wav", F1 ,sad,"he said ""no"", twice"',
        "",
    )
    table = write(tmp_path, newline.join(lines), encoding="utf-8-sig")
    assert list(Corpus.from_csv(table)) == [
        Utterance("a", tmp_path / "a, b.wav", "F1", "sad", extra={'said "aloud"': 'he said "no", twice'})
    ]


def test_every_fault_is_named_with_its_row(tmp_path: Path) -> None:
    table = write(
        tmp_path,
        "id,path,talker,emotion,seconds\n"
        "a,a.wav,F1,sad,1.0\n"
        ",b.wav,F1,sad,1.0\n"
        "c,,,sad,1.0\n"
        "d,d.wav,F1,sad\n"
        "e,e.wav,F1,sad,long\n"
        "f,f.wav,F1,sad,-1\n"
        "g,g.wav,F1,sad,inf\n"
        "h,h.wav,F1,sad,nan\n"
        "a,a2.wav,F1,sad,\n"
        "\x07,i.wav,F\u200b,sad,1.0\n",
    )
    assert faults(table) == [
        f"{table}: 11 fault(s):",
        "  row 3: id is empty",
        "  row 4: path is empty",
        "  row 4: talker is empty",
        "  row 5: 4 cells where the header has 5",
        "  row 6: seconds is 'long', not a number",
        "  row 7: seconds is '-1', not a length",
        "  row 8: seconds is 'inf', not a length",
        "  row 9: seconds is 'nan', not a length",
        "  row 10: id 'a' stands already in row 2",
        "  row 11: id '\\x07' cannot be printed",
        "  row 11: talker 'F\\u200b' cannot be printed",
    ]


def test_a_name_written_in_two_ways_is_one_talker_while_ids_and_paths_are_left_alone(tmp_path: Path) -> None:
    table = write(tmp_path, "id,path,talker,emotion\ne\u0308,Zoe\u0308.wav,Zoe\u0308,sad\nb,b.wav,Zo\u00eb,sad\n")
    corpus = Corpus.from_csv(table)
    assert corpus.talkers == ("Zo\u00eb",)
    assert (corpus.utterances[0].id, corpus.utterances[0].path.name) == ("e\u0308", "Zoe\u0308.wav")


def test_of_many_faults_twenty_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    lines = faults(write(tmp_path, "id,path,talker,emotion\n" + "".join(f"{n},,F1,sad\n" for n in range(23))))
    assert lines[0].endswith("calls.csv: 23 fault(s):")
    assert lines[-2:] == ["  row 21: path is empty", "  and 3 more"]
    assert len(lines) == 22


def test_a_header_without_columns_or_with_a_column_twice_is_a_fault(tmp_path: Path) -> None:
    (line,) = faults(write(tmp_path, "id,path,speaker,note,note\n"))
    assert "row 1: no column 'talker'; no column 'emotion'; column 'note' stands twice" in line


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is empty; the first row must name the columns id, path, talker, emotion"),
        ("id,path,talker,emotion\n", "has a header and no utterances"),
        ('id,path,talker,emotion\na,"a.wav,F1,sad\n', "is not a CSV table in UTF-8"),
    ],
)
def test_a_table_that_is_none_is_named(tmp_path: Path, text: str, fault: str) -> None:
    (line,) = faults(write(tmp_path, text))
    assert fault in line


def test_a_table_in_another_encoding_or_missing_is_named(tmp_path: Path) -> None:
    table = write(tmp_path, "id,path,talker,emotion\na,café.wav,F1,sad\n", encoding="latin-1")
    assert "is not a CSV table in UTF-8" in faults(table)[0]
    assert "cannot be read (No such file or directory)" in faults(tmp_path / "none.csv")[0]


def test_paths_are_written_relative_to_the_table_and_found_again(tmp_path: Path) -> None:
    corpus = Corpus(
        "calls",
        (
            Utterance("below", tmp_path / "tables" / "audio" / "a.wav", "F1"),
            Utterance("beside", tmp_path / "audio" / "b.wav", "F1"),
        ),
    )
    table = tmp_path / "tables" / "calls.csv"
    corpus.to_csv(table)
    with table.open(newline="", encoding="utf-8") as file:
        assert [row["path"] for row in csv.DictReader(file)] == ["audio/a.wav", "../audio/b.wav"]
    assert [u.path.resolve() for u in Corpus.from_csv(table)] == [u.path.resolve() for u in corpus]


def test_a_table_in_a_linked_folder_finds_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "scratch").symlink_to(tmp_path / "far" / "away")
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "a.wav").touch()
    monkeypatch.chdir(tmp_path / "home")
    Corpus("calls", (Utterance("a", Path("../audio/a.wav"), "F1"),)).to_csv("scratch/calls.csv")
    (found,) = Corpus.from_csv("scratch/calls.csv")
    assert found.path.exists()


def test_a_path_that_no_table_can_hold_is_named(tmp_path: Path) -> None:
    path = Path(os.fsdecode(b"M\xfcller/a.wav"))
    with pytest.raises(CorpusError, match="is not UTF-8"):
        Corpus("calls", (Utterance("a", path, "F1"),)).to_csv(tmp_path / "calls.csv")
    (tmp_path / os.fsdecode(b"M\xfcller")).mkdir()
    (tmp_path / "link").symlink_to(os.fsdecode(b"M\xfcller"))
    with pytest.raises(CorpusError, match="is not UTF-8"):
        Corpus("calls", (Utterance("a", tmp_path / "link" / "a.wav", "F1"),)).to_csv(tmp_path / "calls.csv")
    assert not list(tmp_path.glob("*calls*"))


def test_a_corpus_whose_own_name_no_table_can_hold_is_refused() -> None:
    with pytest.raises(CorpusError, match=r"corpus 'caf\\udce9': its name is not UTF-8"):
        Corpus(os.fsdecode(b"caf\xe9"), (utterance("a"),))


def test_a_folder_whose_name_begins_with_a_space_is_found_again(tmp_path: Path) -> None:
    corpus = Corpus("calls", (Utterance("a", tmp_path / " audio" / "a.wav", "F1"),))
    corpus.to_csv(tmp_path / "calls.csv")
    assert list(Corpus.from_csv(tmp_path / "calls.csv")) == list(corpus)


def test_a_file_whose_name_ends_in_a_space_is_refused(tmp_path: Path) -> None:
    corpus = Corpus("calls", (Utterance("a", tmp_path / "a.wav ", "F1"),))
    with pytest.raises(CorpusError, match="ends in a space"):
        corpus.to_csv(tmp_path / "calls.csv")


def test_a_table_that_is_a_link_has_the_paths_of_the_place_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "near.csv").symlink_to(tmp_path / "far" / "deep" / "calls.csv")
    Corpus("calls", (Utterance("a", tmp_path / "audio" / "a.wav", "F1"),)).to_csv(tmp_path / "near.csv")
    (found,) = Corpus.from_csv(tmp_path / "far" / "deep" / "calls.csv")
    assert found.path.resolve() == tmp_path / "audio" / "a.wav"


def test_a_corpus_moves_together_with_its_table(tmp_path: Path) -> None:
    old = tmp_path / "old"
    Corpus("calls", (Utterance("a", old / "audio" / "a.wav", "F1"),)).to_csv(old / "calls.csv")
    old.rename(tmp_path / "new")
    (moved,) = Corpus.from_csv(tmp_path / "new" / "calls.csv")
    assert moved.path == tmp_path / "new" / "audio" / "a.wav"


def test_a_relative_table_and_relative_paths_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Corpus("calls", (Utterance("a", Path("audio/a.wav"), "F1"),)).to_csv("tables/calls.csv")
    (found,) = Corpus.from_csv("tables/calls.csv")
    assert found.path.resolve() == tmp_path / "audio" / "a.wav"


def test_empty_columns_are_not_written_and_no_partial_file_stays(tmp_path: Path) -> None:
    table = tmp_path / "calls.csv"
    Corpus("calls", (utterance("a", seconds=0.0), utterance("b", extra={"channel": "phone"}))).to_csv(table)
    assert table.read_text(encoding="utf-8").splitlines()[0] == "id,path,talker,emotion,seconds,channel"
    assert [path.name for path in tmp_path.iterdir()] == ["calls.csv"]
    assert [u.seconds for u in Corpus.from_csv(table)] == [0.0, None]


def test_writing_again_replaces_the_table(tmp_path: Path) -> None:
    table = tmp_path / "calls.csv"
    Corpus("calls", (utterance("a"), utterance("b"))).to_csv(table)
    Corpus("calls", (utterance("c"),)).to_csv(table)
    assert [u.id for u in Corpus.from_csv(table)] == ["c"]


# Cells are stripped of spaces around them and normalised when a table is read, so here they are already.
def composed(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


cells = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=12).map(composed)
names = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=12).map(composed)
filled = names.filter(bool)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(filled, filled, names, names, cells, st.none() | st.floats(0, 1e6), cells, cells, cells),
        min_size=1,
        max_size=5,
        unique_by=lambda row: row[0],
    )
)
def test_whatever_is_written_is_read_again(tmp_path: Path, rows: list[tuple[object, ...]]) -> None:
    corpus = Corpus(
        "calls",
        tuple(
            Utterance(
                id, tmp_path / "a.wav", talker, emotion, session, text, seconds, audio_hash, {"note": note}, release
            )  # type: ignore[arg-type]
            for id, talker, emotion, session, text, seconds, audio_hash, release, note in rows
        ),
    )
    corpus.to_csv(tmp_path / "calls.csv")
    assert Corpus.from_csv(tmp_path / "calls.csv") == corpus


def test_a_carriage_return_inside_a_cell_is_read_again(tmp_path: Path) -> None:
    corpus = Corpus("calls", (Utterance("a", tmp_path / "a.wav", "F1", "sad", text="one\rtwo"),))
    corpus.to_csv(tmp_path / "calls.csv")
    assert Corpus.from_csv(tmp_path / "calls.csv") == corpus


@pytest.mark.parametrize("name", ["id", "talker", "emotion", "session"])
def test_names_with_line_breaks_are_refused(name: str) -> None:
    with pytest.raises(CorpusError, match="cannot be printed"):
        Corpus("calls", (replace(Utterance("a", Path("a.wav"), "F1", "sad"), **{name: "x\u2028y"}),))


@pytest.mark.parametrize("name", ["id", "talker", "emotion", "session"])
def test_names_with_space_at_an_edge_are_refused(name: str) -> None:
    with pytest.raises(CorpusError, match=f"{name} 'x ' has space at its edge"):
        Corpus("calls", (replace(Utterance("a", Path("a.wav"), "F1", "sad"), **{name: "x "}),))


def test_ids_are_unique_and_talkers_are_named() -> None:
    with pytest.raises(CorpusError, match="id 'a' stands twice"):
        Corpus("calls", (utterance("a"), utterance("a")))
    with pytest.raises(CorpusError, match="an utterance has no id"):
        Corpus("calls", (utterance(""),))
    with pytest.raises(CorpusError, match="an utterance has no talker"):
        Corpus("calls", (utterance("a", talker=""),))


def test_talkers_and_labels_are_sorted_and_unlabelled_speech_has_no_label() -> None:
    corpus = Corpus("calls", (utterance("a", "M1", "sad"), utterance("b", "F1", ""), utterance("c", "F1", "angry")))
    assert corpus.talkers == ("F1", "M1")
    assert corpus.labels == ("angry", "sad")
    assert len(corpus) == 3
    assert list(corpus.by_id()) == ["a", "b", "c"]
    assert corpus.by_id()["b"].talker == "F1"


def test_select_keeps_the_order_and_the_name() -> None:
    corpus = Corpus("calls", (utterance("c"), utterance("a"), utterance("b", talker="M1")))
    chosen = corpus.select(lambda u: u.talker == "F1")
    assert (chosen.name, [u.id for u in chosen]) == ("calls", ["c", "a"])


def test_relabel_renames_merges_and_leaves_out_what_the_map_does_not_name() -> None:
    corpus = Corpus(
        "calls", (utterance("a", emotion="exc"), utterance("b", emotion="fru"), utterance("c", emotion="hap"))
    )
    renamed = corpus.relabel({"exc": "happy", "hap": "happy", "sad": "sad"})
    assert [(u.id, u.emotion) for u in renamed] == [("a", "happy"), ("c", "happy")]
    assert [u.emotion for u in corpus] == ["exc", "fru", "hap"]


@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_table_separated_otherwise_is_recognised(tmp_path, mark):
    rows = (("id", "path", "talker", "emotion"), ("a", "a.wav", "F1", "sad"))
    (tmp_path / "mine.csv").write_text("\n".join(map(mark.join, rows)), encoding="utf-8")
    with pytest.raises(CorpusError) as caught:
        Corpus.from_csv(tmp_path / "mine.csv")
    assert str(caught.value).endswith(f"it looks separated by {mark!r}: save it with commas")


def test_an_empty_first_row_names_no_column(tmp_path):
    (tmp_path / "mine.csv").write_text("\nid,path,talker,emotion\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"row 1: no column 'id'.*the header is \[\]$"):
        Corpus.from_csv(tmp_path / "mine.csv")


def test_a_recording_is_known_by_its_hash_else_by_its_place_or_bytes(tmp_path):
    for name, content in (("a", b"one"), ("copy", b"one"), ("b", b"two")):
        (tmp_path / name).write_bytes(content)

    def at(name: str, audio_hash: str = "") -> Utterance:
        return Utterance("u", tmp_path / name, "F1", audio_hash=audio_hash)

    assert same_recording(at("a"), at("a"))
    assert same_recording(at("a"), at("copy"))
    assert same_recording(at("gone"), at("gone"))
    assert same_recording(at("a", "1"), at("b", "1"))
    assert not same_recording(at("a"), at("b"))
    assert not same_recording(at("a"), at("gone"))
    assert not same_recording(at("a", "1"), at("copy", "2"))
    assert same_recording(at("a", "1"), at("copy"))
