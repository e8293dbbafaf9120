"""Every fold and seed of a protocol, one row a test utterance: the run folder that all numbers come from."""

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from safetensors.torch import save
from torch import Tensor

from serein.corpus.about import SYNTHETIC
from serein.corpus.corpus import Corpus
from serein.corpus.protocol import Fold, Protocol, check_folds, find_leaks
from serein.errors import SereinError, StoreError, UsageError
from serein.evaluate.predictions import Prediction, predictions_table
from serein.files import parse_json, write_atomically
from serein.frames.batches import BATCHING, FrameArray
from serein.frames.store import FrameStore
from serein.model import EncoderDescription, ModelConfig
from serein.progress import Report, quiet
from serein.recipe import Recipe
from serein.train.checkpoint import Row
from serein.train.machine import environment, forget_peak_memory, peak_memory_bytes, pick_device, pick_precision
from serein.train.material import gather
from serein.train.names import run_name
from serein.train.systems import SYSTEMS
from serein.train.task import MEMBER_STRIDE, Outcome, Task, remove_checkpoints

RUN_FORMAT = 1
POSITIONS_SECONDS = 30.0  # there are positions for at least this long, so that a model fits common windows


def cross_validate(
    store: FrameStore,
    corpus: Corpus,
    protocol: Protocol,
    folder: str | Path,
    recipe: Recipe,
    *,
    system: str = "adapter",
    seeds: Sequence[int] = (0,),
    views: Sequence[FrameStore] = (),
    unlabelled: Sequence[FrameStore] = (),
    beside: Sequence[FrameStore] = (),
    shared: Path | None = None,
    command: str = "",
    report: Report = quiet,
) -> Path:
    """Run a system on every fold and seed, or continue where an earlier call stopped.

    Leaves ``recipe.toml``, ``run.json``, ``environment.json``, ``protocol.json``, ``predictions.csv``, and for each
    fold and seed ``folds/FOLD/seed-N/`` with its predictions, history, cost and test embeddings.

    Args:
        store: the frames.
        corpus: the labels; its utterances that have no frames are errors if the protocol names them.
        protocol: the folds.
        folder: the run.
        recipe: the settings.
        system: a key of :data:`serein.train.systems.SYSTEMS`.
        seeds: repetitions of each fold.
        views: the same corpus extracted at other speeds, for training, and with ``model.test_views`` for judging too.
        unlabelled: other corpora, which adapter training hears as well; where there is none they are left aside.
        beside: log-mel frames of the corpus, then of each view, for Co-att; the other systems leave them aside.
        shared: a folder where trainings are kept for other runs that need the same; None keeps none.
        command: what the user typed, for the report.
        report: told of every step.

    Raises:
        CorpusError: a talker on both sides, an utterance without frames, or a recording of the corpus in another.
        StoreError: the folder holds a run with other settings, or part of one under another torch or without
            ``run.json``, or the stores do not go together.
        UsageError: see :func:`check_settings` and :func:`serein.train.material.gather`; or no seed, one twice, a
            negative one, or one of 1000 and more.
        Diverged: a loss or a weight is no longer finite, at every learning rate that was tried.
    """
    folder = Path(folder)
    check_settings(system, recipe, views, unlabelled, beside)
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0 or max(seeds) >= MEMBER_STRIDE:
        shown = f"{list(seeds[:10])}{' ...' if len(seeds) > 10 else ''}"
        raise UsageError(f"seeds {shown}: give at least one, each once, from 0 and below {MEMBER_STRIDE}")
    check_folds(protocol, corpus)
    device = pick_device(recipe.speed.device)
    adapter_training = recipe.adapt.data if system == "adapter" else "none"
    talker_statistics = recipe.model.talker_statistics == "z-norm"
    named = {name for fold in protocol.folds for name in (*fold.train, *fold.validation, *fold.test)}
    heard = () if adapter_training == "none" else unlabelled
    material = gather(
        store, named, views=views, unlabelled=heard, beside=beside if system == "co-att" else (),
        talker_statistics=talker_statistics, mapped=recipe.speed.frames == "mapped",
    )  # fmt: skip
    array = material.array
    labels = classes_of(array.ids, corpus, protocol.labels)
    talkers = {utterance.id: utterance.talker for utterance in corpus}
    config = model_config(store, array, recipe, protocol.labels)
    facts = {
        "format": RUN_FORMAT,
        "system": system,
        "name": run_name(
            system,
            adapter_training,
            talker_statistics,
            others=material.said["unlabelled"],
            members=recipe.model.members,
            speeds=material.views if recipe.model.test_views else 1,
        ),
        "adapter_training": adapter_training,
        "talker_statistics": recipe.model.talker_statistics,
        **material.said,
        "seeds": list(seeds),
        "command": command,
        "corpus": corpus.name,
        "encoder": config.encoder.model_dump(mode="json"),
        "synthetic": SYNTHETIC in corpus.releases,
        "leaks": [str(leak) for leak in find_leaks(protocol, corpus)],
        "without_frames": store.failed,
        "truths": _digest(array.ids, labels.tolist()),
        "talkers": _digest(array.ids, material.talkers.tolist(), sorted((name, talkers[name]) for name in named)),
        "device": device.type,
        "precision": pick_precision(device, recipe.speed.precision),
        "batching": BATCHING,
    }
    tasks = [(fold, seed, folder / "folds" / fold.name / f"seed-{seed}") for seed in seeds for fold in protocol.folds]
    parts = [place / "predictions.csv" for *_, place in tasks]
    _claim(folder, facts, recipe, protocol, done=all(part.exists() for part in parts))

    for number, (fold, seed, place) in enumerate(tasks, start=1):
        if not (place / "predictions.csv").exists():
            place.mkdir(parents=True, exist_ok=True)
            task = Task(
                array, labels, material.talkers, fold, config, recipe, seed, place,
                frames=material.said["frames"], views=material.views, elsewhere=material.elsewhere, shared=shared,
            )  # fmt: skip

            def tell(stage: str, done: int, total: int, step: Row, fold: Fold = fold, seed: int = seed) -> None:
                report(stage, done, total, {"fold": fold.name, "seed": seed, **step})

            forget_peak_memory(device)
            try:
                outcome = SYSTEMS[system](task, tell)
            except SereinError as error:
                raise type(error)(f"fold {fold.name}, seed {seed}: {error}") from error
            _write_outcome(place, task, outcome, talkers)
        remove_checkpoints(place)  # also those of a call that was killed when it had written the predictions
        report("crossval", number, len(tasks), {"fold": fold.name, "seed": seed})
    header = parts[0].read_text(encoding="utf-8").splitlines(keepends=True)[0]
    rows = [line for part in parts for line in part.read_text(encoding="utf-8").splitlines(keepends=True)[1:]]
    write_atomically(folder / "predictions.csv", "".join([header, *rows]).encode())
    return folder


