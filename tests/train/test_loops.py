import ctypes
import json
import platform
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open

from serein.errors import Diverged, SereinError, StoreError, UsageError
from serein.frames.batches import FrameArray
from serein.recipe import Recipe
from serein.train import machine
from serein.train.adapt import adapt, collapse, fresh_adapter
from serein.train.checkpoint import Checkpoint
from serein.train.finetune import _class_weights, balanced_examples, best_row, finetune, in_batches
from serein.train.machine import (
    Stage,
    _state,
    autocast,
    environment,
    generator,
    keep_freed_memory,
    peak_memory_bytes,
    pick_device,
    seed_globally,
)
from serein.train.systems import fresh_classifier


def equal(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(tensor.equal(theirs[name]) for name, tensor in ours.items())


def interrupted(checkpoint: Checkpoint, at: int):
    """A report that stops the loop after step ``at``, as a kill would, just after a checkpoint."""

    def report(stage, done, total, facts):
        if done == at:
            raise KeyboardInterrupt

    return report


@pytest.mark.parametrize("at", [1, 7, 15])
def test_adapter_training_continues_from_any_step_to_the_same_bits(material, tiny_recipe, tmp_path, at):
    array, _, config = material
    everyone = torch.arange(len(array.ids))
    recipe = tiny_recipe.model_copy(update={"model": tiny_recipe.model.model_copy(update={"dropout": 0.2})})
    config = config.model_copy(update={"model": recipe.model})
    whole = adapt(array, everyone, config, recipe, seed=5)
    checkpoint = Checkpoint(tmp_path / "adapt.safetensors", seconds=0.0)
    with pytest.raises(KeyboardInterrupt):
        adapt(array, everyone, config, recipe, seed=5, checkpoint=checkpoint, report=interrupted(checkpoint, at))
    continued = adapt(array, everyone, config, recipe, seed=5, checkpoint=checkpoint)
    assert equal(whole.adapter, continued.adapter)
    assert equal(whole.attributes, continued.attributes)
    assert whole.history == continued.history
    other = adapt(array, everyone, config, recipe, seed=6)
    assert not equal(whole.adapter, other.adapter)


@pytest.mark.parametrize("at", [1, 9])
def test_finetuning_continues_from_any_step_to_the_same_bits(material, tiny_recipe, tmp_path, at):
    array, labels, config = material
    settings = tiny_recipe.finetune.model_copy(update={"epochs": 2, "frame_masking": 0.3, "head_dropout": 0.2})
    recipe = tiny_recipe.model_copy(update={"finetune": settings})
    everyone = torch.arange(len(array.ids))

    def once(checkpoint=None, report=None):
        model = fresh_classifier(config, recipe, fresh_adapter(config, array.moments(everyone), 5), 5)
        how = {"classes": config.labels, "validation": everyone, "seed": 5, "checkpoint": checkpoint}
        if report is not None:
            with pytest.raises(KeyboardInterrupt):
                finetune(model, array, labels, everyone, recipe, report=report, **how)
            return model, []
        return model, finetune(model, array, labels, everyone, recipe, **how)

    whole, history = once()
    checkpoint = Checkpoint(tmp_path / "finetune.safetensors", seconds=0.0)
    once(checkpoint, interrupted(checkpoint, at))
    continued, continued_history = once(checkpoint)
    assert equal(whole, continued)
    assert history == continued_history


def test_adapter_training_does_not_look_at_labels_or_other_talkers(material, tiny_recipe):
    array, _, config = material
    some = torch.arange(0, 32)
    loud = FrameArray(array.ids, array.flat.clone(), array.lengths, array.frame_rate)
    loud.flat[int(array.lengths[:32].sum()) :] = 100.0
    assert equal(adapt(array, some, config, tiny_recipe).adapter, adapt(loud, some, config, tiny_recipe).adapter)


def test_every_step_writes_the_health_of_the_training(material, tiny_recipe):
    array, _, config = material
    adapted = adapt(array, torch.arange(40), config, tiny_recipe)
    assert len(adapted.history) > 4
    for row in adapted.history:
        assert row["stage"] == "adapt"
        assert 0 < row["perplexity"] <= 1
        assert 0 <= row["usage"] <= 1
        assert 0 <= row["agreement"] <= 1
        assert row["gradient_norm"] > 0
        assert row["teacher_spread"] > 0
    weights = [row["reconstruction_weight"] for row in adapted.history]
    assert weights[0] == 1.0
    assert weights[-1] == 0.5
    assert weights == sorted(weights, reverse=True)
    assert adapted.collapse == ""


@pytest.mark.parametrize("hand_on", ["teacher", "student"])
def test_adapter_training_that_diverges_in_its_last_step_is_told(material, tiny_recipe, hand_on):
    array, _, config = material
    changes = ["adapt.epochs=1", "adapt.batch_size=1000", "adapt.learning_rate=1e39", f'adapt.hand_on="{hand_on}"']
    recipe = Recipe.from_toml(tiny_recipe.to_toml(), changes)
    with pytest.raises(Diverged, match=r"adapt: a weight is .* after the last step.* \(learning_rate 1e\+39\); try"):
        adapt(array, torch.arange(8), config, recipe)


def test_handing_on_the_student_gives_other_weights_than_the_teacher(material, tiny_recipe):
    array, _, config = material
    handed = [
        adapt(array, torch.arange(40), config, tiny_recipe.model_copy(update={"adapt": settings})).adapter
        for settings in (tiny_recipe.adapt, tiny_recipe.adapt.model_copy(update={"hand_on": "student"}))
    ]
    assert not equal(*handed)
    assert all(parameter.requires_grad for adapter in handed for parameter in adapter.parameters())


def test_a_collapse_is_said():
    rows = [{"teacher_spread": 1.0, "usage": 0.9}] * 10
    assert collapse(rows) == ""
    assert collapse([]) == ""
    assert "spread fell from 1 to 0.05" in collapse([*rows, *[{"teacher_spread": 0.05, "usage": 0.9}] * 10])
    assert "4.0% of the attributes" in collapse([*rows, *[{"teacher_spread": 1.0, "usage": 0.04}] * 10])
    late = [{"teacher_spread": 1.0, "usage": 0.9}] * 18 + [{"teacher_spread": 0.05, "usage": 0.9}] * 2
    assert "spread fell from 1 to 0.05" in collapse(late)  # the last tenth is the last two
    assert collapse(late[:-1]) == ""
    assert "to nan" in collapse([*rows, *[{"teacher_spread": float("nan"), "usage": 0.9}] * 10])


def test_minority_classes_come_as_masked_copies_until_all_are_even():
    indices = torch.arange(10, 20)
    labels = torch.tensor([0] * 6 + [1] * 3 + [3])
    examples = balanced_examples(indices, labels, generator(0))
    shown = labels[examples.indices - 10]
    assert torch.bincount(shown, minlength=4).tolist() == [6, 6, 0, 6]
    assert examples.indices[~examples.copies].equal(indices)
    assert examples.copies.sum() == 3 + 5


@pytest.mark.parametrize("balance", ["none", "class-weights", "masked-copies"])
def test_every_way_of_balancing_learns_the_tones(material, tiny_recipe, balance):
    array, labels, config = material
    settings = tiny_recipe.finetune.model_copy(update={"balance": balance})
    recipe = tiny_recipe.model_copy(update={"finetune": settings})
    train = torch.cat([torch.arange(0, 12), torch.arange(16, 28), torch.arange(32, 64)])  # of the last class half
    model = fresh_classifier(config, recipe, fresh_adapter(config, array.moments(train), 0), 0)
    history = finetune(model, array, labels, train, recipe, classes=config.labels, validation=torch.arange(64, 96))
    scored = [row for row in history if "validation_ua" in row]
    assert len(scored) == settings.epochs
    assert max(row["validation_ua"] for row in scored) > 0.6
    assert best_row(history)["validation_ua"] == max(row["validation_ua"] for row in scored)


def test_the_best_epoch_is_the_earliest_of_the_best():
    rows = [{"epoch": e, "validation_ua": ua} for e, ua in enumerate([0.2, 0.7, 0.7, 0.5])]
    assert best_row([{"epoch": 0}, *rows]) == rows[1]


def test_answers_come_in_the_asked_order_however_they_were_batched(material, tiny_recipe):
    array, _, _ = material

    def mean(frames, padding_mask):
        return (frames.sum(1) / (~padding_mask).sum(1)[:, None, None]).flatten(1)

    asked = torch.tensor([50, 3, 77, 12, 90])
    together = in_batches(mean, array, asked, tiny_recipe.speed)
    alone = in_batches(mean, array, asked, tiny_recipe.speed, budget=1)
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(together, array.pooled(asked)[:, 0].flatten(1), atol=1e-4)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    checkpoint = Checkpoint(tmp_path / "c.safetensors", seconds=0.0)
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    assert checkpoint.restore(module, optimizer) == (0, [])
    checkpoint.save_if_due(module, optimizer, 3, [{"step": 2}])
    other = torch.nn.Linear(4, 2)
    with pytest.raises(StoreError, match="does not fit"):
        checkpoint.restore(other, torch.optim.AdamW(other.parameters()))
    with safe_open(checkpoint.path, framework="pt") as file:
        assert json.loads(file.metadata()["serein"])["step"] == 3
    checkpoint.remove()
    assert not checkpoint.path.exists()
    Checkpoint(None).save(module, optimizer, 1, [])


def test_a_checkpoint_is_written_only_when_due(tmp_path):
    checkpoint = Checkpoint(tmp_path / "c.safetensors", seconds=3600.0)
    module = torch.nn.Linear(3, 2)
    checkpoint.save_if_due(module, torch.optim.AdamW(module.parameters()), 1, [])
    assert not checkpoint.path.exists()


def test_draws_depend_on_the_whole_key():
    keys = [(0, Stage.ADAPT, 1), (0, Stage.ADAPT, 2), (1, Stage.ADAPT, 1), (0, Stage.FINETUNE, 1)]
    assert len({torch.rand(1, generator=generator(*key)).item() for key in keys}) == 4


@pytest.mark.parametrize(("multiplies", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_bfloat16_where_the_hardware_multiplies_it(monkeypatch, multiplies, dtype):
    monkeypatch.setattr(machine, "_multiplies_bf16", lambda device: multiplies)
    with autocast(torch.device("cpu"), "auto"):
        assert torch.nn.Linear(4, 4)(torch.randn(2, 4)).dtype is dtype


def test_devices_and_precisions():
    assert pick_device("auto").type in ("cpu", "cuda")
    with pytest.raises(UsageError, match="no such device"):
        pick_device("toaster")
    if not torch.cuda.is_available():
        for name in ("cuda", "xpu", "meta", "cuda:7"):
            with pytest.raises(UsageError, match="no such device"):
                pick_device(name)
    assert pick_device("cpu").type == "cpu"
    linear = torch.nn.Linear(4, 4)
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with autocast(torch.device("cpu"), precision):
            assert linear(torch.randn(2, 4)).dtype is dtype


def test_bfloat16_trains_to_losses_near_those_of_float32_and_to_others(material, tiny_recipe):
    array, labels, config = material
    everyone = torch.arange(24)
    losses = {}
    for precision in ("float32", "bfloat16"):
        recipe = replace_speed(tiny_recipe, precision)
        adapted = adapt(array, everyone, config, recipe)
        model = fresh_classifier(config, recipe, fresh_adapter(config, array.moments(everyone), 0), 0)
        history = finetune(model, array, labels, everyone, recipe, classes=config.labels)
        logits = in_batches(fresh_classifier(config, recipe, adapted.adapter, 0).eval(), array, everyone, recipe.speed)
        losses[precision] = [[row["loss"] for row in rows] for rows in (adapted.history, history)] + [
            logits.flatten().tolist()
        ]
    for exact, rounded in zip(*losses.values(), strict=True):
        assert exact != rounded
        assert rounded == pytest.approx(exact, rel=0.05, abs=0.05)


def replace_speed(recipe: Recipe, precision: str) -> Recipe:
    return recipe.model_copy(update={"speed": recipe.speed.model_copy(update={"precision": precision})})


def test_the_environment_names_versions_and_memory_is_counted():
    facts = environment()
    assert facts["torch"] == torch.__version__
    assert facts["threads"] >= 1
    assert peak_memory_bytes(torch.device("cpu")) > 50_000_000


def test_the_environment_is_known_under_an_older_torch(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert environment()["processor"]


def test_a_checkpoint_holds_a_history_of_any_length(tmp_path):
    checkpoint = Checkpoint(tmp_path / "c.safetensors")
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    headers = set()
    for steps in (100, 9_000):  # safetensors' header, which ends at 100 MB, does not grow with them
        history = [{"step": step, "loss": 0.5} for step in range(steps)]
        checkpoint.save(module, optimizer, 7, history)
        assert checkpoint.restore(module, optimizer) == (7, history)
        headers.add(int.from_bytes(checkpoint.path.read_bytes()[:8], "little") // 100)
    assert len(headers) == 1


def test_class_weights_are_even_shares_and_nothing_for_a_class_that_nobody_has(tiny_recipe):
    settings = tiny_recipe.finetune.model_copy(update={"balance": "class-weights"})
    weights = _class_weights(torch.tensor([0, 0, 0, 2]), 3, settings)
    assert weights.tolist() == pytest.approx([4 / (2 * 3), 0.0, 4 / (2 * 1)])


def test_a_diverged_training_stops_and_says_so(material, tiny_recipe):
    array, _, config = material
    broken = FrameArray(array.ids, torch.full_like(array.flat, torch.nan), array.lengths, array.frame_rate)
    with pytest.raises(SereinError, match="adapt: the loss is nan at step 0"):
        adapt(broken, torch.arange(8), config, tiny_recipe)


def test_checkpoints_count_the_seconds_before_a_kill(tmp_path):
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    first = Checkpoint(tmp_path / "c.safetensors", seconds=0.0)
    first._before = 100.0
    first.save(module, optimizer, 1, [])
    second = Checkpoint(tmp_path / "c.safetensors")
    second.restore(module, optimizer)
    assert 100.0 <= second.spent() < 160.0


def test_streams_of_different_purposes_differ():
    from_generator = torch.rand(4, generator=generator(0, 2))
    seed_globally(0, 2)
    assert not torch.rand(4).equal(from_generator)
    assert not torch.rand(4, generator=generator(0, 2, 0)).equal(from_generator)


def test_the_global_stream_is_torchs_own_for_its_seed():
    seed_globally(3, 1, 4)
    drawn = torch.rand(4)
    torch.manual_seed(_state(1, (3, 1, 4)))
    assert torch.rand(4).equal(drawn)


class Glibc:
    """Notes what is asked of it; a threshold above ``most`` it refuses."""

    def __init__(self, most: int) -> None:
        self.most, self.asked = most, []

    def mallopt(self, parameter: int, value: int) -> int:
        self.asked.append((parameter, value))
        return int(value <= self.most)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has glibc")
def test_an_old_glibc_is_asked_for_what_it_takes_and_never_for_half_of_it(monkeypatch):
    threshold, trim, cpu = -3, -1, torch.device("cpu")
    for most, asked in {
        2**40: [(threshold, 2**30), (trim, -1)],
        2**25: [(threshold, 2**30), (threshold, 2**25), (trim, -1)],  # before 2.35
        0: [(threshold, 2**30), (threshold, 2**25)],
    }.items():
        library = Glibc(most)
        monkeypatch.setattr(ctypes, "CDLL", lambda name, library=library: library)
        keep_freed_memory(cpu)
        assert library.asked == asked
    library = Glibc(2**40)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    keep_freed_memory(torch.device("cuda"))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # no glibc
    keep_freed_memory(cpu)
    assert library.asked == []


def test_both_trainings_ask_for_it(material, tiny_recipe, monkeypatch):
    array, labels, config = material
    asked = []
    for loop in ("adapt", "finetune"):
        monkeypatch.setattr(f"serein.train.{loop}.keep_freed_memory", lambda device, loop=loop: asked.append(loop))
    adapted = adapt(array, torch.arange(8), config, tiny_recipe)
    finetune(
        fresh_classifier(config, tiny_recipe, adapted.adapter, 0), array, labels, torch.arange(8), tiny_recipe,
        classes=config.labels,
    )  # fmt: skip
    assert asked == ["adapt", "finetune"]


MEMORY = """
import sys, torch
from serein.train.machine import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory(torch.device("cpu"))
block = torch.ones(2**26)  # 256 MiB
del block
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) // 1024)
"""


def glibc() -> tuple[int, ...]:
    """Its version, (0, 0) where another C library is used."""
    name, version = platform.libc_ver()
    return tuple(map(int, version.split(".")[:2])) if name == "glibc" else (0, 0)


@pytest.mark.skipif(glibc() < (2, 35), reason="older ones take no threshold as large")
def test_what_a_step_frees_is_there_for_the_next():
    command = [sys.executable, "-c", MEMORY]
    given, kept = (int(subprocess.check_output([*command, way])) for way in ("given back", "kept"))  # MiB
    assert kept - given > 200
