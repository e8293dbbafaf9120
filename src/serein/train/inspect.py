"""Local attributes after training: kept beside their adapter, and looked at on the frames of a store."""

import hashlib
import io
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import soundfile
import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from serein.corpus.corpus import Utterance
from serein.errors import ModelError, StoreError, UsageError
from serein.evaluate.attributes import KnownFrames, NearestFrame
from serein.evaluate.attributes_page import write_page
from serein.files import write_atomically
from serein.frames.audio import SAMPLE_RATE, load_audio
from serein.frames.batches import FrameArray, plan_batches
from serein.frames.loudness import frame_energy_and_voicing
from serein.frames.store import FrameStore
from serein.model import ATTRIBUTES_FILE, WEIGHTS_FILE, EncoderDescription, load_model
from serein.nn.attributes import assign
from serein.nn.losses import normalize_target
from serein.nn.transformer import WAPTransformer
from serein.progress import Report, quiet
from serein.recipe import Adapt
from serein.train.machine import pick_device

CLIP_SECONDS = 0.5


class SavedAttributes(NamedTuple):
    """What is needed to assign frames as training did.

    Attributes:
        prototypes: the attributes.
        target_norm: of the teacher's frames, before they are compared (`serein.nn.losses.normalize_target`).
    """

    prototypes: Float[Tensor, "attributes width"]
    target_norm: Literal["none", "layer"]


class AssignedFrames(NamedTuple):
    """All frames of a store, utterance after utterance.

    Attributes:
        assignments: the nearest attribute, eq. (4).
        distances: squared distance to it.
    """

    assignments: Int[np.ndarray, " total"]
    distances: Float[np.ndarray, " total"]


def save_attributes(folder: Path, prototypes: Float[Tensor, "attributes width"], settings: Adapt) -> None:
    """Write ``attributes.safetensors`` beside an adapter's weights, which must be there already.

    The file names those weights by their digest: prototypes mean nothing to another adapter.
    """
    said = {"target_norm": settings.target_norm, "branch": settings.hand_on, "adapter": _digest(folder)}
    metadata = {"serein": json.dumps(said, sort_keys=True)}
    write_atomically(folder / ATTRIBUTES_FILE, save({"prototypes": prototypes.contiguous()}, metadata=metadata))


def load_attributes(folder: Path) -> SavedAttributes:
    """Read ``attributes.safetensors``.

    Raises:
        ModelError: missing, damaged, of another adapter, or the adapter is not the teacher that they were learned from.
    """
    path = folder / ATTRIBUTES_FILE
    try:
        with safe_open(path, framework="pt") as file:
            said = json.loads(file.metadata()["serein"])
            saved = SavedAttributes(file.get_tensor("prototypes"), said["target_norm"])
            branch, adapter, beside = said["branch"], said["adapter"], _digest(folder)
    except FileNotFoundError as error:
        missing = ATTRIBUTES_FILE if not path.exists() else WEIGHTS_FILE
        raise ModelError(f"{folder}: has no {missing}; run `serein adapt` again, it writes one") from error
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: is damaged ({error}); run `serein adapt` again") from error
    if adapter != beside:
        raise ModelError(f"{path}: belongs to other weights than {WEIGHTS_FILE} beside it; run `serein adapt` again")
    if branch != "teacher":
        raise ModelError(
            f"{folder}: holds the student, and attributes are the teacher's; "
            "run `serein adapt` with --set adapt.hand_on=teacher to look at them"
        )
    return saved


