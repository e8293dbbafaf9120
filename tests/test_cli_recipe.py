from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from serein import cli
from serein.cli_recipe import choose_recipe
from serein.errors import UsageError
from serein.frames.store import FrameStore
from serein.recipe import Recipe
from serein.train import adapter_folder, crossval, machine, ship, study

CPU = "speed.device=cpu"
SAID = "no --recipe: the paper's 100 epochs at width 384; on a CPU take --recipe recipes/laptop.toml\n"
OF_A_HEAD = "no --recipe: the paper's 100 epochs; on a CPU take --recipe recipes/laptop.toml\n"


@pytest.fixture
def untrained(monkeypatch):
    """Commands come as far as to their training."""

    def stop(*_, **__):
        raise UsageError("here it would train")

    monkeypatch.setattr(adapter_folder, "adapt_store", stop)
    monkeypatch.setattr(ship, "train_model", stop)
    monkeypatch.setattr(crossval, "cross_validate", stop)
    monkeypatch.setattr(study, "run_study", stop)


def serein(command: str, frames: Path, *options: object) -> Result:
    done = CliRunner().invoke(cli.app, [command, *map(str, (frames, "-o", "out", "--set", CPU, *options))])
    assert str(done.exception) == "here it would train", done.output
    return done


SESSIONS = ("--protocol", "sessions")
COMMANDS = {
    "adapt": (),
    "train": (),
    "crossval": SESSIONS,
    "inflation": SESSIONS,
    "benchmark": (*SESSIONS, "--systems", "linear,adapter:none"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_hours_on_a_cpu_that_nobody_asked_for_are_told(untrained, tone_store: FrameStore, tmp_path, command):
    options = COMMANDS[command]
    assert serein(command, tone_store.folder, *options).stderr == SAID
    (tmp_path / "paper.toml").write_text(Recipe().to_toml(), encoding="utf-8")
    assert serein(command, tone_store.folder, *options, "--recipe", tmp_path / "paper.toml").stderr == ""


@pytest.mark.parametrize("command", ["crossval", "inflation"])
def test_the_linear_probe_has_no_epochs_to_tell_of(untrained, tone_store: FrameStore, command):
    assert serein(command, tone_store.folder, *SESSIONS, "--system", "linear").stderr == ""


@pytest.mark.parametrize("systems", [("superb",), ("linear", "superb")])
def test_heads_without_an_adapter_have_no_width_to_tell_of(capsys, systems):
    choose_recipe(None, [CPU], systems)
    assert capsys.readouterr().err == OF_A_HEAD


@pytest.mark.parametrize("change", ["model.width=96", "adapt.epochs=6", "finetune.epochs=6"])
def test_who_sets_the_size_of_a_training_knows_it(capsys, change):
    assert choose_recipe(None, [CPU, change]) == Recipe.from_toml("", [CPU, change])
    assert capsys.readouterr().err == ""


def test_a_gpu_needs_no_warning(capsys, monkeypatch):
    monkeypatch.setattr(machine, "pick_device", torch.device)
    choose_recipe(None, ["speed.device=cuda"])
    assert capsys.readouterr().err == ""
