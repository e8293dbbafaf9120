"""From recordings to a frame store: each utterance goes through the frozen encoder once, ever."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Float16
from torch import Tensor

from serein.corpus.corpus import Corpus, Utterance
from serein.errors import AudioError, TooShort, UsageError
from serein.frames.audio import MINIMUM_SAMPLES, SAMPLE_RATE, change_speed, load_audio
from serein.frames.claim import claim
from serein.frames.encoder import SpeechEncoder
from serein.frames.store import FORMAT, FrameStore, read_header, read_shard, shard_path, write_shard
from serein.frames.windows import group
from serein.progress import Report, quiet

SHARD_UTTERANCES = 64
SHARD_SECONDS = 900.0
FP16_MAX = 65_504.0

Recordings = dict[str, np.ndarray | Tensor | AudioError]  # of a shard, by utterance: samples, frames it had, or neither


def extract(
    corpus: Corpus,
    encoder: SpeechEncoder,
    folder: str | Path,
    *,
    pool: int = 1,
    speed: float = 1.0,
    batch_seconds: float = 60.0,
    report: Report = quiet,
) -> FrameStore:
    """Write the frames of a corpus, or continue where an earlier call stopped.

    What is in a shard, and how its utterances are batched, is a pure function of the arguments: a call that was killed
    and called again leaves the same bytes as one that was not. A file that cannot be read is named in the store's
    ``failed`` and costs nothing else; calling again tries such files again. The shard of one that can be read now is
    encoded anew, and so is, at every call, that of one whose frames do not fit float16; a recording in it that cannot
    be read any more keeps the frames it had. While a shard is encoded, the next one is decoded and the last one
    written.

    Args:
        corpus: what to extract; labels are not looked at.
        encoder: from :func:`serein.frames.encoder.load_encoder`.
        folder: the store.
        pool: this many consecutive frames are averaged into one; at least 1.
        speed: from 0.5 to 2; play every recording this much faster, which moves pitch and formants as another talker
            would: such a store is a view of the corpus (``serein crossval --view``), to train on, and with
            ``model.test_views`` to judge beside the corpus at its own speed.
        batch_seconds: most audio that is encoded at once, but for an utterance that alone is longer (and not longer
            than ``encoder.longest_seconds``). Changes speed and memory only.
        report: told after each shard; it may still be on its way to disk.

    Raises:
        StoreError: the folder holds frames made with other settings, or of other recordings under the same ids.
        UsageError: ``pool`` or ``speed`` is out of range.
    """
    if pool < 1 or not 0.5 <= speed <= 2:
        raise UsageError(f"pool {pool}, speed {speed:g}: pool is 1 or more, speed from 0.5 to 2")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shards = list(plan_shards(corpus.utterances))
    digest = claim(folder, corpus, _settings(corpus, encoder, pool, speed, len(shards)))
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:

        def decode(number: int) -> Future[Recordings | None]:
            return reader.submit(_decode_shard, shard_path(folder, number), shards[number], encoder, speed)

        following: Future[Recordings | None] | None = None
        written: Future[None] | None = None
        for number, utterances in enumerate(shards):
            recordings = (following or decode(number)).result()
            following = decode(number + 1) if number + 1 < len(shards) else None
            if recordings is not None:
                encoded = _encode_shard(recordings, encoder, pool, batch_seconds)
                if written:
                    written.result()  # raises what went wrong, and lets no more than one shard wait
                written = writer.submit(write_shard, shard_path(folder, number), *encoded, digest)
            report("extract", number + 1, len(shards), {"utterances": len(utterances)})
        if written:
            written.result()
    return FrameStore(folder)


def plan_shards(utterances: Sequence[Utterance]) -> Iterator[list[Utterance]]:
    """Cut a corpus, in its order, into shards of at most 64 utterances.

    Where the table knows their lengths, a shard of several utterances is also at most 900 seconds long.
    """
    shard: list[Utterance] = []
    seconds = 0.0
    for utterance in utterances:
        length = utterance.seconds or 0.0
        if shard and (len(shard) == SHARD_UTTERANCES or seconds + length > SHARD_SECONDS):
            yield shard
            shard, seconds = [], 0.0
        shard.append(utterance)
        seconds += length
    if shard:
        yield shard


def pool_frames(frames: Float[Tensor, "frames layers width"], pool: int) -> Float[Tensor, "pooled layers width"]:
    """Average every ``pool`` consecutive frames; the last group may be smaller.

    Example:
        >>> pool_frames(torch.tensor([1.0, 3.0, 5.0]).view(3, 1, 1), 2).flatten()
        tensor([2., 5.])
    """
    if pool == 1:
        return frames
    series = frames.flatten(1).T.unsqueeze(0)
    pooled = F.avg_pool1d(series, pool, ceil_mode=True, count_include_pad=False)
    return pooled[0].T.reshape(-1, *frames.shape[1:])


def as_stored(frames: Float[Tensor, "frames layers width"], pool: int) -> Float16[Tensor, "pooled layers width"]:
    """Pool frames and round them to float16, as a store holds them.

    Raises:
        AudioError: a value does not fit float16, or is not a number.
    """
    largest = float(torch.stack(torch.aminmax(frames)).abs().max())
    if not largest < FP16_MAX:  # also when it is not a number
        raise AudioError(f"frames reach {largest:g}, and float16 ends at {FP16_MAX:g}: this encoder cannot take it")
    return pool_frames(frames, pool).half()


def _decode_shard(
    path: Path, utterances: Sequence[Utterance], encoder: SpeechEncoder, speed: float
) -> Recordings | None:
    """Recordings by utterance; None where the shard is there already and what failed in it still cannot be read."""
    if path.exists() and _settled(path, utterances, encoder, speed):
        return None
    with ThreadPoolExecutor() as threads:
        decoded = threads.map(partial(_decode, encoder=encoder, speed=speed), utterances)
        recordings: Recordings = {one.id: result for one, result in zip(utterances, decoded, strict=True)}
    lost = [name for name, result in recordings.items() if isinstance(result, AudioError)]
    if path.exists() and lost:
        had = read_shard(path)
        recordings |= {name: had[name] for name in lost if name in had}
    return recordings


def _encode_shard(
    recordings: Recordings, encoder: SpeechEncoder, pool: int, batch_seconds: float
) -> tuple[list[str], list[Tensor], dict[str, str]]:
    failed = {name: str(decoded) for name, decoded in recordings.items() if isinstance(decoded, AudioError)}
    waveforms = {name: decoded for name, decoded in recordings.items() if isinstance(decoded, np.ndarray)}
    frames = {name: had for name, had in recordings.items() if isinstance(had, Tensor)}
    names = list(waveforms)
    lengths = [max(len(waveforms[name]), encoder.padded_to) for name in names]
    for batch in group(lengths, int(batch_seconds * SAMPLE_RATE)):
        together = [names[index] for index in batch]
        for name, encoded in zip(together, encoder.encode([waveforms[name] for name in together]), strict=True):
            try:
                frames[name] = as_stored(encoded, pool)
            except AudioError as error:
                failed[name] = str(error)
    ids = [name for name in recordings if name in frames]
    return ids, [frames[name] for name in ids], failed


def _decode(utterance: Utterance, encoder: SpeechEncoder, speed: float) -> np.ndarray | AudioError:
    try:
        samples: np.ndarray = change_speed(load_audio(utterance.path, max_seconds=encoder.longest_seconds), speed)
    except AudioError as error:
        return error
    if len(samples) < MINIMUM_SAMPLES or not encoder.num_frames(len(samples)):
        return TooShort(f"{utterance.path}: is shorter than one frame at speed {speed:g}; leave it out")
    return samples


def _settled(shard: Path, utterances: Sequence[Utterance], encoder: SpeechEncoder, speed: float) -> bool:
    """Whether a shard needs no second try: nothing in it failed, or what failed still cannot be read."""
    failed = read_header(shard).failed
    tried = (utterance for utterance in utterances if utterance.id in failed)
    return all(isinstance(_decode(utterance, encoder, speed), AudioError) for utterance in tried)


def _settings(corpus: Corpus, encoder: SpeechEncoder, pool: int, speed: float, shards: int) -> dict[str, Any]:
    content = [[u.id, u.seconds, u.audio_hash] for u in corpus]
    return {
        "format": FORMAT,
        "encoder": {
            "name": encoder.name,
            "revision": encoder.revision,
            "fingerprint": encoder.fingerprint,
            "layers": list(encoder.layers),
            "width": encoder.width,
            "settings": encoder.settings,
        },
        "pool": pool,
        "frame_rate": encoder.frame_rate / pool,
        **({} if speed == 1 else {"speed": speed}),
        "decoder": {
            "soundfile": soundfile.__version__,
            "libsndfile": soundfile.__libsndfile_version__,
            "soxr": version("soxr"),
        },
        "corpus": {
            "name": corpus.name,
            "hash": hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12],
        },
        "shards": shards,
        "made_with": {"torch": torch.__version__, "transformers": version("transformers")},
    }
