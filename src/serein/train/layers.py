"""Which layer of an encoder carries emotion: a linear probe of each, read on the talkers who validate."""

import torch

from serein.baselines.linear_probe import fit_linear_probes
from serein.corpus.corpus import Corpus
from serein.corpus.protocol import Protocol
from serein.errors import UsageError
from serein.evaluate.runs import Prediction
from serein.frames.store import FrameStore
from serein.progress import Report, quiet
from serein.train.crossval import check_folds, label_indices
from serein.train.material import check_frames
from serein.train.systems import PROBE_C
from serein.train.task import ua_of_logits


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
        CorpusError: an utterance without frames, a talker on both sides, or nobody validates.
        UsageError: the validation utterances are the test utterances.
    """
    if protocol.oracle:
        raise UsageError(
            f"protocol {protocol.name}: its validation talkers are its test talkers, who may choose nothing"
        )
    check_folds(protocol, corpus)
    check_frames(store, {name for fold in protocol.folds for name in (*fold.train, *fold.validation)})
    statistics = store.pooled()
    truth = label_indices(store.ids, corpus, protocol.labels)
    place = {name: number for number, name in enumerate(store.ids)}
    talkers = {utterance.id: utterance.talker for utterance in corpus}
    layers: list[int] = store.settings["encoder"]["layers"]
    predictions: dict[int, list[Prediction]] = {layer: [] for layer in layers}
    todo = [(fold, number) for fold in protocol.folds for number in range(len(layers))]
    for done, (fold, number) in enumerate(todo, start=1):
        train, validation = (torch.tensor([place[name] for name in part]) for part in (fold.train, fold.validation))
        layer = statistics[:, :, number].flatten(1)
        probes = fit_linear_probes(layer[train], truth[train], len(protocol.labels), *PROBE_C)
        logits = max(
            (probe.classify(layer[validation]) for probe in probes),
            key=lambda logits: ua_of_logits(logits, truth[validation], protocol.labels),
        )
        for name, true, said in zip(
            fold.validation, truth[validation].tolist(), logits.argmax(1).tolist(), strict=True
        ):
            labels = protocol.labels[true], protocol.labels[said]
            predictions[layers[number]].append(Prediction(name, talkers[name], fold.name, 0, *labels))
        report("layers", done, len(todo), {"fold": fold.name, "layer": layers[number]})
    return predictions
