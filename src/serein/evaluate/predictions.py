"""``predictions.csv``: one row a test utterance and training seed, from which every score is computed."""

import csv
import io
from collections.abc import Iterable, Sequence
from math import isfinite, nan
from pathlib import Path
from typing import NamedTuple

from serein.errors import CorpusError

_COLUMNS = ("id", "talker", "fold", "seed", "truth", "prediction")


class Prediction(NamedTuple):
    """One test utterance under one training seed.

    ``probabilities`` are in the order of the protocol's labels; empty where only labels were kept, not in a table.
    """

    id: str
    talker: str
    fold: str
    seed: int
    truth: str
    prediction: str
    probabilities: tuple[float, ...] = ()


def predictions_table(predictions: Iterable[Prediction], labels: Sequence[str]) -> str:
    """The table as text, probabilities to six decimals."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_COLUMNS, *(f"p_{label}" for label in labels)])
    for *facts, probabilities in predictions:
        writer.writerow([*facts, *(f"{probability:.6f}" for probability in probabilities)])
    return text.getvalue()


def read_predictions(files: Sequence[Path], labels: Sequence[str]) -> list[Prediction]:
    """The rows of one table, or of several one after the other.

    Raises:
        CorpusError: a file or column is missing or damaged, or a seed or probability is no number.
    """
    predictions = []
    for path in files:
        wanted = (*_COLUMNS, *(f"p_{label}" for label in labels))
        columns, rows = read_table(path, wanted)
        position = [columns.index(name) for name in wanted]
        for id_, talker, fold, seed, truth, prediction, *cells in ([row[i] for i in position] for row in rows):
            if not seed.isdecimal():
                raise CorpusError(f"{path}: seed {seed!r} is no whole number; run the command again")
            probabilities = tuple(map(_number, cells))
            if not all(map(isfinite, probabilities)):
                raise CorpusError(f"{path}: a probability of {id_} is no number ({cells}); run the command again")
            predictions.append(Prediction(id_, talker, fold, int(seed), truth, prediction, probabilities))
    return predictions


def read_table(
    path: Path, required: Sequence[str], *, remedy: str = "run the command again"
) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a CSV table; ``remedy`` is what an error advises.

    Raises:
        CorpusError: it cannot be read, lacks a column, or a row has another number of cells.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # as others write it
            columns, *rows = list(filter(None, csv.reader(file, strict=True))) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{path}: cannot be read as a CSV table ({error}); {remedy}") from error
    missing = [name for name in required if name not in columns]
    if missing:
        raise CorpusError(f"{path}: has no column {', '.join(missing)}; {remedy}")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(columns):
            raise CorpusError(f"{path}, row {number}: {len(row)} cells, the header has {len(columns)}; {remedy}")
    return columns, rows


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return nan
