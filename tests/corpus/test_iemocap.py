from collections import Counter
from pathlib import Path

import pytest

from serein.corpus.corpus import Corpus, Utterance
from serein.corpus.readers import release_gaps
from serein.corpus.readers.iemocap import FOUR_CLASSES, PUBLISHED, read_iemocap
from serein.errors import CorpusError

LABELS = ("angry", "happy", "neutral", "sad")
TALKERS = ("01F", "01M", "02F", "02M", "03F", "03M", "04F", "04M", "05F", "05M")

HANDWRITTEN = """\
% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[6.2901 - 8.2357]\tSes03M_impro05a_F000\tneu\t[2.5000, 3.5000, 1.6667]
C-E2:\tNeutral;\t()
C-E3:\tNeutral; Sadness;\t(soft; (then) firm)
C-E4:\tOther;\t(curious)
C-E5:\t;\t()
C-F1:\tAnger;\t()
C-M1:\tFrustration;\t()
A-E3:\tval 3; act 2; dom  2;\t()
A-F1:\tval 3; act 2; dom  1;\t()

[10 - 11.5]\tSes03M_impro05a_M001\txxx\t[3, 2.0, 4.25]\x20
C-E1:\tAnger;\t()
"""


def write_annotation(release: Path, dialogue: str, text: str) -> Path:
    path = release / f"Session{dialogue[4]}" / "dialog" / "EmoEvaluation" / f"{dialogue}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def table(corpus: Corpus, row: str) -> dict[str, tuple[int, ...]]:
    counts = Counter((getattr(u, row), u.emotion) for u in corpus)
    return {
        value: tuple(counts[value, label] for label in corpus.labels)
        for value in sorted({getattr(u, row) for u in corpus})
    }


def part(corpus: Corpus, name: str) -> Corpus:
    return corpus.select(lambda utterance: utterance.extra["part"] == name)


@pytest.fixture(scope="module")
def everything(iemocap_tree: Path) -> Corpus:
    return read_iemocap(iemocap_tree)


@pytest.fixture(scope="module")
def four_classes(everything: Corpus) -> Corpus:
    return everything.relabel(FOUR_CLASSES)


@pytest.fixture(scope="module")
def unmerged(everything: Corpus) -> Corpus:
    return everything.select(lambda utterance: utterance.emotion in FOUR_CLASSES)


def test_a_turn_is_read_with_all_that_its_annotation_says(tmp_path: Path) -> None:
    write_annotation(tmp_path, "Ses03M_impro05a", HANDWRITTEN)
    first, second = read_iemocap(tmp_path)
    assert first == Utterance(
        id="Ses03M_impro05a_F000",
        path=tmp_path / "Session3/sentences/wav/Ses03M_impro05a/Ses03M_impro05a_F000.wav",
        talker="03F",
        emotion="neu",
        session="3",
        release="iemocap",
        extra={
            "dialogue": "Ses03M_impro05a",
            "part": "improvised",
            "gender": "female",
            "valence": "2.5000",
            "activation": "3.5000",
            "dominance": "1.6667",
            "raters": "Neutral;Neutral/Sadness;Other",
            "start": "6.2901",
            "end": "8.2357",
        },
    )
    assert (second.talker, second.emotion, second.extra["raters"]) == ("03M", "xxx", "Anger")
    assert [second.extra[name] for name in ("start", "end", "valence", "activation", "dominance")] == [
        "10",
        "11.5",
        "3",
        "2.0",
        "4.25",
    ]


def test_the_folder_that_holds_the_release_will_do(tmp_path: Path) -> None:
    write_annotation(tmp_path / "IEMOCAP_full_release", "Ses03M_impro05a", HANDWRITTEN)
    assert list(read_iemocap(str(tmp_path))) == list(read_iemocap(tmp_path / "IEMOCAP_full_release"))


def test_recordings_may_have_become_flac(tmp_path: Path) -> None:
    write_annotation(tmp_path, "Ses03M_impro05a", HANDWRITTEN)
    flac = tmp_path / "Session3/sentences/wav/Ses03M_impro05a/Ses03M_impro05a_F000.flac"
    flac.parent.mkdir(parents=True)
    flac.touch()
    assert [u.path.suffix for u in read_iemocap(tmp_path)] == [".flac", ".wav"]


@pytest.mark.parametrize(
    ("dialogue", "talker", "expected"),
    [
        ("Ses01F_impro01", "M", ("01M", "improvised", "male")),
        ("Ses03M_impro08b", "F", ("03F", "improvised", "female")),
        ("Ses05M_script01_1b", "F", ("05F", "scripted", "female")),
        ("Ses02F_script03_2", "M", ("02M", "scripted", "male")),
    ],
)
def test_the_talker_is_who_speaks_and_not_who_wore_the_markers(
    tmp_path: Path, dialogue: str, talker: str, expected: tuple[str, str, str]
) -> None:
    write_annotation(tmp_path, dialogue, f"[1.0 - 2.0]\t{dialogue}_{talker}012\tang\t[2.0, 4.0, 4.0]\n")
    (utterance,) = read_iemocap(tmp_path)
    assert (utterance.talker, utterance.extra["part"], utterance.extra["gender"]) == expected