def check_settings(
    system: str,
    recipe: Recipe,
    views: Sequence[FrameStore],
    unlabelled: Sequence[FrameStore],
    beside: Sequence[FrameStore],
) -> None:
    """Refuse what cannot be trained or judged with these stores.

    Raises:
        UsageError: no such system, an adapter from elsewhere without another corpus, Co-att without log-mel frames for
            every store or with talker statistics, or ``test_views`` without views.
    """
    if system not in SYSTEMS:
        raise UsageError(f"system {system!r}: there are {', '.join(SYSTEMS)}")
    if system == "adapter" and recipe.adapt.data == "elsewhere" and not unlabelled:
        raise UsageError('adapt.data = "elsewhere": give the other corpora with --unlabelled')
    if system == "co-att" and len(beside) != 1 + len(views):
        raise UsageError(
            "co-att also hears log-mel frames (serein extract TABLE --encoder logmel): give --beside for the corpus, "
            f"and for each --view in their order ({1 + len(views)} in all, here are {len(beside)})"
        )
    if system == "co-att" and recipe.model.talker_statistics != "none":
        raise UsageError(
            f'co-att, model.talker_statistics = "{recipe.model.talker_statistics}": its MFCC are of log energies, of '
            "which frames that are standardised talker by talker say nothing; leave it none"
        )
    check_views(recipe, views)


def check_views(recipe: Recipe, views: Sequence[FrameStore]) -> None:
    """Refuse to judge at several speeds where there is one; a UsageError."""
    if recipe.model.test_views and not views:
        raise UsageError("model.test_views: there is no view to judge at; give the corpus at other speeds with --view")


