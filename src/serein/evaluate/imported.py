"""Predictions made elsewhere as a run folder: reports, comparisons and studies then hold them against serein's own."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isclose
from pathlib import Path

from serein.errors import CorpusError, UsageError
from serein.evaluate.predictions import Prediction, predictions_table, read_table
from serein.evaluate.runs import FORMAT, IMPORTED, load_run
from serein.files import as_json, write_atomically


def import_predictions(
    table: str | Path, like: str | Path, output: str | Path, *, name: str, command: str = ""
) -> Path:
    """Write the run folder of these predictions; what made them, its settings and its cost are not known there.

    Talkers, truths, folds and what these share are those of a finished run, under whose protocol the predictions are
    judged. Whether what made them kept to it (no test talker trained, or chose) is for the user to know, and to say in
    the name where it did not.

    Args:
        table: a CSV of one row a test utterance and training seed: ``id``, ``p_LABEL`` for each label, and, where they
            are known, ``seed`` (a whole number, else 0) and ``prediction`` (else the label of the highest probability).
            ``talker``, ``fold`` and ``truth`` must be the run's where they are there; other columns are passed over.
        like: a finished run.
        output: the new run's folder, which must not hold a run.
        name: of the system, in tables.
        command: what the user typed.

    Raises:
        CorpusError: the table or the run cannot be read; or the rows are not one a test utterance and seed, disagree
            with the run, or hold something else than probabilities.
        UsageError: the output holds a run already, or the name is empty.
    """
    output = Path(output)
    if not name.strip():
        raise UsageError("--name: is empty; say what tables are to call the system")
    if (output / "run.json").exists():
        raise UsageError(f"{output}: holds a run already; give another folder with -o")
    run = load_run(like)
    labels = run.protocol.labels
    columns, rows = read_table(Path(table), ("id", *(f"p_{label}" for label in labels)), remedy="correct it")
    tested = {row.id: row for row in run.predictions}
    predictions = []
    for number, cells in enumerate(rows, start=2):
        try:
            predictions.append(_prediction(dict(zip(columns, cells, strict=True)), tested, labels))
        except ValueError as error:
            raise CorpusError(f"{table}, row {number}: {error} (judged like {run.folder})") from error
    seeds = sorted({row.seed for row in predictions})
    counts = Counter((row.seed, row.id) for row in predictions)
    for seed, id_ in ((seed, id_) for seed in seeds or [0] for id_ in tested):
        if counts[seed, id_] != 1:
            times = "is missing" if not counts[seed, id_] else "stands twice"
            raise CorpusError(f"{table}: {id_}, seed {seed}, {times}; give each test utterance of {run.folder} one row")

    costs = {"seconds": {}, "peak_memory_bytes": 0, "trainable_parameters": {}, "choice": {}, "collapsed": False}
    for fold in run.protocol.folds:
        for seed in seeds:
            write_atomically(output / "folds" / fold.name / f"seed-{seed}" / "cost.json", as_json(costs).encode())
    write_atomically(output / "predictions.csv", predictions_table(predictions, labels).encode())
    run.protocol.save(output / "protocol.json")
    write_atomically(output / "environment.json", as_json({}).encode())
    write_atomically(output / "recipe.toml", b"# made elsewhere: the settings are not known here\n")
    facts = {
        "format": FORMAT,
        "system": IMPORTED,
        "name": name,
        "adapter_training": "not known",
        "seeds": seeds,
        "command": command,
        "corpus": run.corpus,
        "encoder": {},
        "synthetic": run.synthetic,
        "leaks": run.leaks,
        "without_frames": run.without_frames,
    }
    write_atomically(output / "run.json", as_json(facts).encode())  # last: with it this is a run
    return output


def _prediction(row: Mapping[str, str], tested: Mapping[str, Prediction], labels: Sequence[str]) -> Prediction:
    """A row that is one of the run's; else a ValueError says what is wrong with it."""
    known = tested.get(row["id"])
    if known is None:
        raise ValueError(f"{row['id']!r} is no test utterance")
    for column in ("talker", "fold", "truth"):
        expected = getattr(known, column)
        if row.get(column, expected) != expected:
            raise ValueError(f"{column} of {known.id} is {row[column]!r}, and should be {expected!r}")
    seed, cells = row.get("seed", "0"), [row[f"p_{label}"] for label in labels]
    if not seed.isdecimal():
        raise ValueError(f"seed {seed!r} is no whole number")
    probabilities = tuple(map(float, cells))
    if not (all(0 <= one <= 1 for one in probabilities) and isclose(sum(probabilities), 1, abs_tol=0.01)):
        raise ValueError(f"{', '.join(cells)} are no probabilities that sum to 1; of logits give the softmax")
    best = labels[max(range(len(labels)), key=probabilities.__getitem__)]
    prediction = row.get("prediction", best)
    if prediction not in labels:
        raise ValueError(f"{prediction!r} is none of {', '.join(labels)}")
    return known._replace(seed=int(seed), prediction=prediction, probabilities=probabilities)
