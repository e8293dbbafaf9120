import pytest
import torch
from torch.nn.utils import parameters_to_vector

from serein.errors import SereinError
from serein.frames.batches import plan_batches
from serein.recipe import Adapt
from serein.train import adapt as module
from serein.train.adapt import adapt, fresh_adapter, read, take_step
from serein.train.machine import generator
from serein.train.schedules import cosine
from serein.train.study import changed

SOME = torch.arange(24)
OTHER = {
    "epochs": 3, "batch_size": 6, "learning_rate": 1e-2, "warmup": 0.3, "weight_decay": 0.5, "mask_ratio": 0.6,
    "mask_span": 3.0, "ema_decay": 0.5, "target_norm": "layer", "attributes": 8, "attribute_decay": 0.5,
    "attribute_eta": 0.2, "revive_below": 0.9, "similarity": "distance", "temperature": 0.5,
    "reconstruction_start": 0.8, "reconstruction_end": 0.1, "hand_on": "student",
}  # fmt: skip


def row(step: int, loss: float) -> dict[str, object]:
    return {"step": step, "learning_rate": 0.1, "loss": torch.tensor(loss), "revived": torch.tensor(step)}


def test_rows_of_several_steps_are_read_at_once():
    assert read([row(4, 0.5), row(5, 0.25)]) == [
        {"step": 4, "learning_rate": 0.1, "loss": 0.5, "revived": 4},
        {"step": 5, "learning_rate": 0.1, "loss": 0.25, "revived": 5},
    ]


def test_the_step_that_diverged_is_named_even_if_it_is_read_later():
    with pytest.raises(SereinError, match="adapt: the loss is nan at step 5"):
        read([row(4, 0.5), row(5, float("nan")), row(6, float("nan"))])


def weights_after(material, recipe, *changes, seed=0):
    array, _, config = material
    return parameters_to_vector(adapt(array, SOME, config, changed(recipe, changes), seed=seed).adapter.parameters())


@pytest.fixture(scope="module")
def usual(material, tiny_recipe):
    return weights_after(material, tiny_recipe)


@pytest.mark.parametrize("name", sorted(set(Adapt.model_fields) - {"data"}))  # which decides whom it hears
def test_every_setting_of_adapter_training_reaches_it(usual, material, tiny_recipe, name):
    assert not weights_after(material, tiny_recipe, f"adapt.{name}={OTHER[name]}").equal(usual)


def test_the_teacher_is_handed_on_unless_the_student_is_asked_for(material, tiny_recipe):
    array, _, config = material
    start = parameters_to_vector(fresh_adapter(config, array.moments(SOME), 3).parameters())
    for hand_on, stays in (("teacher", True), ("student", False)):
        changes = ["adapt.ema_decay=1.0", f"adapt.hand_on={hand_on}"]  # a teacher that never follows
        assert weights_after(material, tiny_recipe, *changes, seed=3).equal(start) == stays


@pytest.fixture
def steps(monkeypatch):
    """What each step is given: learning rate, lambda, the sum of its frames, and the seed of its draws."""
    given = []

    def watch(distillation, optimizer, batch, recipe, weight, draws):
        (group,) = optimizer.param_groups
        given.append((group["lr"], weight, batch.frames.double().sum().item(), draws.initial_seed()))
        return take_step(distillation, optimizer, batch, recipe, weight, draws)

    monkeypatch.setattr(module, "take_step", watch)
    return given


def test_every_step_is_taken_as_the_history_tells_it(material, tiny_recipe, steps):
    array, _, config = material
    history = adapt(array, SOME, config, tiny_recipe).history
    assert [step[:2] for step in steps] == [(row["learning_rate"], row["reconstruction_weight"]) for row in history]


def test_the_learning_rate_falls_along_one_cosine_over_all_epochs(material, tiny_recipe):
    array, _, config = material
    recipe = changed(tiny_recipe, ["adapt.warmup=0.25", "adapt.epochs=2"])
    history, highest = adapt(array, SOME, config, recipe).history, recipe.adapt.learning_rate
    assert {row["epoch"] for row in history} == {0, 1}
    assert [row["learning_rate"] for row in history] == pytest.approx(
        [cosine(step, len(history), highest, warmup=0.25) for step in range(len(history))]
    )


def test_batches_of_training_without_labels_are_of_one_length(material, tiny_recipe, monkeypatch):
    given = []

    def plan(*arguments, **how):
        given.append(how)
        return plan_batches(*arguments, **how)

    monkeypatch.setattr(module, "plan_batches", plan)
    adapt(material[0], SOME, material[2], tiny_recipe)
    assert given
    assert all(how.get("mixing", 0) == 0 for how in given)


def test_the_loss_of_every_step_is_eq_6_of_its_parts(material, tiny_recipe):
    array, _, config = material
    for row in adapt(array, SOME, config, tiny_recipe).history:
        weight = row["reconstruction_weight"]
        expected = weight * row["reconstruction"] + (1 - weight) * row["pseudo_cross_entropy"]
        assert row["loss"] == pytest.approx(expected, rel=1e-5)


def test_another_epoch_or_seed_has_another_order_and_other_draws(material, tiny_recipe, steps):
    array, _, config = material
    for seed in (0, 1):
        adapt(array, torch.arange(36), config, tiny_recipe, seed=seed)
    _, _, frames, draws = zip(*steps, strict=True)
    assert len(set(draws)) == len(draws)
    epoch = len(frames) // 4  # two seeds of two epochs
    assert len({frames[start : start + epoch] for start in range(0, len(frames), epoch)}) == 4


def test_gradients_do_not_pile_up_over_steps(material, tiny_recipe):
    array, _, config = material
    recipe = changed(tiny_recipe, ["adapt.ema_decay=1.0"])
    distillation = module._distillation(fresh_adapter(config, array.moments(SOME), 0), recipe.adapt).train()
    optimizer = torch.optim.SGD(distillation.student.parameters(), 0.0)
    first, *others = (
        take_step(distillation, optimizer, array.batch(SOME), recipe, 1.0, generator(0))["gradient_norm"]
        for _ in range(3)
    )
    assert others == [first, first]