@pytest.mark.parametrize(
    "line",
    [
        "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu",
        "[6.2901 - 8.2357]\tSes01F_impro01_F000\tnue\t[2.5000, 2.5000, 2.5000]",
        "[6.2901 - 8.2357]\tSes06F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]",
        "[6.2901 - 8.2357]\tSes01F_impro01_X000\tneu\t[2.5000, 2.5000, 2.5000]",
        "[6.2901 - ]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]",
        "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000]",
        "  [START_TIME - END_TIME]",
    ],
)
def test_a_line_that_begins_like_a_turn_and_is_none_is_named(tmp_path: Path, line: str) -> None:
    path = write_annotation(tmp_path, "Ses01F_impro01", f"% header\n\n{line}\n")
    with pytest.raises(CorpusError, match="is not a labelled turn") as error:
        read_iemocap(tmp_path)
    assert str(error.value).startswith(f"{path}, line 3: {line.strip()!r}")


def test_a_turn_that_stands_twice_is_a_fault(tmp_path: Path) -> None:
    write_annotation(tmp_path, "Ses03M_impro05a", HANDWRITTEN + HANDWRITTEN)
    with pytest.raises(CorpusError, match="'Ses03M_impro05a_F000' stands twice"):
        read_iemocap(tmp_path)


def test_a_wrong_folder_is_told_what_was_expected_and_what_it_holds(tmp_path: Path) -> None:
    for name in ("Session1", "README.txt", ".hidden"):
        (tmp_path / name).mkdir()
    with pytest.raises(CorpusError, match=r"EmoEvaluation/Ses01F_impro01\.txt; .* README\.txt, Session1$"):
        read_iemocap(tmp_path)


def test_one_session_alone_is_read_and_what_is_missing_is_named(tmp_path: Path) -> None:
    write_annotation(tmp_path, "Ses03M_impro05a", HANDWRITTEN)
    gaps = release_gaps("iemocap", read_iemocap(tmp_path))
    assert "session 3: 2 of 2136 utterances" in gaps
    assert "session 3, neu: 1 of 320 utterances" in gaps
    assert "session 5: 0 of 2170 utterances" in gaps
    assert "xxx: 1 of 2507 utterances" in gaps


def test_all_10039_turns_of_151_dialogues_are_read_and_nothing_is_missing(everything: Corpus) -> None:
    assert len(everything) == 10_039
    assert Counter(u.session for u in everything) == {"1": 1819, "2": 1811, "3": 2136, "4": 2103, "5": 2170}
    assert len({u.extra["dialogue"] for u in everything}) == 151
    assert release_gaps("iemocap", everything) == []


def test_a_turn_less_shows_as_a_gap_of_its_session_and_label(everything: Corpus) -> None:
    lost = next(u for u in everything if u.session == "4" and u.emotion == "hap")
    assert release_gaps("iemocap", everything.select(lambda utterance: utterance is not lost)) == [
        "session 4: 2102 of 2103 utterances",
        "session 4, hap: 64 of 65 utterances",
    ]


def test_the_published_table_holds_the_5531(everything: Corpus) -> None:
    assert sum(count for shared, count in PUBLISHED.items() if "," in shared) == 5531


def test_dialogues_by_session_and_part(four_classes: Corpus) -> None:
    dialogues = Counter((p, s) for p, s, _ in {(u.extra["part"], u.session, u.extra["dialogue"]) for u in four_classes})
    assert [dialogues["improvised", session] for session in "12345"] == [14, 16, 18, 16, 16]
    assert [dialogues["scripted", session] for session in "12345"] == [14, 14, 14, 14, 15]


def test_four_classes_by_session(four_classes: Corpus) -> None:
    assert four_classes.labels == LABELS
    assert table(four_classes, "session") == {
        "1": (229, 278, 384, 194),
        "2": (137, 327, 362, 197),
        "3": (240, 286, 320, 305),
        "4": (327, 303, 258, 143),
        "5": (170, 442, 384, 245),
    }
    assert [sum(row) for row in table(four_classes, "session").values()] == [1085, 1023, 1151, 1031, 1241]
    assert Counter(u.emotion for u in four_classes) == {
        "angry": 1103,
        "happy": 1636,
        "neutral": 1708,
        "sad": 1084,
    }
    assert len(four_classes) == 5531


def test_happiness_and_excitement_apart_by_session(unmerged: Corpus) -> None:
    assert unmerged.labels == ("ang", "exc", "hap", "neu", "sad")
    assert table(unmerged, "session") == {
        "1": (229, 143, 135, 384, 194),
        "2": (137, 210, 117, 362, 197),
        "3": (240, 151, 135, 320, 305),
        "4": (327, 238, 65, 258, 143),
        "5": (170, 299, 143, 384, 245),
    }
    assert Counter(u.emotion for u in unmerged) == {
        "ang": 1103,
        "exc": 1041,
        "hap": 595,
        "neu": 1708,
        "sad": 1084,
    }


