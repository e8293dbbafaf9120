from itertools import chain, groupby

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from serein.frames.batches import plan_batches
from serein.nn.masking import sample_frame_mask
from serein.recipe import Finetune
from serein.train import finetune as module
from serein.train.adapt import fresh_adapter
from serein.train.finetune import finetune, in_batches
from serein.train.objectives import plain
from serein.train.study import changed
from serein.train.systems import fresh_classifier

TRAIN = torch.cat([torch.arange(12), torch.arange(16, 30)])  # of three classes 8, of the last 2
OTHER = {
    "epochs": 3, "batch_size": 6, "learning_rate": 1e-2, "head_learning_rate": 1e-3, "warmup": 0.3, "weight_decay": 0.5,
    "balance": "none", "copy_mask_ratio": 0.8, "frame_masking": 0.5, "head_dropout": 0.5, "label_smoothing": 0.3,
}  # fmt: skip


def weights_after(material, recipe, *changes):
    array, labels, config = material
    recipe = changed(recipe, ["finetune.epochs=2", *changes])
    model = fresh_classifier(config, recipe, fresh_adapter(config, array.moments(TRAIN), 0), 0)
    finetune(model, array, labels, TRAIN, recipe, classes=config.labels)
    return parameters_to_vector(model.parameters())


@pytest.fixture(scope="module")
def usual(material, tiny_recipe):
    return weights_after(material, tiny_recipe)


TASKS_OWN = {"min_steps", "label_share", "baseline_learning_rates"}


@pytest.mark.parametrize("name", sorted(set(Finetune.model_fields) - TASKS_OWN))
def test_every_setting_of_finetuning_reaches_it(usual, material, tiny_recipe, name):
    assert not weights_after(material, tiny_recipe, f"finetune.{name}={OTHER[name]}").equal(usual)


class Watched(nn.Module):
    """Answers by a bias alone; notes its mode at each call and, of each step, the sums of rows and which are masked."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.adapter = nn.Linear(1, 1)
        self.output = nn.Parameter(torch.zeros(classes))
        self.modes: list[bool] = []
        self.rows: list[list[float]] = []
        self.masked: list[bool] = []

    def forward(self, frames, padding_mask, frame_mask=None):
        self.modes.append(self.training)
        if frame_mask is not None:
            self.rows.append(frames.double().sum((1, 2, 3)).tolist())
            self.masked += frame_mask.any(1).tolist()
        return self.output.expand(len(frames), -1) + 0 * self.adapter.weight.sum()


def watched(material, recipe, *changes, **how):
    array, labels, config = material
    model = Watched(len(config.labels)).eval()
    finetune(model, array, labels, TRAIN, changed(recipe, changes), classes=config.labels, **how)
    return model


def test_batches_of_training_with_labels_are_of_mixed_lengths(material, tiny_recipe, monkeypatch):
    mixed = []

    def plan(*arguments, mixing=0, **how):
        mixed.append(mixing)
        return plan_batches(*arguments, mixing=mixing, **how)

    monkeypatch.setattr(module, "plan_batches", plan)
    watched(material, tiny_recipe, "finetune.epochs=2")
    assert mixed == [40] * 3  # how many batches an epoch has, then a plan an epoch


def test_a_model_trains_in_training_mode_and_is_validated_and_left_in_evaluation_mode(material, tiny_recipe):
    model = watched(material, tiny_recipe, "finetune.epochs=2", validation=torch.arange(64, 70))
    assert [training for training, _ in groupby(model.modes)] == [True, False, True, False]
    assert not model.training


def test_validation_says_unweighted_and_plain_accuracy(material, tiny_recipe):
    array, labels, config = material
    validation = torch.cat([torch.arange(64, 76), torch.arange(80, 90)])  # of the classes 8, 8, 6 and none
    model = Watched(len(config.labels))
    model.output.data[2] = 100.0  # whatever it hears, it answers the third class
    (row,) = [
        row
        for row in finetune(
            model, array, labels, TRAIN, changed(tiny_recipe, ["finetune.epochs=1"]), classes=config.labels,
            validation=validation,
        )
        if "validation_ua" in row
    ]  # fmt: skip
    assert labels[validation].bincount().tolist() == [8, 8, 6]
    assert (row["validation_ua"], row["validation_wa"]) == (pytest.approx(1 / 3), pytest.approx(6 / 22))


def test_masked_copies_are_hidden_in_part_and_what_they_copy_is_not(material, tiny_recipe):
    model = watched(material, tiny_recipe, "finetune.epochs=1")
    assert (len(model.masked), sum(model.masked)) == (4 * 8, 4 * 8 - len(TRAIN))


def test_every_epoch_shows_the_same_utterances_in_another_order(material, tiny_recipe):
    rows = watched(material, tiny_recipe, "finetune.epochs=2").rows
    first, second = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    assert sorted(chain(*first)) == pytest.approx(sorted(chain(*second)))
    assert first != second


def test_adapter_and_head_each_have_their_own_rate_on_one_schedule(material, tiny_recipe, monkeypatch):
    used, step = [], torch.optim.AdamW.step

    def watch(self, *arguments):
        used.append([(group["lr"], len(group["params"])) for group in self.param_groups])
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", watch)
    watched(material, tiny_recipe, "finetune.epochs=2")
    assert used[0] == [(3e-3, 2), (1e-2, 1)]
    for (adapter_rate, _), (head_rate, _) in used:
        assert head_rate / adapter_rate == pytest.approx(1e-2 / 3e-3)
    assert used[-1][0][0] < 3e-3 / 2


def test_class_weights_reach_the_objective(material, tiny_recipe):
    shown = []

    def watch(model, batch):
        shown.append(batch.weights.tolist())
        return plain(model, batch)

    watched(material, tiny_recipe, "finetune.balance=class-weights", "finetune.epochs=1", objective=watch)
    assert shown[0] == pytest.approx([26 / (4 * 8)] * 3 + [26 / (4 * 2)])


def test_another_seed_copies_other_utterances_and_hides_other_frames(material, tiny_recipe, monkeypatch):
    draws, copied = [], []
    for seed in range(4):
        keys = set()

        def watch(*arguments, generator, keys=keys, **how):
            keys.add(generator.initial_seed())
            return sample_frame_mask(*arguments, generator=generator, **how)

        monkeypatch.setattr(module, "sample_frame_mask", watch)
        rows = watched(material, tiny_recipe, "finetune.epochs=1", "finetune.frame_masking=0.3", seed=seed).rows
        copied.append(tuple(sorted(round(row, 3) for row in chain(*rows))))
        draws.append(keys)
    assert len(set.union(*draws)) == sum(map(len, draws))
    assert len(set(copied)) > 1


def test_answers_in_batches_keep_no_graph(material, tiny_recipe):
    array, _, config = material
    assert not in_batches(Watched(len(config.labels)), array, TRAIN, tiny_recipe.speed).requires_grad
