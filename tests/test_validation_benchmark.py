import numpy as np
import pytest
import validation

from serein.errors import UsageError


class Ran:
    folder, name = "runs/mine", "mine"

    def __init__(self, *fold_runs):
        self.fold_runs = fold_runs


class FoldRan:
    def __init__(self, seed, *scores, **choice):
        self.seed, self.choice = seed, choice
        self.history = {"finetune": {"validation_ua": np.array(scores)}} if scores else {}


def test_it_is_the_mean_over_folds_of_each_folds_best_epoch():
    nan = float("nan")  # every step has a row, and the last of an epoch a score
    run = Ran(FoldRan(0, nan, 0.4, nan, 0.6), FoldRan(0, nan, 0.8, nan, 0.7), FoldRan(1, nan, 0.1, nan, 0.2))
    assert validation.mean_best(run, 0) == pytest.approx(0.7)
    assert validation.mean_best(run, 1) == pytest.approx(0.2)


def test_a_system_without_epochs_is_refused():
    with pytest.raises(UsageError, match="mine has no epochs"):
        validation.mean_best(Ran(FoldRan(0)), 0)


def test_the_rates_that_folds_chose_are_counted_seed_by_seed():
    folds = [FoldRan(0, 0.5, epochs=2, learning_rate=rate) for rate in (1e-2, 3e-3, 1e-2)]
    run = Ran(*folds, FoldRan(1, 0.5, epochs=2))
    assert (validation.rates(run, 0), validation.rates(run, 1)) == ("0.003: 1, 0.01: 2", "")
