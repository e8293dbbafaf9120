"""The frames that a run learns from: a corpus, the same at other speeds, and unlabelled speech from elsewhere."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from serein.corpus.corpus import Corpus, recording_names, same_recording
from serein.errors import CorpusError, StoreError, UsageError
from serein.frames.batches import FrameArray, join
from serein.frames.beside import pack_beside
from serein.frames.store import FrameStore
from serein.model import EncoderDescription


@dataclass(frozen=True)
class Material:
    """Frames in memory, and whose they are.

    Attributes:
        array: the corpus, its further views in the same order, then the other corpora.
        talkers: a number for each utterance's talker; a talker played at another speed is another one.
        views: how many times each utterance of the corpus stands in the array.
        elsewhere: of each other corpus, where its utterances stand.
        said: what a run's folder says about it.
    """

    array: FrameArray
    talkers: Int[Tensor, " utterances"]
    views: int
    elsewhere: tuple[Int[Tensor, " others"], ...]
    said: dict[str, list[str]]


def gather(
    store: FrameStore,
    required: Collection[str],
    *,
    views: Sequence[FrameStore] = (),
    unlabelled: Sequence[FrameStore] = (),
    beside: Sequence[FrameStore] = (),
    talker_statistics: bool = False,
    mapped: bool = False,
) -> Material:
    """Load all stores as one array.

    Args:
        store: the corpus.
        required: ids of the utterances that must have frames.
        views: the same corpus, extracted at other speeds: all utterances that ``store`` has.
        unlabelled: other corpora, with none of the corpus's recordings; their labels are not looked at.
        beside: log-mel frames of the corpus and then of each view, which go into the array beside the encoder's; or
            none.
        talker_statistics: standardise each talker's frames by themselves.
        mapped: leave the frames on disk, see :meth:`serein.frames.store.FrameStore.load`; only for a corpus alone, for
            all else is put together in memory.

    Raises:
        CorpusError: an utterance without frames, or a recording of the corpus in an unlabelled store. Talkers are known
            by name within a corpus only: whether somebody speaks in both is for the user to say.
        StoreError: the stores' frames do not go together, the corpus's own were made at another speed, a view's at none
            or of another corpus, or what stands beside is not log-mel frames of the same speed and corpus.
        UsageError: mapped, and not alone.
    """
    if mapped and (views or unlabelled or beside or talker_statistics):
        raise UsageError(
            'speed.frames = "mapped": views, other corpora, frames beside and talker statistics are put together in '
            'memory; leave them out, or set "memory"'
        )
    if "speed" in store.settings:
        raise StoreError(f"{store.folder}: was extracted at another speed: it is a view of a corpus (--view)")
    check_frames(store, required)
    corpus = store.corpus()
    for view in views:
        _check_view(view, store, corpus)
    for other in unlabelled:
        _check_elsewhere(other, store, corpus)
    for mel, neighbour in zip(beside, (store, *views) if beside else (), strict=True):
        _check_beside(mel, neighbour, store, corpus)
    arrays = [store.load(mapped=mapped)]
    ids = arrays[0].ids
    arrays += [view.load().select(ids) for view in views]
    if beside:
        arrays = [pack_beside(array, mel.load()) for array, mel in zip(arrays, beside, strict=True)]
    for place, view in enumerate(views, start=1):
        seen = tuple(f"{name}@{view.settings['speed']:g}" for name in ids)
        arrays[place] = replace(arrays[place], ids=seen)
    talker_of = {utterance.id: utterance.talker for utterance in corpus}
    speakers = [(number, talker_of[name]) for number in range(len(arrays)) for name in ids]
    elsewhere = []
    for number, other in enumerate(unlabelled):
        array = other.load()
        whose = {utterance.id: utterance.talker for utterance in other.corpus()}
        elsewhere.append(torch.arange(len(speakers), len(speakers) + len(array.ids)))
        speakers += [(-1 - number, whose[name]) for name in array.ids]
        arrays.append(replace(array, ids=tuple(f"{other.folder.name}/{number}/{name}" for name in array.ids)))
    order = {speaker: place for place, speaker in enumerate(dict.fromkeys(speakers))}
    talkers = torch.tensor([order[speaker] for speaker in speakers])
    array = join(arrays) if len(arrays) > 1 else arrays[0]
    if talker_statistics:
        array = array.normed_by_talker(talkers)
    said = {
        "frames": [each.digest for each in (store, *views, *unlabelled, *beside)],
        "views": [f"speed {view.settings['speed']:g}, corpus {view.settings['corpus']['hash']}" for view in views],
        "unlabelled": [other.settings["corpus"]["name"] for other in unlabelled],
    }
    if beside:  # a run of a system that needs none is the same as before there were any
        said["beside"] = [
            f"{mel.settings['encoder']['name']} {mel.settings['encoder']['fingerprint'][:12]}, "
            f"speed {mel.settings.get('speed', 1):g}, corpus {mel.settings['corpus']['hash']}"
            for mel in beside
        ]
    return Material(array, talkers, 1 + len(views), tuple(elsewhere), said)


def check_frames(store: FrameStore, required: Collection[str]) -> None:
    """Refuse a store that has no frames of some utterances.

    Raises:
        CorpusError: says how many, and of the first one why.
    """
    missing = sorted(set(required) - set(store.ids))
    if missing:
        why = store.failed.get(missing[0], "it was not in the table that was extracted")
        raise CorpusError(f"{store.folder}: {len(missing)} utterances have no frames; first {missing[0]}: {why}")


def _check_view(view: FrameStore, store: FrameStore, corpus: Corpus) -> None:
    _check_encoder(view, store)
    if "speed" not in view.settings:
        raise StoreError(f"{view.folder}: was not extracted at another speed (serein extract --speed): it is no view")
    _check_recordings(view, store, corpus)


def _check_beside(mel: FrameStore, neighbour: FrameStore, store: FrameStore, corpus: Corpus) -> None:
    if mel.settings["encoder"]["name"] != "logmel" or mel.settings["pool"] != 1:
        raise StoreError(
            f"{mel.folder}: has no log-mel frames at their full rate to stand beside others: make them with "
            "`serein extract TABLE --encoder logmel`, without --pool"
        )
    speed, wanted = (each.settings.get("speed", 1) for each in (mel, neighbour))
    if speed != wanted:
        raise StoreError(
            f"{mel.folder}: was extracted at speed {speed:g}, and {neighbour.folder}, which it would stand beside, at "
            f"{wanted:g}: give --beside for the corpus first, then for each --view in their order"
        )
    _check_recordings(mel, store, corpus)


def _check_recordings(other: FrameStore, store: FrameStore, corpus: Corpus) -> None:
    """Refuse a second store of a corpus that lacks some of its utterances or was made of others."""
    check_frames(other, store.ids)
    seen = other.corpus().by_id()
    for utterance in corpus:
        found = seen[utterance.id]
        if found.talker != utterance.talker or not same_recording(found, utterance):
            raise StoreError(
                f"{other.folder}: {utterance.id} is another recording or talker there than in {store.folder}: "
                "extract both from the same table"
            )


def _check_elsewhere(other: FrameStore, store: FrameStore, corpus: Corpus) -> None:
    _check_encoder(other, store)
    own = {name for utterance in corpus for name in recording_names(utterance)}
    shared = [utterance.id for utterance in other.corpus() if own & recording_names(utterance)]
    if shared:
        raise CorpusError(
            f"{other.folder}: {len(shared)} of its recordings, first {shared[0]}, are in {store.folder} too: adapter "
            'training would hear test talkers; adapt.data = "transductive" does that and says so'
        )


def _check_encoder(store: FrameStore, first: FrameStore) -> None:
    one, other = (EncoderDescription.of_store(each.settings) for each in (store, first))
    if not one.gives_frames_of(other):
        name = next((name for name in ("pool", "frame_rate") if getattr(one, name) != getattr(other, name)), "encoder")
        raise StoreError(f"{store.folder}: its frames have another {name} than those of {first.folder}")
