"""Which layer of an encoder carries emotion: a linear probe of each, read on the talkers who validate."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch

from serein.baselines.linear_probe import fit_linear_probes
from serein.corpus.corpus import Corpus
from serein.corpus.protocol import Protocol, check_folds
from serein.errors import UsageError
from serein.evaluate.layers import ProbedLayer, score_layers, write_layers
from serein.evaluate.predictions import Prediction
from serein.frames.encoder import SpeechEncoder
from serein.frames.extract import extract
from serein.frames.store import FrameStore
from serein.progress import Report, quiet
from serein.train.crossval import classes_of
from serein.train.material import check_frames
from serein.train.systems import PROBE_C
from serein.train.task import scores_of_logits


class Looked(NamedTuple):
    """What was found.

    Attributes:
        page: in HTML.
        layers: in the encoder's order.
        failed: utterances that could not be read, and why.
    """

    page: Path
    layers: list[ProbedLayer]
    failed: dict[str, str]


def look_at_layers(
    corpus: Corpus,
    load: Callable[[], SpeechEncoder],
    folder: Path,
    fold: Callable[[Corpus], Protocol],
    *,
    pool: int = 1,
    report: Report = quiet,
) -> Looked:
    """Extract frames of several layers into ``folder / "frames"``, or continue to, and write the page about them.

    Args:
        corpus: with labels.
        load: gives the encoder, with the layers to compare; called when all else was found in order.
        folder: where to.
        fold: gives the folds of a corpus.
        pool: this many consecutive frames are averaged into one.
        report: told of every shard, fold and layer.

    Raises:
        CorpusError, StoreError: see :func:`probe_layers` and `serein.frames.extract.extract`.
        UsageError: matplotlib is not installed, or see :func:`probe_layers`.
    """
    if not find_spec("matplotlib"):
        raise UsageError("the page needs matplotlib: pip install 'serein[report]'")
    check_choice(fold(corpus), corpus)
    store = extract(corpus, load(), folder / "frames", pool=pool, report=report)
    present = store.corpus()
    protocol = fold(present)
    layers = score_layers(probe_layers(store, present, protocol, report=report), protocol.labels)
    facts = {
        "corpus": present.name,
        "encoder": store.settings["encoder"],
        "pool": pool,
        "protocol": f"{protocol.name} ({protocol.hash})",
        "labels": protocol.labels,
        "utterances": len(store.ids),
        "talkers": len(present.talkers),
        "without frames": store.failed,
        "frames": store.digest,
    }
    return Looked(write_layers(folder, facts, layers), layers, store.failed)


def check_choice(protocol: Protocol, corpus: Corpus) -> None:
    """Refuse folds on which no layer can be chosen without a look at the test, or by talkers who train.

    Raises:
        CorpusError: see `serein.corpus.protocol.check_folds`.
        UsageError: a talker validates, and trains or is tested in the same fold.
    """
    check_folds(protocol, corpus)
    talker = {utterance.id: utterance.talker for utterance in corpus}
    for fold in protocol.folds:
        train, validation, test = ({talker[name] for name in part} for part in (fold.train, fold.validation, fold.test))
        for role, others in (("trains", train), ("is tested", test)):
            if shared := sorted(validation & others):
                raise UsageError(
                    f"protocol {protocol.name}, fold {fold.name}: talker {shared[0]} validates and {role}; layers are "
                    "chosen on talkers who do neither: take talkers, talkers-5, sessions, ..."
                )


def probe_layers(
    store: FrameStore, corpus: Corpus, protocol: Protocol, *, report: Report = quiet
) -> dict[int, list[Prediction]]:
    """What a linear probe of each layer says of the validation utterances of each fold.

    A fold's probes are fitted on its training utterances, one for each C of `serein.train.systems.PROBE_C`, and the
    best on its validation utterances speaks. Its test utterances are not looked at.

    Args:
        store: frames of the layers to compare.
        corpus: the labels.
        protocol: the folds.
        report: told, at stage ``layers``, of each layer of each fold.

    Returns:
        by layer, a row for each validation utterance of each fold.

    Raises:
        CorpusError: an utterance without frames, or see :func:`check_choice`.
        UsageError: see :func:`check_choice`.
    """
    check_choice(protocol, corpus)
    check_frames(store, {name for fold in protocol.folds for name in (*fold.train, *fold.validation)})
    statistics = store.pooled()
    truth = classes_of(store.ids, corpus, protocol.labels)
    place = {name: number for number, name in enumerate(store.ids)}
    talker = {utterance.id: utterance.talker for utterance in corpus}
    layers: list[int] = store.settings["encoder"]["layers"]
    predictions: dict[int, list[Prediction]] = {layer: [] for layer in layers}
    todo = [(fold, number) for fold in protocol.folds for number in range(len(layers))]
    for done, (fold, number) in enumerate(todo, start=1):
        train, validation = (torch.tensor([place[name] for name in part]) for part in (fold.train, fold.validation))
        layer = statistics[:, :, number].flatten(1)
        probes = fit_linear_probes(layer[train], truth[train], len(protocol.labels), *PROBE_C)
        logits = max(
            (probe.read(layer[validation]) for probe in probes),
            key=lambda logits: scores_of_logits(logits, truth[validation], protocol.labels).ua,
        )
        for name, true, said in zip(
            fold.validation, truth[validation].tolist(), logits.argmax(1).tolist(), strict=True
        ):
            labels = protocol.labels[true], protocol.labels[said]
            predictions[layers[number]].append(Prediction(name, talker[name], fold.name, 0, *labels))
        report("layers", done, len(todo), {"fold": fold.name, "layer": layers[number]})
    return predictions
