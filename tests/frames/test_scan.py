import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from serein.corpus.corpus import Corpus, Utterance
from serein.errors import CorpusError
from serein.frames import scan
from serein.frames.audio import audio_hash, decode
from serein.frames.scan import BrokenFile, scan_audio


def write(path, seconds, rate=16_000, channels=1):
    sound = np.random.default_rng(0).integers(-20_000, 20_000, (round(seconds * rate), channels), np.int16)
    soundfile.write(path, sound, rate)
    return path


def corpus_of(paths):
    return Corpus("small", tuple(Utterance(path.stem, path, "F1", "sad", extra={"mood": "x"}) for path in paths))


@pytest.fixture
def corpus(tmp_path):
    cut = write(tmp_path / "cut.wav", 1.0)
    cut.write_bytes(cut.read_bytes()[:5_000])
    soundfile.write(tmp_path / "silent.flac", np.zeros(8_000), 16_000)
    return corpus_of(
        [
            write(tmp_path / "a.wav", 0.5),
            cut,
            write(tmp_path / "b.flac", 0.5),
            tmp_path / "missing.wav",
            tmp_path / "silent.flac",
            write(tmp_path / "stereo.flac", 1.25, rate=44_100, channels=2),
        ]
    )


@pytest.mark.parametrize("workers", [None, 1, 3])
def test_usable_utterances_are_measured_and_keep_their_order(corpus, workers):
    found = scan_audio(corpus, workers=workers).corpus
    assert found.name == "small"
    assert [(u.id, u.seconds) for u in found] == [("a", 0.5), ("b", 0.5), ("silent", 0.5), ("stereo", 1.25)]
    for utterance in found:
        assert utterance.audio_hash == audio_hash(decode(utterance.path).samples)
        assert (utterance.talker, utterance.emotion, utterance.extra) == ("F1", "sad", {"mood": "x"})


def test_the_corpus_given_is_not_changed(corpus):
    before = tuple(corpus)
    scan_audio(corpus)
    assert tuple(corpus) == before
    assert all(utterance.seconds is None for utterance in corpus)


def test_broken_files_are_named_with_their_reasons_and_cost_nothing_else(corpus):
    broken = scan_audio(corpus).broken
    assert all(isinstance(file, BrokenFile) for file in broken)
    assert [file.id for file in broken] == ["cut", "missing"]
    assert [file.path for file in broken] == [corpus.by_id()[file.id].path for file in broken]
    assert "cut.wav: is cut: 4956 of the 32000 bytes" in broken[0].reason
    assert "missing.wav: does not exist" in broken[1].reason


def test_warnings_stand_under_the_id(corpus):
    assert dict(scan_audio(corpus).warnings) == {"silent": ("silence: no sample reaches one step of 16-bit audio",)}


def test_the_same_sound_in_two_containers_has_one_hash(corpus):
    a, b, *_ = scan_audio(corpus).corpus
    assert a.audio_hash == b.audio_hash != ""


def test_progress_counts_to_the_end(corpus):
    calls = []
    scan_audio(corpus, report=lambda *call: calls.append(call))
    assert [(stage, done, total) for stage, done, total, _ in calls] == [("scan", n, 6) for n in range(1, 7)]
    assert [facts["broken"] for *_, facts in calls] == [0, 1, 1, 2, 2, 2]


def test_a_measured_corpus_survives_its_table(corpus, tmp_path):
    found = scan_audio(corpus).corpus
    found.to_csv(tmp_path / "small.csv")
    again = Corpus.from_csv(tmp_path / "small.csv")
    assert [(u.seconds, u.audio_hash) for u in again] == [(u.seconds, u.audio_hash) for u in found]


def test_an_interrupted_scan_leaves_the_rest_undecoded(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav", 0.1)
    many = Corpus("many", tuple(Utterance(str(number), path, "F1") for number in range(100)))
    decoded, interrupted = [], threading.Event()

    def slow(source):
        decoded.append(source)
        if len(decoded) > 1:
            assert interrupted.wait(timeout=30)
        return decode(source)

    def interrupt(*_):
        interrupted.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(scan, "decode", slow)
    with pytest.raises(KeyboardInterrupt):
        scan_audio(many, workers=1, report=interrupt)
    assert len(decoded) < 100


def test_an_empty_corpus_is_scanned_to_nothing():
    found = scan_audio(Corpus("none", ()))
    assert (len(found.corpus), found.broken, dict(found.warnings)) == (0, (), {})


def test_real_recordings_are_all_usable(shared):
    files = sorted((shared / "data" / "ravdess").rglob("*.flac"))[::60]
    found = scan_audio(Corpus("ravdess", tuple(Utterance(path.stem, Path(path), "A") for path in files)))
    assert (len(found.corpus), found.broken, dict(found.warnings)) == (len(files), (), {})
    assert all(2.5 < utterance.seconds < 6 for utterance in found.corpus)


def test_a_corpus_of_which_nothing_can_be_used_is_no_corpus(corpus):
    broken = corpus.select(lambda utterance: utterance.id in ("cut", "missing"))
    with pytest.raises(
        CorpusError, match=r"none of the 2 recordings can be used; the first is cut: .*cut\.wav: is cut"
    ):
        scan_audio(broken)
