"""The frame store: a folder of fp16 shards that cannot be read by mistake and cannot be half written."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Float16
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from serein.corpus.corpus import Corpus
from serein.errors import StoreError
from serein.files import parse_json, remove_abandoned, write_atomically
from serein.frames.batches import FrameArray

FORMAT = 1
STORE_FILE = "store.json"
CORPUS_FILE = "corpus.csv"


@dataclass(frozen=True)
class ShardHeader:
    """What a shard says of itself.

    Attributes:
        ids: utterances in it, in the order of their frames.
        lengths: frames of each.
        failed: utterances that belong here and could not be read, with the reason.
        checksum: SHA-256 of the frames' bytes.
    """

    ids: tuple[str, ...]
    lengths: tuple[int, ...]
    failed: dict[str, str]
    checksum: str


class FrameStore:
    """Frames of a corpus on disk, as ``serein extract`` wrote them.

    ``store.json`` says how the frames were made: encoder, revision, fingerprint of its weights, layers, pooling,
    versions of decoder and resampler. Of the encoder's own ``config.json`` and ``preprocessor_config.json`` it knows
    what is in its ``settings`` only: if somebody changes the number of attention heads there, nothing notices.
    ``shard-*.safetensors`` hold the frames. A shard appears by an atomic rename, so the shards present are the ledger.

    Args:
        folder: the store.

    Raises:
        StoreError: no store, another format, shards of another store, or shards missing because extraction has not
            ended.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.settings = read_settings(self.folder)
        shards = [shard_path(self.folder, number) for number in range(self.settings["shards"])]
        missing = [shard.name for shard in shards if not shard.exists()]
        if missing:
            raise StoreError(
                f"{self.folder}: {len(missing)} of {len(shards)} shards are missing ({missing[0]} first): "
                "run the same `serein extract` again, it continues where it stopped"
            )
        digest = settings_digest(self.settings)
        self.headers = {shard: read_header(shard, digest) for shard in shards}

    @property
    def ids(self) -> tuple[str, ...]:
        """Utterances with frames."""
        return tuple(name for header in self.headers.values() for name in header.ids)

    @property
    def failed(self) -> dict[str, str]:
        """Utterances without frames, and why."""
        return {name: why for header in self.headers.values() for name, why in header.failed.items()}

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that tell these frames, and of which utterances they are, from any others."""
        held = [(header.ids, header.lengths, header.checksum) for header in self.headers.values()]
        return hashlib.sha256(json.dumps(held).encode()).hexdigest()[:16]

    @property
    def frame_rate(self) -> float:
        """Frames a second, after temporal pooling."""
        rate: float = self.settings["frame_rate"]
        return rate

    def corpus(self) -> Corpus:
        """The corpus that was extracted, without the utterances that failed."""
        present = set(self.ids)
        corpus = Corpus.from_csv(self.folder / CORPUS_FILE).select(lambda utterance: utterance.id in present)
        return Corpus(self.settings["corpus"]["name"], corpus.utterances)

    def load(self, *, mapped: bool = False) -> FrameArray:
        """All frames, each shard checked against its checksum.

        Args:
            mapped: leave the frames on disk, for a corpus that memory does not hold. The first call writes them once
                more, flat, into a file beside the shards; a batch then reads what it needs, and the system keeps as
                much in memory as there is room for. Later calls check that file's size alone.

        Raises:
            StoreError: a shard's bytes are not what was written.
        """
        lengths = [length for header in self.headers.values() for length in header.lengths]
        encoder = self.settings["encoder"]
        shape = (sum(lengths), len(encoder["layers"]), encoder["width"])
        if mapped:
            flat = self._mapped(prod(shape)).view(shape)
        else:
            flat = torch.empty(shape, dtype=torch.float16)
            place = 0
            for frames in self._shards():
                flat[place : place + len(frames)] = frames
                place += len(frames)
        return FrameArray(self.ids, flat, torch.tensor(lengths, dtype=torch.long), self.frame_rate)

    def pooled(self) -> Float[Tensor, "utterances 2 layers width"]:
        """Mean (index 0) and standard deviation (index 1) over time of each utterance's frames, in float32.

        A shard is read at a time, so frames that memory does not hold can be pooled too: what is kept is 8 bytes times
        layers times width an utterance.

        Raises:
            StoreError: see :meth:`load`.
        """
        encoder = self.settings["encoder"]
        pooled = torch.empty(len(self.ids), 2, len(encoder["layers"]), encoder["width"])
        headers = [header for header in self.headers.values() if header.ids]
        done = 0
        for header, frames in zip(headers, self._shards(), strict=True):
            array = FrameArray(header.ids, frames, torch.tensor(header.lengths), self.frame_rate)
            pooled[done : done + len(header.ids)] = array.pooled(torch.arange(len(header.ids)))
            done += len(header.ids)
        return pooled

    def _shards(self) -> Iterator[Tensor]:
        """The frames of each shard that has any, checked."""
        for shard, header in self.headers.items():
            if header.ids:
                yield _read_frames(shard, header)

    def _mapped(self, numbers: int) -> Tensor:
        path = self.folder / f"flat-{self.digest}.float16"
        remove_abandoned(self.folder, "flat-*.float16")
        if not path.exists():
            for outdated in self.folder.glob("flat-*.float16"):
                outdated.unlink(missing_ok=True)  # another process may have been faster
            write_atomically(path, (frames.contiguous().numpy().data for frames in self._shards()))
        if path.stat().st_size != 2 * numbers:
            raise StoreError(f"{path}: is not as long as the shards' frames; delete it, it is made again")
        return torch.from_file(str(path), shared=False, size=numbers, dtype=torch.float16)


def read_settings(folder: Path) -> dict[str, Any]:
    """``store.json`` of a store.

    Raises:
        StoreError: it is not there, damaged, or of another format.
    """
    path = folder / STORE_FILE
    try:
        settings: Any = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreError(f"{folder}: is not a frame store (no {STORE_FILE}); `serein extract` makes one") from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({error})") from error
    found = settings.get("format") if isinstance(settings, dict) else None
    if found != FORMAT:
        raise StoreError(f"{path}: has format {found}, this serein reads format {FORMAT}; extract again")
    return cast(dict[str, Any], settings)


def settings_digest(settings: dict[str, Any]) -> str:
    """Sixteen hexadecimal digits of ``store.json``, without the versions that only made it.

    Example:
        >>> settings_digest({"pool": 1, "made_with": "a"}) == settings_digest({"made_with": "b", "pool": 1})
        True
    """
    told = {name: value for name, value in settings.items() if name != "made_with"}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def shard_path(folder: Path, number: int) -> Path:
    """Where shard ``number`` stands."""
    return folder / f"shard-{number:05d}.safetensors"


def write_shard(
    path: Path,
    ids: Sequence[str],
    frames: Sequence[Float16[Tensor, "_ layers width"]],
    failed: dict[str, str],
    settings: str = "",
) -> None:
    """Write a shard so that it is either whole or absent, whatever happens in between.

    ``settings`` is the :func:`settings_digest` of its store; "" leaves open whose the frames are.
    """
    flat = torch.cat(list(frames)) if frames else torch.empty(0, 1, 1, dtype=torch.float16)
    header = {
        "ids": list(ids),
        "lengths": [len(part) for part in frames],
        "failed": failed,
        "checksum": _checksum(flat),
        "settings": settings,
    }
    # One metadata key: with several, their order in the file, and so its bytes, would not be fixed.
    write_atomically(path, save({"frames": flat}, metadata={"serein": json.dumps(header, sort_keys=True)}))


def read_header(shard: Path, settings: str = "") -> ShardHeader:
    """What a shard holds, without its frames.

    Raises:
        StoreError: it is damaged, or says that it was not made with these settings (:func:`settings_digest`; "" takes
            any).
    """
    try:
        with safe_open(shard, framework="pt") as file:
            said = parse_json((file.metadata() or {})["serein"])
        header = ShardHeader(
            tuple(said["ids"]), tuple(map(int, said["lengths"])), dict(said["failed"]), str(said["checksum"])
        )
        made_with = said.get("settings", "")  # shards of before it was written have none
    except (KeyError, TypeError) as error:
        raise StoreError(f"{shard}: is damaged (no header of serein's); delete it and extract again") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise StoreError(f"{shard}: is damaged ({error}); delete it and extract again") from error
    if settings and made_with and made_with != settings:
        raise StoreError(
            f"{shard}: holds frames made with other settings than {STORE_FILE} says; delete it and extract again"
        )
    return header


def read_shard(shard: Path) -> dict[str, Float16[Tensor, "_ layers width"]]:
    """The frames of a shard, by utterance.

    Raises:
        StoreError: it is damaged.
    """
    header = read_header(shard)
    return dict(zip(header.ids, _read_frames(shard, header).split(header.lengths), strict=True)) if header.ids else {}


def _read_frames(shard: Path, header: ShardHeader) -> Tensor:
    try:
        with safe_open(shard, framework="pt") as file:
            frames: Tensor = file.get_tensor("frames")
    except (SafetensorError, OSError) as error:
        raise StoreError(f"{shard}: is damaged ({error}); delete it and extract again") from error
    if _checksum(frames) != header.checksum:
        raise StoreError(f"{shard}: its bytes have changed since it was written; delete it and extract again")
    return frames


def _checksum(frames: Tensor) -> str:
    return hashlib.sha256(frames.contiguous().numpy().data).hexdigest()
