"""What stands in the cells of a table: scores of scikit-learn on the predictions, beside their own interval."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from serein.evaluate.document import Table
from serein.evaluate.runs import Run, load_run
from serein.evaluate.sections import score_table as report_table
from serein.evaluate.statistics import talker_confusions, talker_intervals
from serein.evaluate.study import load_study, save_study
from serein.evaluate.study_curves import curve_blocks, curve_picture, label_curves
from serein.evaluate.study_page import score_table as study_table

SCORES = ("UA %", "WA %", "Macro F1 %")


@pytest.fixture
def uneven(make_run):
    """Two runs in which each talker says the first label three times, the second twice and the others once."""
    whole = load_run(make_run("for its protocol")).protocol

    def some(ids):
        return tuple(id_ for id_ in ids if int(id_[-2:]) in (0, 1, 2, 3, 4, 5, 8))

    folds = tuple(
        replace(fold, train=some(fold.train), validation=some(fold.validation), test=some(fold.test))
        for fold in whole.folds
    )
    protocol = replace(whole, name="uneven", folds=folds)
    return [
        make_run(name, accuracy=accuracy, random_seed=seed + 3, protocol=protocol)
        for seed, (name, accuracy) in enumerate([("one", 0.6), ("two", 0.5)])
    ]


def rows_of(run: Run, seed: int) -> tuple[list[str], list[str], list[str]]:
    rows = [row for row in run.predictions if row.seed == seed]
    return [row.truth for row in rows], [row.prediction for row in rows], [row.talker for row in rows]


def expected(run: Run) -> list[str]:
    by_seed = [rows_of(run, seed) for seed in run.seeds]
    ua, wa, f1 = (
        100 * np.mean([score(truth, guess) for truth, guess, _ in by_seed])
        for score in (balanced_accuracy_score, accuracy_score, lambda *of: f1_score(*of, average="macro"))
    )
    assert len({f"{score:.1f}" for score in (ua, wa, f1)}) == 3  # otherwise a cell could be another's
    confusions = np.concatenate(
        [talker_confusions(*(np.array(names) for names in of_seed), run.protocol.labels) for of_seed in by_seed]
    )
    interval = talker_intervals(confusions).ua
    return [f"{ua:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]", f"{wa:.1f}", f"{f1:.1f}"]


def test_the_report_and_the_study_say_each_score_in_its_column(uneven, tmp_path):
    runs = [load_run(folder) for folder in uneven]
    save_study(tmp_path / "study", "runs", "t", [(folder.name, folder) for folder in uneven])
    for header, *rows in (report_table(runs), study_table(load_study(tmp_path / "study"))):
        for run, row in zip(runs, rows, strict=True):
            assert [row[header.index(name)] for name in SCORES] == expected(run)


def test_the_curves_of_labels_say_ua_and_its_interval(uneven, tmp_path):
    for folder, share in zip(uneven, (0.1, 1.0), strict=True):
        (folder / "recipe.toml").write_text(f"[finetune]\nlabel_share = {share}\n")
    save_study(tmp_path / "study", "runs", "t", [(folder.name, folder) for folder in uneven])
    curves = label_curves(load_study(tmp_path / "study"))
    (table,) = (block for block in curve_blocks(curves, curve_picture(curves)) if isinstance(block, Table))
    told = [row[table.header.index("UA %")] for row in table.rows]
    assert told == [expected(load_run(folder))[0] for folder in uneven]
