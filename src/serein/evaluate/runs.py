"""Read a run folder into plain records, and believe nothing in it that does not fit together."""

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serein.corpus.protocol import Fold, Protocol
from serein.errors import CorpusError
from serein.evaluate.predictions import Prediction, read_predictions, read_table
from serein.files import parse_json

FORMAT = 1
IMPORTED = "imported"  # the system of predictions that were made elsewhere
_FACTS = ("system", "name", "adapter_training", "seeds", "command", "corpus", "encoder", "synthetic", "leaks")
_COSTS = ("seconds", "peak_memory_bytes", "trainable_parameters", "choice", "collapsed")
_STAGE_COLUMNS = {
    "adapt": ("reconstruction", "pseudo_cross_entropy", "teacher_spread", "usage", "perplexity", "agreement"),
    "finetune": ("validation_ua",),
}


@dataclass(frozen=True)
class FoldRun:
    """What one fold left behind under one training seed.

    Attributes:
        fold: the fold's name.
        seed: the training seed.
        seconds: wall time of each stage.
        peak_memory_bytes: the most memory that was in use; on a processor that of the process, earlier folds included.
        trainable_parameters: how many, by part of the system.
        choice: the numbers chosen on the validation part, by name.
        collapsed: whether the adapter's teacher ended with nearly one frame for everything, or few attributes in use.
        history: of each stage, the columns of its training steps; nan where a cell is blank, and epochs count from
            0. Empty for a system without training steps.
        embeddings: the file for `serein.evaluate.embeddings.load_embeddings`; None of predictions that were imported.
    """

    fold: str
    seed: int
    seconds: Mapping[str, float]
    peak_memory_bytes: int
    trainable_parameters: Mapping[str, int]
    choice: Mapping[str, int | float]
    collapsed: bool
    history: Mapping[str, Mapping[str, np.ndarray]]
    embeddings: Path | None


@dataclass(frozen=True)
class Run:
    """One system under one protocol, all folds and seeds done.

    Attributes:
        folder: where it lies.
        system: the system's key, such as "linear".
        name: the system's name in tables.
        adapter_training: "none", "inductive" (training talkers only), "transductive" (test talkers too), "elsewhere"
            (other corpora only), or "not known" of predictions that were imported.
        talker_statistics: "none", or "z-norm" where frames were standardised with audio of the same talker, which for
            test talkers too is more than the utterance that is judged; "none" for runs older than the setting.
        seeds: the training seeds.
        command: what made the run.
        corpus: the corpus's name.
        encoder: name, revision, layers and so on of the frozen encoder; of a committee with several, ``members`` has
            a list of them.
        synthetic: whether the voices are made by a machine.
        leaks: sentences about what the parts of a fold share.
        without_frames: utterances of the corpus that could not be read, and why; they are in no fold.
        protocol: the folds, checked against their hash.
        recipe: the text of ``recipe.toml``.
        environment: versions and machine.
        predictions: every test utterance once a seed.
        fold_runs: folds in the protocol's order, and in each the seeds.
    """

    folder: Path
    system: str
    name: str
    adapter_training: str
    talker_statistics: str
    seeds: tuple[int, ...]
    command: str
    corpus: str
    encoder: Mapping[str, Any]
    synthetic: bool
    leaks: tuple[str, ...]
    without_frames: Mapping[str, str]
    protocol: Protocol
    recipe: str
    environment: Mapping[str, Any]
    predictions: tuple[Prediction, ...]
    fold_runs: tuple[FoldRun, ...]

    def truths(self) -> dict[str, tuple[str, str]]:
        """Talker and true label of each test utterance."""
        return {row.id: (row.talker, row.truth) for row in self.predictions}


def label_share(run: Run) -> float:
    """The share of each class's training labels that the run's recipe lets it use: above 0, up to 1.

    Raises:
        CorpusError: the recipe cannot be read.
    """
    try:
        return float(tomllib.loads(run.recipe).get("finetune", {}).get("label_share", 1.0))
    except (AttributeError, TypeError, ValueError) as error:
        raise CorpusError(
            f"{run.folder / 'recipe.toml'}: is not a recipe that serein wrote ({error}); run it again"
        ) from error