def test_improvised_by_session(four_classes: Corpus, unmerged: Corpus) -> None:
    improvised = part(four_classes, "improvised")
    assert len(improvised) == 2943
    assert table(improvised, "session") == {
        "1": (62, 132, 223, 104),
        "2": (22, 191, 217, 100),
        "3": (90, 149, 198, 190),
        "4": (84, 195, 174, 81),
        "5": (31, 280, 287, 133),
    }
    assert [sum(row) for row in table(improvised, "session").values()] == [521, 530, 627, 534, 731]
    assert table(part(unmerged, "improvised"), "session") == {
        "1": (62, 99, 33, 223, 104),
        "2": (22, 137, 54, 217, 100),
        "3": (90, 89, 60, 198, 190),
        "4": (84, 164, 31, 174, 81),
        "5": (31, 174, 106, 287, 133),
    }
    assert Counter(u.emotion for u in part(unmerged, "improvised")) == {
        "ang": 289,
        "exc": 663,
        "hap": 284,
        "neu": 1099,
        "sad": 608,
    }


def test_improvised_without_excitement(everything: Corpus) -> None:
    without = everything.relabel({"ang": "angry", "hap": "happy", "neu": "neutral", "sad": "sad"})
    improvised = part(without, "improvised")
    assert len(improvised) == 2280
    assert Counter(u.emotion for u in improvised) == {"angry": 289, "happy": 284, "neutral": 1099, "sad": 608}


def test_scripted_by_session_and_label(four_classes: Corpus, unmerged: Corpus) -> None:
    scripted = part(four_classes, "scripted")
    assert len(scripted) == 2588
    assert [sum(row) for row in table(scripted, "session").values()] == [564, 493, 524, 497, 510]
    assert Counter(u.emotion for u in scripted) == {"angry": 814, "happy": 689, "neutral": 609, "sad": 476}
    apart = Counter(u.emotion for u in part(unmerged, "scripted"))
    assert (apart["hap"], apart["exc"]) == (311, 378)


def test_four_classes_by_talker(four_classes: Corpus) -> None:
    assert table(four_classes, "talker") == {
        "01F": (147, 132, 171, 78),
        "01M": (82, 146, 213, 116),
        "02F": (67, 166, 135, 113),
        "02M": (70, 161, 227, 84),
        "03F": (92, 128, 130, 172),
        "03M": (148, 158, 190, 133),
        "04F": (205, 185, 76, 62),
        "04M": (122, 118, 182, 81),
        "05F": (78, 159, 221, 132),
        "05M": (92, 283, 163, 113),
    }
    totals = [sum(row) for row in table(four_classes, "talker").values()]
    assert totals == [528, 557, 481, 542, 522, 629, 528, 503, 590, 651]


def test_improvised_by_talker(four_classes: Corpus) -> None:
    counts = Counter(u.talker for u in part(four_classes, "improvised"))
    assert [counts[talker] for talker in TALKERS] == [271, 250, 273, 257, 305, 322, 268, 266, 366, 365]


def test_genders(four_classes: Corpus) -> None:
    assert Counter(u.extra["gender"] for u in four_classes) == {"female": 2649, "male": 2882}


def test_the_talker_differs_from_the_prefix_of_the_name_in_2750_of_5531(four_classes: Corpus) -> None:
    assert sum(u.id[5] != u.talker[2] for u in four_classes) == 2750


def test_dialogues_with_odd_names_have_their_female_talkers(four_classes: Corpus) -> None:
    odd = ("Ses03M_impro05a", "Ses03M_impro05b", "Ses03M_impro08a", "Ses03M_impro08b", "Ses05M_script01_1b")
    inside = [u for u in four_classes if u.extra["dialogue"] in odd]
    assert len(inside) == 174
    female = Counter((u.extra["dialogue"], u.talker) for u in inside if u.extra["gender"] == "female")
    assert female == dict(
        zip(zip(odd, ("03F", "03F", "03F", "03F", "05F"), strict=True), (17, 27, 7, 5, 9), strict=True)
    )


def test_turns_keep_what_is_around_them(everything: Corpus) -> None:
    turn = everything.by_id()["Ses01F_impro04_F000"]
    assert turn.path.parts[-5:] == (
        "Session1",
        "sentences",
        "wav",
        "Ses01F_impro04",
        "Ses01F_impro04_F000.wav",
    )
    assert turn.extra["raters"] == "Neutral;Anger/Frustration;Neutral"
    assert float(turn.extra["end"]) - float(turn.extra["start"]) == pytest.approx(4.3945, abs=1e-3)
    assert turn.seconds is None
    assert [turn.extra[name] for name in ("valence", "activation", "dominance")] == [
        "2.5000",
        "3.0000",
        "1.6667",
    ]
