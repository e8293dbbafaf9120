import json
from pathlib import Path

import pytest

from serein.corpus.audit import Audit, audit
from serein.corpus.corpus import Corpus, Utterance


def utterance(id_: str, talker: str, emotion: str, **facts) -> Utterance:
    return Utterance(id_, Path(f"{id_}.wav"), talker, emotion, **facts)


def of(*utterances: Utterance) -> Audit:
    return audit(Corpus("toy", utterances))


def sound(talkers: int = 3) -> list[Utterance]:
    """Nothing to complain of."""
    return [
        utterance(f"{talker}{emotion}{i}", f"t{talker}", emotion, session=str(talker), seconds=0.5)
        for talker in range(talkers)
        for emotion in ("angry", "sad")
        for i in range(5)
    ]


def test_a_sound_corpus_has_no_findings():
    found = of(*sound())
    assert (found.warnings, found.errors, found.duplicates) == ((), (), ())


def test_counts_are_those_of_every_talker_and_emotion():
    found = of(
        utterance("a", "F1", "sad", session="s2"),
        utterance("b", "F1", "sad", session="s1"),
        utterance("c", "M1", "angry", session="s1"),
        utterance("d", "M2", ""),
    )
    assert found.corpus == "toy"
    assert found.counts == {
        "F1": {"angry": 0, "sad": 2},
        "M1": {"angry": 1, "sad": 0},
        "M2": {"angry": 0, "sad": 0},
    }
    assert (found.utterances, found.unlabelled) == (4, 1)
    assert (found.labels, found.talkers, found.sessions) == (
        ("angry", "sad"),
        ("F1", "M1", "M2"),
        ("s1", "s2"),
    )


def test_seconds_add_up_where_all_are_known_and_are_unknown_where_one_is():
    found = of(
        utterance("a", "F1", "sad", seconds=1.5),
        utterance("b", "F1", "sad", seconds=2.0),
        utterance("c", "M1", "angry"),
        utterance("d", "M1", "happy", seconds=0.25),
    )
    assert found.seconds is None
    assert found.seconds_by_emotion == {"angry": None, "happy": 0.25, "sad": 3.5}
    assert of(*sound()).seconds == 15.0


def test_unlabelled_speech_counts_in_the_length_of_the_whole():
    found = of(utterance("a", "F1", "sad", seconds=1.0), utterance("b", "F1", "", seconds=2.0))
    assert (found.seconds, found.seconds_by_emotion) == (3.0, {"sad": 1.0})


def test_equal_audio_is_grouped_and_unknown_hashes_are_not_equal():
    found = of(
        utterance("a", "F1", "sad", audio_hash="1"),
        utterance("b", "F1", "sad", audio_hash="2"),
        utterance("c", "F1", "sad", audio_hash="1"),
        utterance("d", "F1", "sad"),
        utterance("e", "F1", "sad"),
    )
    assert found.duplicates == (("a", "c"),)
    assert not any("same audio" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("copy", "warning"),
    [
        (
            utterance("b", "t0", "sad", session="0", audio_hash="1"),
            "The same audio (a, b) stands under 2 emotions (angry, sad).",
        ),
        (
            utterance("b", "t1", "angry", session="1", audio_hash="1"),
            "The same audio (a, b) stands under 2 talkers (t0, t1), a leak.",
        ),
    ],
)
def test_one_recording_under_two_emotions_or_talkers_is_warned_of(copy, warning):
    original = utterance("a", "t0", "angry", session="0", audio_hash="1")
    assert of(*sound(), original, copy).warnings == (warning,)


def test_a_copy_without_a_label_is_not_under_two_emotions():
    copies = (utterance(id_, "t0", label, session="0", audio_hash="1") for id_, label in (("a", "sad"), ("b", "")))
    assert of(*sound(), *copies).warnings == ()


def test_a_class_is_rare_below_ten():
    rare = [utterance(f"r{i}", f"t{i % 3}", "happy", session=str(i % 3)) for i in range(10)]
    assert of(*sound(), *rare).warnings == ()
    assert of(*sound(), *rare[:9]).warnings == (
        "Emotion happy: fewer than 10 utterances (9), so its recall is coarse.",
    )


def test_talkers_who_never_show_an_emotion_are_named():
    more = [utterance(f"r{i}", f"n{i % 6}", "sad", session="n") for i in range(12)]
    assert of(*sound(), *more).warnings == (
        "Emotion angry: 6 of 9 talkers never show it (n0, n1, n2, n3, ...); "
        "a fold that tests only them says nothing about it.",
    )


def test_a_talker_of_unlabelled_speech_lacks_no_emotion_and_is_no_second_talker():
    unlabelled = utterance("x", "silent", "", session="9")
    assert of(*sound(), unlabelled).warnings == ()
    assert of(*sound(1), unlabelled).errors == (
        "Fewer than two labelled talkers (t0): nobody can be tested who did not also train.",
    )


def test_two_talkers_are_warned_of():
    assert of(*sound(2)).warnings == (
        "Two labelled talkers: while one trains and one is tested, nobody is left to validate.",
    )
    assert of(*sound(2)).errors == ()


def test_missing_sessions_are_warned_of_wholly_or_in_part():
    without = [utterance(f"n{i}", "t0", "sad") for i in range(2)]
    assert of(*sound(), *without).warnings == ("No session is given for 2 of 32 utterances (n0, n1).",)
    said = "No sessions: the protocols that leave a session out cannot be made; use talkers or talkers-5."
    assert said in of(*without).warnings


def test_one_emotion_is_an_error():
    found = of(*(u for u in sound() if u.emotion == "sad"))
    assert found.errors == ("Fewer than two emotions (sad): there is nothing to tell apart.",)


def test_an_empty_corpus_has_both_errors_and_no_names_to_give():
    assert of().errors == (
        "Fewer than two labelled talkers: nobody can be tested who did not also train.",
        "Fewer than two emotions: there is nothing to tell apart.",
    )


def test_speech_without_any_label_is_warned_of_and_no_error():
    found = of(utterance("a", "F1", "", session="1"))
    assert found.warnings == ("No utterance has an emotion: for adapter training only (`serein adapt`, --unlabelled).",)
    assert found.errors == ()


def test_an_empty_corpus_is_audited_too():
    found = of()
    assert (found.utterances, found.seconds, found.counts) == (0, 0.0, {})


def test_the_findings_survive_json():
    found = of(*sound(), utterance("a", "t0", "sad", audio_hash="1"), utterance("b", "t0", "sad", audio_hash="1"))
    content = json.loads(json.dumps(found.as_dict()))
    assert content["counts"]["t0"] == {"angry": 5, "sad": 7}
    assert content["duplicates"] == [["a", "b"]]
    assert content["seconds"] is None
    assert content.keys() == Audit.__dataclass_fields__.keys()
