import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from serein.corpus.corpus import Corpus
from serein.corpus.synthetic import SENTENCES, VOICES, make_corpus
from serein.errors import CorpusError, UsageError

EMOTIONS = ("angry", "happy", "neutral", "sad")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("demo") / "corpus", utterances_per_talker=16)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def loudness_db(corpus: Corpus) -> Float[np.ndarray, " utterances"]:
    return np.array([20 * np.log10(soundfile.read(utterance.path)[0].std()) for utterance in corpus])


def mean_of(values: Float[np.ndarray, " utterances"], corpus: Corpus, emotion: str) -> float:
    return float(values[[utterance.emotion == emotion for utterance in corpus]].mean())


def recall_across_sessions(features: Float[np.ndarray, "utterances width"], corpus: Corpus) -> float:
    truth = [utterance.emotion for utterance in corpus]
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    sessions = [utterance.session for utterance in corpus]
    guess = cross_val_predict(probe, features, truth, groups=sessions, cv=LeaveOneGroupOut())
    return float(balanced_accuracy_score(truth, guess))


def band_energies(path: Path) -> Float[np.ndarray, " statistics"]:
    samples, rate = soundfile.read(path)
    frames = np.lib.stride_tricks.sliding_window_view(samples, rate // 40)[:: rate // 50] * np.hanning(rate // 40)
    edges = np.unique(np.geomspace(2, 200, 40).astype(int))
    logs = np.log(np.add.reduceat(np.abs(np.fft.rfft(frames)) ** 2, edges, axis=1) + 1e-8)
    return np.concatenate([logs.mean(axis=0), logs.std(axis=0)])


def test_every_talker_says_every_emotion_equally_often(corpus: Corpus) -> None:
    assert corpus.name == "espeak-demo"
    assert corpus.talkers == tuple(sorted(VOICES)) == tuple(f"{n}{sex}" for n in range(1, 6) for sex in "FM")
    assert corpus.labels == EMOTIONS
    counts = Counter((utterance.talker, utterance.emotion) for utterance in corpus)
    assert counts == {(talker, emotion): 4 for talker in VOICES for emotion in EMOTIONS}
    for utterance in corpus:
        assert utterance.session == utterance.talker[0]
        assert utterance.extra["gender"] == {"F": "female", "M": "male"}[utterance.talker[1]]
        assert utterance.id.startswith(f"S{utterance.talker}_{utterance.emotion}_")


def test_words_do_not_tell_the_emotion(corpus: Corpus) -> None:
    said = Counter((utterance.text, utterance.emotion) for utterance in corpus)
    texts = {text for text, _ in said}
    assert len(texts) > 20
    assert all(len({said[text, emotion] for emotion in EMOTIONS}) == 1 for text in texts)


def test_sentences_are_many_short_and_different() -> None:
    assert len(set(SENTENCES)) == len(SENTENCES) >= 40
    assert all(4 <= len(sentence.split()) <= 10 for sentence in SENTENCES)


def test_recordings_are_short_mono_16_khz_neither_silent_nor_clipped(corpus: Corpus) -> None:
    for utterance in corpus:
        info = soundfile.info(utterance.path)
        assert (info.samplerate, info.channels, info.subtype, info.format) == (16000, 1, "PCM_16", "WAV")
        assert utterance.seconds == info.frames / 16000
        assert 0.5 < utterance.seconds < 8
        samples, _ = soundfile.read(utterance.path)
        assert 0.02 < np.abs(samples).max() < 0.99
        assert samples.std() > 0.003


def test_the_table_on_disk_is_the_corpus(corpus: Corpus) -> None:
    folder = corpus.utterances[0].path.parents[1]
    assert Corpus.from_csv(folder / "corpus.csv").utterances == corpus.utterances
    assert sorted(path.name for path in folder.iterdir()) == ["corpus.csv", "corpus.json", "wav"]
    assert len(list((folder / "wav").iterdir())) == len(corpus)


def test_another_process_makes_the_same_bytes(tmp_path: Path) -> None:
    make_corpus(tmp_path / "here", utterances_per_talker=4)
    script = (
        "import sys; from pathlib import Path; from serein.corpus.synthetic import make_corpus;"
        "make_corpus(Path(sys.argv[1]), utterances_per_talker=4)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "there")], check=True)
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


def test_fewer_utterances_are_a_subset_byte_for_byte(corpus: Corpus, tmp_path: Path) -> None:
    many = {utterance.id: utterance.path.read_bytes() for utterance in corpus}
    few = make_corpus(tmp_path, utterances_per_talker=4)
    assert len(few) == 40
    assert all(utterance.path.read_bytes() == many[utterance.id] for utterance in few)


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    make_corpus(tmp_path / "whole", utterances_per_talker=4)

    def stop(_stage: str, done: int, _total: int, _facts: dict[str, Any]) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_corpus(tmp_path / "stopped", utterances_per_talker=4, report=stop)
    assert not (tmp_path / "stopped" / "corpus.csv").exists()
    spoken = {path: path.stat().st_mtime_ns for path in (tmp_path / "stopped" / "wav").iterdir()}
    assert len(spoken) == 7

    seen: list[tuple[str, int, int]] = []
    make_corpus(
        tmp_path / "stopped",
        utterances_per_talker=4,
        report=lambda stage, done, total, _facts: seen.append((stage, done, total)),
    )
    assert seen == [("corpus", done, 40) for done in range(1, 41)]
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    assert all(path.stat().st_mtime_ns == time for path, time in spoken.items())


def test_another_seed_replaces_the_recordings(tmp_path: Path) -> None:
    first = make_corpus(tmp_path, utterances_per_talker=4)
    before = contents(tmp_path)
    second = make_corpus(tmp_path, utterances_per_talker=4, seed=1)
    assert {path.name for path in (tmp_path / "wav").iterdir()} == {f"{utterance.id}.wav" for utterance in second}
    assert {utterance.id for utterance in first} != {utterance.id for utterance in second}
    assert make_corpus(tmp_path, utterances_per_talker=4) == first
    assert contents(tmp_path) == before


def test_emotions_differ_on_average_and_overlap(corpus: Corpus) -> None:
    loudness = loudness_db(corpus)
    seconds = np.array([utterance.seconds for utterance in corpus])
    assert mean_of(loudness, corpus, "angry") > mean_of(loudness, corpus, "neutral") + 1
    assert mean_of(loudness, corpus, "neutral") > mean_of(loudness, corpus, "sad") + 1
    assert mean_of(seconds, corpus, "angry") < mean_of(seconds, corpus, "neutral") < mean_of(seconds, corpus, "sad")
    for values in (loudness, seconds):
        ranges = {e: np.quantile(values[[u.emotion == e for u in corpus]], [0, 1]) for e in EMOTIONS}
        assert max(low for low, _ in ranges.values()) < min(high for _, high in ranges.values())


def test_a_linear_probe_is_well_above_chance_and_well_below_perfect(corpus: Corpus) -> None:
    energies = recall_across_sessions(np.array([band_energies(utterance.path) for utterance in corpus]), corpus)
    loudness = recall_across_sessions(loudness_db(corpus)[:, None], corpus)
    assert 0.5 < energies < 0.85  # chance is 0.25
    assert loudness < energies - 0.05


@pytest.mark.parametrize("count", [-4, 0, 6])
def test_unbalanced_counts_are_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(UsageError, match="multiple of 4"):
        make_corpus(tmp_path / "none", utterances_per_talker=count)
    assert not (tmp_path / "none").exists()


def test_somebody_elses_corpus_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "wav").mkdir()
    (tmp_path / "wav" / "mine.wav").write_bytes(b"mine")
    with pytest.raises(CorpusError, match="did not make"):
        make_corpus(tmp_path, utterances_per_talker=4)
    assert contents(tmp_path) == {"wav/mine.wav": b"mine"}


@pytest.mark.parametrize("record", ['{"name": "my own"}', "[]", "no JSON"])
def test_somebody_elses_corpus_json_is_no_leave_to_delete(tmp_path: Path, record: str) -> None:
    (tmp_path / "wav").mkdir()
    (tmp_path / "wav" / "mine.wav").write_bytes(b"mine")
    (tmp_path / "corpus.json").write_text(record)
    before = contents(tmp_path)
    with pytest.raises(CorpusError, match="did not make"):
        make_corpus(tmp_path, utterances_per_talker=4)
    assert contents(tmp_path) == before


def test_without_the_package_nothing_is_touched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(CorpusError, match=r"pip install 'serein\[demo\]'"):
        make_corpus(tmp_path / "none", utterances_per_talker=4)
    assert not (tmp_path / "none").exists()
