"""The model to ship: one training on all talkers of a store, after the choices were made on some of them."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from serein.baselines.linear_probe import fit_linear_probes
from serein.corpus.corpus import Corpus
from serein.corpus.protocol import Fold
from serein.corpus.splits import make_protocol
from serein.errors import CorpusError, UsageError
from serein.evaluate.calibration import COLDEST, HOTTEST, Calibration, calibrate
from serein.evaluate.runs import Run, load_run
from serein.files import write_atomically
from serein.frames.batches import BATCHING
from serein.frames.store import FrameStore
from serein.model import CARD_FILE, EncoderDescription, ModelConfig, check_folder, save_model
from serein.nn.committee import Committee
from serein.progress import Report, quiet
from serein.recipe import Recipe
from serein.timeline import SILENCE
from serein.train.adapter_folder import refuse_talker_statistics, take_adapter
from serein.train.card import Made, collapsed, model_card
from serein.train.crossval import check_views, classes_of, model_config
from serein.train.finetune import best_row, finetune, in_batches
from serein.train.material import gather
from serein.train.systems import adapter, fresh_classifier, linear_probe, start_of
from serein.train.task import CHECKPOINT_SUFFIX, Outcome, Task, mean_over_views, remove_checkpoints

ORIGINS = {
    "none": "The adapter was not trained without labels.",
    "inductive": "The adapter was first trained without labels, on the other talkers only.",
    "transductive": "The adapter was first trained without labels on all talkers, so it heard those who chose too: "
    "the score is a transductive one.",
    "elsewhere": "The adapter was trained before, without labels, on other corpora only: so says the recipe, and "
    "nothing here has checked it.",
}


SHIPPED = {"adapter": adapter, "linear": linear_probe}
"""What can be shipped, by the names of :data:`serein.train.systems.SYSTEMS`."""

OF_A_PROBE = {"model": {"test_views", "talker_statistics"}, "finetune": {"label_share"}}
"""All that a linear probe heeds of a recipe, beside ``speed``."""


def train_model(
    store: FrameStore,
    corpus: Corpus,
    folder: str | Path,
    recipe: Recipe,
    *,
    system: str = "adapter",
    adapter_folder: str | Path | None = None,
    views: Sequence[FrameStore] = (),
    scores_from: str | Path | None = None,
    abstain_below: float = 0.0,
    seed: int = 0,
    report: Report = quiet,
) -> dict[str, int | float]:
    """Train the classifier to ship, calibrate it, and save its model folder with its card.

    The number of epochs, of a linear probe C, is chosen on some talkers, whom that training does not see: whole talkers
    are dealt to five groups (to as many as there are talkers, where these are fewer), and the one with the most talkers
    is taken. Then the classifier is trained on all talkers. No test talkers are left to score it: ``serein crossval``
    says what to expect of it.

    Its temperature is fitted on the same talkers, with as many networks as are shipped, trained with the same choice on
    the other talkers only. That costs about as much again as the last training.

    Args:
        store: the frames.
        corpus: the labels.
        folder: the model.
        recipe: the settings; a linear probe heeds :data:`OF_A_PROBE` of them.
        system: ``adapter``, or ``linear``: logistic regression on the frames' mean and deviation over time.
        views: the same corpus extracted at other speeds, for training, and with ``model.test_views`` for judging too.
        adapter_folder: an adapter from ``serein adapt``, here or on the Hub, used instead of training one here.
        scores_from: a finished run of ``serein crossval`` of the same system, corpus, frames and recipe, for the card.
        abstain_below: the best probability below which the model is not sure, in [0, 1).
        seed: of the run.
        report: told of every step.

    Returns:
        what was chosen (``epochs`` or ``C``), the validation scores with it, the calibration (see
        :class:`serein.evaluate.calibration.Calibration` for what is nan where one talker validates), and whether
        adapter training collapsed.

    Raises:
        CorpusError: fewer than three talkers, or than two emotions; or the run cannot be read.
        ModelError: the adapter is out of reach, or does not fit the frames.
        StoreError: a view is not of the same corpus at another speed.
        UsageError: the system cannot be shipped, or is the linear probe and an adapter is given; the folder holds the
            beginning of another training; an emotion has the name of pauses; the recipe asks for talker statistics, for
            an adapter from elsewhere that is not given, or for ``model.test_views`` without views; the run is another
            system's or settings', or its batches were made otherwise; a threshold out of range; the folder has a
            README.md and no model.
    """
    check_folder(folder)
    folder = Path(folder)
    corpus = corpus.select(lambda utterance: utterance.emotion != "")
    _check(corpus, folder, recipe, system, adapter_folder, scores_from, abstain_below)
    check_views(recipe, views)
    ids = [utterance.id for utterance in corpus]
    material = gather(store, ids, views=views, mapped=recipe.speed.frames == "mapped")
    array = material.array
    config = model_config(store, array, recipe, corpus.labels)
    pretrained = None
    if adapter_folder is not None:
        pretrained, config = take_adapter(adapter_folder, config)
        recipe = recipe.model_copy(update={"model": config.model})
    if system == "linear":
        config = config.model_copy(update={"architecture": "linear"})
    run = None if scores_from is None else _run_of(Path(scores_from), corpus, config, recipe, material.said["views"])
    if recipe.model.test_views:
        config = config.model_copy(update={"speeds": (1.0, *(view.settings["speed"] for view in views))})
    held_out = _validation(corpus, seed)
    chooses = set(held_out)
    train = tuple(utterance.id for utterance in corpus if utterance.id not in chooses)
    task = Task(
        array, classes_of(array.ids, corpus, corpus.labels), material.talkers,
        Fold("ship", train, held_out, ()), config, recipe, seed, folder,
        frames=material.said["frames"], views=material.views, pretrained=pretrained,
    )  # fmt: skip
    outcome = SHIPPED[system](task, report)
    if system == "linear":
        chosen, scores, origin = "C", outcome.choice, ""
        said = _said_by_a_probe(task, outcome.choice["C"])
    else:
        chosen, scores, origin = "epochs", best_row(outcome.history), _origin(recipe, outcome, given=adapter_folder)
        said = _said_by_networks(task, outcome.choice["epochs"], report)
    calibration = _calibration(said, task, corpus, abstain_below)
    config = config.model_copy(update={"temperature": calibration.temperature, "abstain_below": abstain_below})
    save_model(folder, outcome.model, config)
    facts = {
        chosen: outcome.choice[chosen],
        "validation_ua": scores["validation_ua"],
        "validation_wa": scores["validation_wa"],
        "validation_talkers": calibration.talkers,
        "talkers": len(corpus.talkers),
        "utterances": len(corpus),
        "temperature": calibration.temperature,
        "calibration_error_before": calibration.error_before,
        "calibration_error_after": calibration.error_after,
        "nll_before": calibration.nll_before,
        "nll_after": calibration.nll_after,
        "coverage": calibration.coverage,
        "collapsed": bool(outcome.collapse),
    }
    made = Made(corpus, config, recipe, origin, facts, calibration, run)
    write_atomically(folder / CARD_FILE, model_card(made).encode())
    remove_checkpoints(task.folder)
    return facts


def _origin(recipe: Recipe, outcome: Outcome, *, given: str | Path | None) -> str:
    """Whom the adapter heard, in words for the card."""
    origin = ORIGINS[recipe.adapt.data]
    if given is not None and recipe.adapt.data != "elsewhere":
        origin = (
            "The adapter was trained before, and may have heard those who chose, without their labels; what the recipe "
            "says of adapter training was not used."
        )
    return f"{origin} {collapsed(outcome.collapse)}" if outcome.collapse else origin


def is_at_a_bound(temperature: float) -> bool:
    """Whether a fitted temperature stopped where the search ends, so that it fits nothing.

    Example:
        >>> is_at_a_bound(HOTTEST), is_at_a_bound(1.0)
        (True, False)
    """
    return any(math.isclose(temperature, bound) for bound in (COLDEST, HOTTEST))


def _check(
    corpus: Corpus, folder: Path, recipe: Recipe, system: str, given: str | Path | None, scores_from: str | Path | None,
    abstain_below: float,
) -> None:  # fmt: skip
    if system not in SHIPPED:
        raise UsageError(
            f"system {system!r}: {' and '.join(SHIPPED)} can be shipped; the others of docs/systems.md can be judged "
            "(`serein crossval`)"
        )
    if system == "linear" and given is not None:
        raise UsageError(f"{given}: a linear probe has no adapter; leave it out")
    left = {path.name for path in folder.glob(f"*{CHECKPOINT_SUFFIX}")}
    if system == "adapter":  # its own would be continued, but for an adapter's where none is trained
        left &= {f"adapt{CHECKPOINT_SUFFIX}"} if given is not None or recipe.adapt.data == "none" else set()
    if left:  # and removed in the end
        raise UsageError(
            f"{folder}: holds the beginning of another training; give another folder, or delete {min(left)}"
        )
    if len(corpus.talkers) < 3 or len(corpus.labels) < 2:
        raise CorpusError(f"corpus {corpus.name}: training needs three talkers and two emotions at least")
    if SILENCE in corpus.labels:
        raise UsageError(f"{SILENCE!r}: is what timelines call the pauses between words; --map gives it another name")
    if not 0 <= abstain_below < 1:
        raise UsageError(f"abstain below {abstain_below:g}: give a probability from 0 to below 1")
    refuse_talker_statistics(recipe)
    if recipe.finetune.label_share < 1:
        raise UsageError(
            "finetune.label_share: asks what fewer labels would give (`serein crossval`, `serein ablate`); "
            "a model to ship learns from all of them; leave it 1"
        )
    elsewhere = recipe.adapt.data == "elsewhere"
    if elsewhere and given is None and system == "adapter":
        raise UsageError('adapt.data = "elsewhere": run `serein adapt` on the other corpus, and give --adapter')
    if scores_from is not None and given is not None and not elsewhere:
        raise UsageError(f"{scores_from}: trained its own adapters, not the one that is given; leave one of them out")


def _validation(corpus: Corpus, seed: int) -> tuple[str, ...]:
    """The utterances of the group with the most talkers: of one alone nothing is known about another."""
    talker = {utterance.id: utterance.talker for utterance in corpus}
    groups = [fold.test for fold in make_protocol(f"talkers-{min(5, len(corpus.talkers))}", corpus, seed=seed).folds]
    return max(groups, key=lambda group: len({talker[id_] for id_ in group}))


def _said_by_a_probe(task: Task, c: float) -> Float[Tensor, "judged classes"]:
    """Probabilities of the validation utterances, by a probe like the one to ship that has not learned from them."""
    array, labelled = task.array, task.with_views(task.labelled())
    statistics = array.pooled(labelled).flatten(1)
    (probe,) = fit_linear_probes(statistics, task.labels[labelled], len(task.config.labels), c)
    return probe.read(array.pooled(task.judged(task.parts().validation)).flatten(1)).softmax(1)


def _said_by_networks(task: Task, epochs: int, report: Report) -> Float[Tensor, "judged classes"]:
    """Probabilities of the validation utterances, by networks like those to ship that have not learned from them.

    The first of them is the one that chose, at the epoch that was chosen (on a GPU, nearly).
    """
    start = start_of(task, {}, report)  # an adapter that was trained without labels is in its checkpoint
    networks: list[nn.Module] = []
    for seed in task.member_seeds():
        network = fresh_classifier(task.config, task.recipe, start.adapter(seed), seed)
        finetune(
            network, task.array, task.labels, task.with_views(task.labelled()), task.finetuning(),
            classes=task.config.labels, stop_after=epochs, seed=seed,
            checkpoint=task.checkpoint(f"calibrate-{seed}"), report=report,
        )  # fmt: skip
        networks.append(network)
    model = networks[0] if len(networks) == 1 else Committee(networks)
    return in_batches(model, task.array, task.judged(task.parts().validation), task.recipe.speed).softmax(1)


def _calibration(
    probabilities: Float[Tensor, "judged classes"], task: Task, corpus: Corpus, threshold: float
) -> Calibration:
    """Of probabilities of the validation utterances, from what has not learned from them."""
    validation = task.parts().validation
    finite = mean_over_views(probabilities, len(validation)).clamp(min=torch.finfo(probabilities.dtype).tiny)
    by_id = corpus.by_id()
    return calibrate(
        finite.double().log().numpy(),
        task.labels[validation].numpy(),
        [by_id[id_].talker for id_ in task.fold.validation],
        threshold=threshold,
    )


def _run_of(folder: Path, corpus: Corpus, config: ModelConfig, recipe: Recipe, views: list[str]) -> Run:
    """A finished run, if it is what this training is, on other talkers."""
    run = load_run(folder)
    system = "linear" if config.architecture == "linear" else "adapter"
    if run.system != system:
        raise UsageError(f"{folder}: is a run with another system: no scores for this model")
    said = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    truths = {utterance.id: (utterance.talker, utterance.emotion) for utterance in corpus}
    used = Recipe.from_toml(run.recipe, source=str(folder / "recipe.toml"))
    if system == "adapter" and said.get("batching") != BATCHING:
        raise UsageError(f"{folder}: was trained on other batches, by an earlier serein: no scores for this model")
    others = recipe.adapt.data == "elsewhere"
    heeded: dict[str, Any] = {"include": OF_A_PROBE} if system == "linear" else {"exclude": {"speed"}}
    same = {
        "corpus": run.corpus == corpus.name and run.truths().items() <= truths.items(),
        "labels": sorted(run.protocol.labels) == sorted(config.labels),
        "encoder": "members" not in run.encoder and EncoderDescription(**run.encoder).gives_frames_of(config.encoder),
        "recipe": used.model_dump(**heeded) == recipe.model_dump(**heeded),
        "views": said.get("views", []) == views,
        "unlabelled corpora": others or not said.get("unlabelled"),
    }
    if differing := [name for name, equal in same.items() if not equal]:
        raise UsageError(f"{folder}: is a run with another {' and another '.join(differing)}: no scores for this model")
    return run