def classes_of(ids: Sequence[str], corpus: Corpus, labels: Sequence[str]) -> Int[Tensor, " utterances"]:
    """The class of each utterance, -1 where it has none of these labels.

    A view of an utterance, ``ID@SPEED``, has its label.
    """
    number = {label: index for index, label in enumerate(labels)}
    emotions = {utterance.id: utterance.emotion for utterance in corpus}
    names = [name if name in emotions else name.rpartition("@")[0] for name in ids]
    return torch.tensor([number.get(emotions.get(name, ""), -1) for name in names])


def model_config(store: FrameStore, array: FrameArray, recipe: Recipe, labels: Sequence[str]) -> ModelConfig:
    """The network that fits these frames and labels."""
    longest = max(int(array.lengths.max()), round(POSITIONS_SECONDS * array.frame_rate))
    return ModelConfig(
        architecture="classifier",
        model=recipe.model,
        encoder=EncoderDescription.of_store(store.settings),
        max_frames=longest,
        labels=tuple(labels),
    )


def _digest(*facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]


def _claim(folder: Path, facts: dict[str, Any], recipe: Recipe, protocol: Protocol, *, done: bool) -> None:
    """Write what the run is, or check that the run there is the same."""
    folder.mkdir(parents=True, exist_ok=True)
    said = folder / "run.json"
    wanted = {**facts, "recipe": recipe.model_dump(exclude={"speed"}), "protocol": protocol.hash}
    if said.exists():
        try:
            present = {
                **parse_json(said.read_text(encoding="utf-8")),
                "recipe": Recipe.read(folder / "recipe.toml").model_dump(exclude={"speed"}),
                "protocol": Protocol.load(folder / "protocol.json").hash,
            }
            before = parse_json((folder / "environment.json").read_text(encoding="utf-8")).get("torch")
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise StoreError(f"{folder}: the run there is damaged ({error}); give another folder with -o") from error
        if not {"frames", "talkers"} <= present.keys():
            raise StoreError(
                f"{folder}: holds a run that does not say which frames it heard and whose (imported, or of an earlier "
                "serein), so nothing can be added to it; give another folder with -o (it can be reported and compared)"
            )
        told = ("command", "leaks", "name")  # in words, which may get better; what they tell of is in the rest
        differing = [name for name in wanted if name not in told and wanted[name] != present.get(name)]
        if differing:
            raise StoreError(
                f"{folder}: holds a run with another {' and '.join(differing)}; give another folder with -o"
            )
        now = environment()["torch"]
        if before != now and not done:
            raise StoreError(
                f"{folder}: holds part of a run that torch {before} began, and this is torch {now}, whose draws and "
                f"sums may be others; install torch {before} to continue it, or give another folder with -o"
            )
        return
    if (folder / "folds").exists() or (folder / "predictions.csv").exists():
        raise StoreError(
            f"{folder}: holds predictions, and no run.json that says what made them; give another folder with -o"
        )
    protocol.save(folder / "protocol.json")
    write_atomically(folder / "recipe.toml", recipe.to_toml().encode())
    write_atomically(folder / "environment.json", (json.dumps(environment(), indent=2) + "\n").encode())
    write_atomically(said, (json.dumps(facts, indent=2) + "\n").encode())


def _write_outcome(place: Path, task: Task, outcome: Outcome, talkers: dict[str, str]) -> None:
    """The files of one fold and seed; the predictions come last, for they say that the rest is there."""
    test, labels = task.fold.test, task.config.labels
    cost = {
        "seconds": outcome.seconds,
        "peak_memory_bytes": peak_memory_bytes(pick_device(task.recipe.speed.device)),
        "trainable_parameters": outcome.parameters,
        "choice": outcome.choice,
        "collapsed": bool(outcome.collapse),
    }
    write_atomically(place / "cost.json", (json.dumps(cost, indent=2) + "\n").encode())
    if outcome.history:
        write_atomically(place / "history.csv", _table(outcome.history).encode())
    embeddings = {name: tensor.float().contiguous() for name, tensor in outcome.embeddings.items()}
    said = {"serein": json.dumps({"ids": test})}
    write_atomically(place / "embeddings.safetensors", save(embeddings, metadata=said))
    truths = task.labels[task.array.indices(test)].tolist()
    rows = (
        Prediction(
            name, talkers[name], task.fold.name, task.seed, labels[truth], labels[int(scores.argmax())],
            tuple(scores.tolist()),
        )
        for name, truth, scores in zip(test, truths, outcome.probabilities, strict=True)
    )  # fmt: skip
    write_atomically(place / "predictions.csv", predictions_table(rows, labels).encode())


def _table(rows: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
