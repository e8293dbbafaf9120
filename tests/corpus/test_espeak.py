import sys
import tempfile
from pathlib import Path

import espeakng_loader
import numpy as np
import pytest
from jaxtyping import Int16

from serein.corpus import espeak
from serein.corpus.espeak import Prosody, Voice, speaker
from serein.errors import CorpusError

MAN = Voice("en-us", pitch_hz=(90, 130))
BREATHY = Voice("en-029", pitch_hz=(170, 230), formants=115, breath=3)
TEXT = "We were away a long while."


def period_in_seconds(samples: Int16[np.ndarray, " samples"]) -> float:
    middle = samples[len(samples) // 4 :][:8192].astype(float)
    spectrum = np.abs(np.fft.rfft(middle, 2 * len(middle))) ** 2
    likeness = np.fft.irfft(spectrum)[: len(middle)]
    shortest, longest = espeak.SAMPLE_RATE // 400, espeak.SAMPLE_RATE // 40
    return float(shortest + np.argmax(likeness[shortest:longest])) / espeak.SAMPLE_RATE


def test_an_utterance_does_not_depend_on_what_was_said_before() -> None:
    with speaker({"man": MAN, "woman": BREATHY}) as speak:
        alone = {name: speak(TEXT, name, Prosody(), 3) for name in ("man", "woman")}
        for number in range(12):
            speak(
                "Something else" + number * " altogether",
                "woman",
                Prosody(number - 6.0, 1.9, 120.0 + 9 * number, 5.0),
                9,
            )
            speak("And another", "man", Prosody(6.0 - number, 0.1, 300.0 - 9 * number), number)
            assert all(np.array_equal(speak(TEXT, name, Prosody(), 3), alone[name]) for name in alone)


def test_a_second_start_speaks_as_the_first() -> None:
    with speaker({"woman": BREATHY}) as speak:
        first = speak(TEXT, "woman", Prosody(), 3)
    with speaker({"woman": BREATHY}) as speak:
        assert np.array_equal(speak(TEXT, "woman", Prosody(), 3), first)


def test_the_seed_decides_the_breath_and_nothing_else() -> None:
    with speaker({"man": MAN, "woman": BREATHY}) as speak:
        assert np.array_equal(speak(TEXT, "man", Prosody(), 1), speak(TEXT, "man", Prosody(), 2))
        assert not np.array_equal(speak(TEXT, "woman", Prosody(), 1), speak(TEXT, "woman", Prosody(), 2))


@pytest.mark.parametrize("semitones", [-5.0, 5.0])
def test_pitch_is_in_semitones_of_the_voices_own(semitones: float) -> None:
    with speaker({"man": MAN}) as speak:
        own = period_in_seconds(speak(TEXT, "man", Prosody(pitch_range=0.0), 0))
        moved = period_in_seconds(speak(TEXT, "man", Prosody(pitch=semitones, pitch_range=0.0), 0))
    assert 12 * np.log2(own / moved) == pytest.approx(semitones, abs=1.2)


def test_a_faster_rate_is_shorter_and_word_gaps_are_longer() -> None:
    with speaker({"man": MAN}) as speak:
        seconds = {
            key: len(speak(TEXT, "man", prosody, 0)) / espeak.SAMPLE_RATE
            for key, prosody in {
                "plain": Prosody(),
                "fast": Prosody(words_per_minute=300.0),
                "gaps": Prosody(word_gap=10.0),
            }.items()
        }
    assert seconds["fast"] < 0.75 * seconds["plain"]
    assert 0.5 < seconds["gaps"] - seconds["plain"] < 1.0  # five gaps of about 150 ms


def test_names_that_start_with_a_digit_are_voices_of_their_own() -> None:
    with speaker({"1a": MAN, "1b": BREATHY}) as speak:
        assert period_in_seconds(speak(TEXT, "1a", Prosody(), 0)) > 1.3 * period_in_seconds(
            speak(TEXT, "1b", Prosody(), 0)
        )


def test_version_looks_like_one() -> None:
    assert espeak.version().split(".")[0].isdigit()


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(CorpusError, match=r"pip install 'serein\[demo\]'"):
        espeak.version()


def test_a_library_that_does_not_load_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(espeakng_loader, "get_library_path", lambda: str(tmp_path / "none.so"))
    with pytest.raises(CorpusError, match=r"none\.so.*--force-reinstall espeakng-loader"):
        espeak.version()


def test_a_temporary_folder_with_too_long_a_path_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deep = tmp_path / (150 * "x")
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(CorpusError, match="under 160 characters"), speaker({"man": MAN}):
        pass
    assert list(deep.iterdir()) == []


def test_an_unknown_accent_is_refused_and_the_next_utterance_is_said() -> None:
    with speaker({"man": MAN, "nobody": Voice("en-xx", pitch_hz=(90, 130))}) as speak:
        with pytest.raises(CorpusError, match="no voice 'en-xx"):
            speak(TEXT, "nobody", Prosody(), 0)
        assert len(speak(TEXT, "man", Prosody(), 0)) > 0