@torch.no_grad()
def assign_frames(
    adapter: WAPTransformer,
    attributes: SavedAttributes,
    array: FrameArray,
    *,
    device: str = "auto",
    budget: int = 20_000,
    report: Report = quiet,
) -> AssignedFrames:
    """Eq. (4) for every frame of a store, by the teacher in float32.

    Args:
        adapter: the teacher.
        attributes: learned from it.
        array: frames in memory.
        device: see `serein.train.machine.pick_device`.
        budget: most frames in one batch.
        report: told after each batch.
    """
    place = pick_device(device)
    teacher, prototypes = adapter.to(place).eval(), attributes.prototypes.to(place)
    assignments = torch.empty(len(array.flat), dtype=torch.long)
    distances = torch.empty(len(array.flat))
    starts = array.lengths.cumsum(0) - array.lengths
    batches = plan_batches(array.lengths, budget, seed=0, epoch=0)
    for done, indices in enumerate(batches, start=1):
        frames, lengths, padding_mask = array.batch(indices).to(place)
        target = normalize_target(teacher(frames, padding_mask), attributes.target_norm)[~padding_mask]
        found = assign(target, prototypes)
        rows = torch.cat(
            [torch.arange(start, start + length) for start, length in zip(starts[indices], lengths.cpu(), strict=True)]
        )
        assignments[rows] = found.cpu()
        distances[rows] = (target - prototypes[found]).square().sum(1).cpu()
        report("attributes", done, len(batches), {"frames": len(rows)})
    return AssignedFrames(assignments.numpy(), distances.numpy())


def look(store: FrameStore, folder: Path, output: Path, *, listen: int = 20, report: Report = quiet) -> Path:
    """Say what the local attributes of an adapter carry, on the frames and recordings of a store.

    Args:
        store: the frames; its recordings are read again.
        folder: the adapter, from `serein.train.adapter_folder.adapt_store`.
        output: see `serein.evaluate.attributes_page.write_page`.
        listen: for how many attributes, the most used first, clips are cut.
        report: told of every step.

    Returns:
        the HTML page.

    Raises:
        ModelError: the adapter has no attributes, or does not fit the frames.
        StoreError: the frames are of another speed than the recordings.
        AudioError: a recording is no longer where it was, or damaged.
        UsageError: matplotlib is not installed.
    """
    if not find_spec("matplotlib"):
        raise UsageError("the page needs matplotlib: pip install 'serein[report]'")
    if "speed" in store.settings:
        raise StoreError(
            f"{store.folder}: holds frames at speed {store.settings['speed']:g}, and clips and loudness come from the "
            "recordings at speed 1; give the store extracted without --speed"
        )
    array = store.load()
    adapter = _fitting_adapter(folder, store, array)
    attributes = load_attributes(folder)
    assigned = assign_frames(adapter, attributes, array, report=report)
    by_id = store.corpus().by_id()
    utterances = tuple(by_id[name] for name in array.ids)
    decibels, voiced = _hear(utterances, array, report)
    frames = KnownFrames(
        utterances, array.lengths.numpy(), array.frame_rate, len(attributes.prototypes), *assigned, decibels, voiced
    )
    return write_page(output, store.settings["corpus"]["name"], frames, listen, cut_clip)


def cut_clip(frame: NearestFrame) -> bytes:
    """Half a second round a frame, as the bytes of a 16-bit WAV file; less at the ends of the recording."""
    samples = load_audio(frame.utterance.path)
    middle, half = round(frame.seconds * SAMPLE_RATE), round(CLIP_SECONDS * SAMPLE_RATE / 2)
    file = io.BytesIO()
    soundfile.write(file, samples[max(0, middle - half) : middle + half], SAMPLE_RATE, "PCM_16", format="WAV")
    return file.getvalue()


def _hear(
    utterances: tuple[Utterance, ...], array: FrameArray, report: Report
) -> tuple[Float[np.ndarray, " total"], Bool[np.ndarray, " total"]]:
    heard = []
    for done, (utterance, length) in enumerate(zip(utterances, array.lengths.tolist(), strict=True), start=1):
        heard.append(frame_energy_and_voicing(load_audio(utterance.path), length, array.frame_rate))
        report("loudness", done, len(utterances), {})
    decibels, voiced = zip(*heard, strict=True)
    return np.concatenate(decibels), np.concatenate(voiced)


def _fitting_adapter(folder: Path, store: FrameStore, array: FrameArray) -> WAPTransformer:
    adapter, config = load_model(folder)
    wanted, longest = EncoderDescription.of_store(store.settings), int(array.lengths.max())
    if (
        not isinstance(adapter, WAPTransformer)
        or not config.encoder.gives_frames_of(wanted)
        or config.max_frames < longest
    ):
        raise ModelError(
            f"{folder}: is not an adapter for these frames ({wanted.name}, layers {list(wanted.layers)}, up to "
            f"{longest} frames an utterance); run `serein adapt` on them"
        )
    return adapter


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