def load_run(folder: str | Path) -> Run:
    """Read and check a finished run.

    Raises:
        CorpusError: a file or column is missing or damaged, folds are not done yet (with their names), or the
            predictions are not those of the protocol's test parts.
    """
    folder = Path(folder)
    facts = _read_json(folder / "run.json", _FACTS)
    if facts.get("format") != FORMAT:
        raise CorpusError(
            f"{folder / 'run.json'}: format {facts.get('format')}, this serein reads {FORMAT}; run it again"
        )
    if not isinstance(facts["seeds"], list) or not isinstance(facts["leaks"], list):
        raise CorpusError(f"{folder / 'run.json'}: seeds and leaks must be lists; run it again")
    protocol = Protocol.load(folder / "protocol.json")
    expected = [(fold, seed) for fold in protocol.folds for seed in facts["seeds"]]
    whole = folder / "predictions.csv"  # written when the last fold is done; before, each fold has its own
    parts = [folder / "folds" / fold.name / f"seed-{seed}" / whole.name for fold, seed in expected]
    predictions = read_predictions([whole] if whole.exists() else [*filter(Path.exists, parts)], protocol.labels)
    _check_complete(folder, facts["command"], expected, predictions)
    _check_consistent(folder, protocol.labels, expected, predictions)
    return Run(
        folder=folder,
        **{key: facts[key] for key in _FACTS if key not in ("seeds", "leaks")},
        talker_statistics=facts.get("talker_statistics", "none"),
        seeds=tuple(facts["seeds"]),
        leaks=tuple(facts["leaks"]),
        without_frames=facts.get("without_frames", {}),
        protocol=protocol,
        recipe=_read_recipe(folder / "recipe.toml"),
        environment=_read_json(folder / "environment.json", ()),
        predictions=tuple(predictions),
        fold_runs=tuple(_read_fold_run(folder, fold.name, seed, facts["system"]) for fold, seed in expected),
    )


def distinct_names(runs: Sequence[Run]) -> list[str]:
    """The runs' names, with the folder where that is needed to tell them apart."""
    uses = Counter(run.name for run in runs)
    return [run.name if uses[run.name] == 1 else f"{run.name} ({run.folder})" for run in runs]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(
            f"{path}: cannot be read ({error}); is {path.parent} a run folder of `serein crossval`?"
        ) from error


def _read_recipe(path: Path) -> str:
    text = _read_text(path)
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CorpusError(f"{path}: is not a recipe that serein wrote ({error}); run it again") from error
    return text


def _read_json(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    try:
        content = parse_json(_read_text(path))
    except ValueError as error:
        raise CorpusError(f"{path}: is not JSON ({error}); run the command again") from error
    if not isinstance(content, dict):
        raise CorpusError(f"{path}: is no JSON object; run the command again")
    missing = [key for key in keys if key not in content]
    if missing:
        raise CorpusError(f"{path}: has no {', '.join(missing)}; run the command again with this version of serein")
    return content


def _check_complete(
    folder: Path, command: str, expected: Sequence[tuple[Fold, int]], predictions: Sequence[Prediction]
) -> None:
    found = {(row.fold, row.seed, row.id) for row in predictions}
    missing = [
        f"fold {fold.name} seed {seed}"
        for fold, seed in expected
        if not all((fold.name, seed, id_) in found for id_ in fold.test)
    ]
    if missing:
        shown = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        raise CorpusError(
            f"{folder}: the run is not finished, {len(missing)} of {len(expected)} are missing ({shown}); "
            f"running the command again continues it: {command}"
        )


def _check_consistent(
    folder: Path, labels: Sequence[str], expected: Sequence[tuple[Fold, int]], predictions: Sequence[Prediction]
) -> None:
    unseen = {(fold.name, seed, id_) for fold, seed in expected for id_ in fold.test}
    first: dict[str, Prediction] = {}
    for row in predictions:
        key = (row.fold, row.seed, row.id)
        known = first.setdefault(row.id, row)
        fault = None
        if key not in unseen:
            fault = f"stands twice, or is no test utterance of fold {row.fold} and seed {row.seed}"
        elif not {row.truth, row.prediction} <= set(labels):
            fault = f"has {row.truth!r} and {row.prediction!r}, the labels are {', '.join(labels)}"
        elif (row.talker, row.truth) != (known.talker, known.truth):
            fault = "has another talker or truth under another seed"
        if fault:
            raise CorpusError(f"{folder / 'predictions.csv'}: {row.id} {fault}; run the command into a new folder")
        unseen.remove(key)


def _read_fold_run(folder: Path, fold: str, seed: int, system: str) -> FoldRun:
    folder = folder / "folds" / fold / f"seed-{seed}"
    costs = {key: value for key, value in _read_json(folder / "cost.json", _COSTS).items() if key in _COSTS}
    if system == IMPORTED:
        return FoldRun(fold, seed, **costs, history={}, embeddings=None)
    table, embeddings = folder / "history.csv", folder / "embeddings.safetensors"
    if not embeddings.exists():
        raise CorpusError(f"{embeddings}: is missing; delete its folder and run the command again")
    return FoldRun(fold, seed, **costs, history=_read_history(table) if table.exists() else {}, embeddings=embeddings)


def _read_history(path: Path) -> dict[str, dict[str, np.ndarray]]:
    columns, rows = read_table(path, ("stage", "epoch", "step", "loss"))
    stages = np.array([row[columns.index("stage")] for row in rows])
    missing = {name for stage in np.unique(stages) for name in _STAGE_COLUMNS.get(stage, ())} - set(columns)
    if missing:
        raise CorpusError(f"{path}: has no column {', '.join(sorted(missing))}; run the command again")
    try:
        numbers = {
            name: np.array([float(row[index] or "nan") for row in rows])
            for index, name in enumerate(columns)
            if name != "stage"
        }
    except ValueError as error:
        raise CorpusError(f"{path}: a cell is no number ({error}); run the command again") from error
    return {
        str(stage): {name: values[stages == stage] for name, values in numbers.items()} for stage in np.unique(stages)
    }
