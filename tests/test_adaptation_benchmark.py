import adaptation
import numpy as np
import pytest

from serein.errors import UsageError


class Ran:
    def __init__(self, *steps):
        self.fold_runs = [FoldRan(number) for number in steps]


class FoldRan:
    def __init__(self, steps):
        rising = np.arange(float(steps))
        facts = {"reconstruction": rising, "teacher_spread": 2 * rising, "agreement": -rising, "usage": 0 * rising}
        self.history = {"adapt": {"step": rising, **facts}} if steps else {"finetune": {}}


def test_it_is_the_mean_over_folds_of_their_first_and_last_tenths(monkeypatch):
    monkeypatch.setattr(adaptation, "load_run", lambda folder: Ran(20, 40))  # tenths of 2 and of 4 steps
    steps, facts = adaptation.first_and_last("run")
    assert steps == 30
    assert facts["reconstruction"] == ((0.5 + 1.5) / 2, (18.5 + 37.5) / 2)
    assert facts["teacher_spread"] == (2.0, 56.0)
    assert facts["agreement"] == (-1.0, -28.0)
    assert facts["usage"] == (0.0, 0.0)


def test_a_run_without_adapter_training_is_refused(monkeypatch):
    monkeypatch.setattr(adaptation, "load_run", lambda folder: Ran(0))
    with pytest.raises(UsageError, match="run: has no adapter training"):
        adaptation.first_and_last("run")
