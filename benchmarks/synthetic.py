"""Corpora and frame stores of any size, made on the spot: as long as real speech, with noise for sound and frames."""

import json
from pathlib import Path

import numpy as np
import soundfile
import torch

from serein.corpus.corpus import Corpus, Utterance
from serein.files import write_atomically
from serein.frames.extract import plan_shards
from serein.frames.store import CORPUS_FILE, FORMAT, STORE_FILE, FrameStore, shard_path, write_shard

SAMPLE_RATE = 16_000
EMOTIONS = ("angry", "happy", "neutral", "sad")
SESSIONS = 5
# Which share of IEMOCAP's 5,531 utterances (four classes, 7.0 hours; from these numbers 7.1) is at most so long.
QUANTILES = {
    0.0: 0.58, 0.05: 1.39, 0.1: 1.68, 0.2: 2.13, 0.3: 2.55, 0.4: 3.0, 0.5: 3.58, 0.6: 4.25, 0.7: 5.18, 0.8: 6.53,
    0.9: 8.69, 0.95: 11.06, 0.98: 14.1, 0.995: 17.97, 1.0: 34.14,
}  # fmt: skip


def speech_seconds(count: int) -> list[float]:
    """Lengths with IEMOCAP's quantiles, a straight line between two of them, in an order drawn once."""
    shares = (np.arange(count) + 0.5) / count
    lengths = np.interp(shares, list(QUANTILES), list(QUANTILES.values()))
    shuffled: list[float] = np.random.default_rng(0).permutation(lengths).tolist()
    return shuffled


def make_corpus(seconds: list[float], talkers: int, folder: Path, files: int | None = None) -> Corpus:
    """Utterances of so many seconds; each talker speaks in one of five sessions, and in every emotion.

    Args:
        seconds: of each.
        talkers: a multiple of five.
        folder: where the recordings would be; :func:`write_audio` makes them.
        files: recordings, which the utterances share in turn; None: one each.
    """
    utterances = [
        Utterance(
            id=f"u{number:06d}",
            path=folder / f"{number % (files or len(seconds)):06d}.wav",
            talker=f"t{number % talkers:04d}",
            emotion=EMOTIONS[number // talkers % len(EMOTIONS)],
            session=str(number % talkers % SESSIONS + 1),
            seconds=length,
        )
        for number, length in enumerate(seconds)
    ]
    return Corpus("synthetic", tuple(utterances))


def write_audio(corpus: Corpus) -> None:
    """Noise in 16 bits at 16 kHz, a file an utterance or shared, cut from one long stretch."""
    stretch = (np.random.default_rng(0).standard_normal(60 * SAMPLE_RATE) * 3000).astype(np.int16)
    paths = {utterance.path: round((utterance.seconds or 0.0) * SAMPLE_RATE) for utterance in corpus}
    for number, (path, samples) in enumerate(paths.items()):
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.resize(np.roll(stretch, -997 * number), samples), SAMPLE_RATE, subtype="PCM_16")


def make_store(corpus: Corpus, folder: Path, *, width: int, frame_rate: float = 50.0) -> FrameStore:
    """A store of one layer, as ``serein extract`` writes it, with noise for frames."""
    stretch = torch.randn(20_000, 1, width, generator=torch.Generator().manual_seed(0)).half()
    shards = list(plan_shards(corpus.utterances))
    encoder = {"name": "noise", "revision": "", "fingerprint": "0", "layers": [0], "width": width, "settings": {}}
    settings = {
        "format": FORMAT, "encoder": encoder, "pool": 1, "frame_rate": frame_rate,
        "corpus": {"name": corpus.name, "hash": str(len(corpus))}, "shards": len(shards),
    }  # fmt: skip
    folder.mkdir(parents=True)
    write_atomically(folder / STORE_FILE, json.dumps(settings).encode())
    corpus.to_csv(folder / CORPUS_FILE)
    starts = np.random.default_rng(0)
    for number, utterances in enumerate(shards):
        lengths = [max(1, round((utterance.seconds or 0.0) * frame_rate)) for utterance in utterances]
        frames = [stretch[(start := int(starts.integers(len(stretch) - n))) : start + n] for n in lengths]
        write_shard(shard_path(folder, number), [utterance.id for utterance in utterances], frames, {})
    return FrameStore(folder)
