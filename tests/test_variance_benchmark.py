import subprocess
import sys
from pathlib import Path

import pytest
import torch
import variance

from serein.frames.batches import frame_budget, plan_batches

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "variance.py"


def test_the_share_is_that_of_the_sums_of_squares():
    values = torch.tensor([[0.0], [2.0], [4.0], [6.0]])  # mean 3, sum of squares 9 + 1 + 1 + 9 = 20
    assert variance.share_between(values, ["a", "a", "b", "b"]) == pytest.approx(16 / 20)  # means 1 and 5: 4 * 2**2
    assert variance.share_between(values, ["a", "b", "b", "a"]) == 0
    assert variance.share_between(values, [1, 2, 3, 4]) == pytest.approx(1)


def test_the_table_has_a_row_a_property_that_the_corpus_knows(tone_store):
    done = subprocess.run(
        [sys.executable, SCRIPT, tone_store.folder], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()]
    assert [line[1] for line in lines[2:]] == ["utterance", "emotion", "talker", *variance.BATCHES]
    assert {line[0] for line in lines[2:]} == {tone_store.settings["corpus"]["name"]}
    rows = {line[1]: [float(cell.rstrip("%") or "nan") for cell in line[2:]] for line in lines[2:]}
    array, corpus = tone_store.load(), tone_store.corpus()
    by_chance = 100 * (len(array.ids) - 1) / (int(array.lengths.sum()) - 1)
    assert rows["utterance"][1] == pytest.approx(by_chance, abs=0.05)
    assert rows["emotion"][3] == pytest.approx(100 * (len(corpus.labels) - 1) / (len(array.ids) - 1), abs=0.05)
    plan = plan_batches(array.lengths, frame_budget(array.lengths, 32), seed=0, epoch=0)
    assert rows["batch, by length"][3] == pytest.approx(100 * (len(plan) - 1) / (len(array.ids) - 1), abs=0.05)
    assert rows["batch, by length"][2] > rows["batch, mixed"][2] > 0  # the tones' lengths differ more than twofold
    shares = {name: (row[0], row[2]) for name, row in rows.items()}
    assert shares["utterance"][0] >= max(shares["emotion"][0], shares["talker"][0])  # both are made of utterances
    assert shares["emotion"][1] > shares["emotion"][0]


def test_what_is_no_store_is_said_in_a_line(tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode != 0
    assert str(tmp_path) in done.stderr
    assert "Traceback" not in done.stderr
