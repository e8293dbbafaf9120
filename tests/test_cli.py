import csv
import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple, TextIO
from unittest.mock import patch

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from serein import cli, terminal
from serein.arguments import relabel
from serein.corpus.corpus import Corpus, Utterance
from serein.corpus.readers.iemocap import FOUR_CLASSES
from serein.errors import ModelError, UsageError
from serein.frames.store import FrameStore
from serein.recipe import Recipe

COMMANDS = sorted(typer.main.get_command(cli.app).commands)


class Done(NamedTuple):
    code: int
    out: str
    err: str


def serein(*arguments: object) -> Done:
    """The console script in this process."""
    argv = ["serein", *map(str, arguments)]
    with written() as out, written() as err:
        with patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):  # noqa: SIM117
            with pytest.raises(SystemExit) as end:
                cli.main()
        return Done(end.value.code or 0, text_of(out), text_of(err))


def written() -> TextIO:
    return TemporaryFile("w+", encoding="utf-8")


def text_of(file: TextIO) -> str:
    file.seek(0)
    return file.read()


def in_a_process(*arguments: object, **environment: str) -> Done:
    done = subprocess.run(
        [sys.executable, "-m", "serein", *map(str, arguments)],
        capture_output=True, text=True, check=False, env=os.environ | environment,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


class Journey(NamedTuple):
    """What the main job left, step by step."""

    folder: Path
    steps: dict[str, Done]


@pytest.fixture(scope="module")
def journey(tones: Corpus, tiny_recipe: Recipe, tmp_path_factory) -> Journey:
    folder = tmp_path_factory.mktemp("journey")
    recipe = folder / "tiny.toml"
    recipe.write_text(tiny_recipe.to_toml(), encoding="utf-8")
    table = tones.utterances[0].path.parent / "tones.csv"
    names = "angry=aroused,happy=aroused,neutral=calm,sad=calm"
    recordings = [utterance.path for utterance in tones.utterances[:2]]
    crossval = ["crossval", folder / "frames", "--protocol", "sessions", "--recipe", recipe]
    commands = {
        "corpus": ["corpus", "table", table, "-o", folder / "corpus.csv", "--json"],
        "extract": ["extract", folder / "corpus.csv", "--encoder", "logmel", "--pool", 2, "-o", folder / "frames"],
        "linear": [*crossval, "--system", "linear", "--seeds", 2, "-o", folder / "linear"],
        "fresh": [*crossval, "--set", "adapt.data=none", "--set", "finetune.epochs=2", "-o", folder / "fresh"],
        "two": [*crossval, "--system", "linear", "--map", names, "-o", folder / "two"],
        "report": ["report", folder / "linear", folder / "fresh"],
        "adapt": ["adapt", folder / "frames", "--recipe", recipe, "-o", folder / "adapter"],
        "train": [
            "train", folder / "frames", "--adapter", folder / "adapter", "--recipe", recipe, "--map", names,
            "-o", folder / "model",
        ],
        "predict": ["predict", folder / "model", *recordings, "--json"],
        "predict in words": ["predict", folder / "model", *recordings],
    }  # fmt: skip
    return Journey(folder, {name: serein(*command) for name, command in commands.items()})


def test_the_main_job_goes_through(journey):
    for name, done in journey.steps.items():
        assert done.code == 0, (name, done.err)


def test_each_step_leaves_its_files(journey):
    left = {str(path.relative_to(journey.folder)) for path in journey.folder.rglob("*") if path.is_file()}
    assert {"corpus.csv", "frames/store.json", "frames/corpus.csv", "frames/shard-00000.safetensors"} <= left
    for run in ("linear", "fresh", "two"):
        assert {f"{run}/predictions.csv", f"{run}/run.json", f"{run}/protocol.json"} <= left
    assert {"linear/report.html", "linear/report.md", "linear/scores.json"} <= left
    assert {f"adapter/{name}" for name in ("config.json", "model.safetensors")} <= left
    assert {f"model/{name}" for name in ("config.json", "model.safetensors", "README.md")} <= left
    assert not [name for name in left if "checkpoint" in name or "partial" in name]


def test_json_is_one_document_on_stdout(journey, tones):
    found = json.loads(journey.steps["corpus"].out)
    assert (found["utterances"], found["broken"], found["gaps"]) == (96, [], [])
    predicted = json.loads(journey.steps["predict"].out)
    assert [result["path"] for result in predicted] == [str(utterance.path) for utterance in tones.utterances[:2]]
    for result in predicted:
        assert {score["label"] for score in result["scores"]} == {"aroused", "calm"}
    facts = json.loads(serein("doctor", "--json").out)
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))


def test_without_json_a_line_a_recording(journey, tones):
    first, second = journey.steps["predict in words"].out.splitlines()
    assert first.startswith(str(tones.utterances[0].path))
    assert re.search(r"  (aroused|calm) [01]\.\d{3}  (aroused|calm) [01]\.\d{3}$", second)


def test_the_run_remembers_the_command_the_labels_and_the_seeds(journey):
    said = json.loads((journey.folder / "linear" / "run.json").read_text())
    assert said["command"].startswith(f"serein crossval {journey.folder / 'frames'} --protocol sessions")
    assert said["seeds"] == [0, 1]
    assert json.loads((journey.folder / "two" / "protocol.json").read_text())["labels"] == ["aroused", "calm"]
    recipe = Recipe.read(journey.folder / "fresh" / "recipe.toml")
    assert (recipe.adapt.data, recipe.finetune.epochs, recipe.model.width) == ("none", 2, 16)


def test_scores_are_shown_with_their_protocol(journey):
    shown = journey.steps["linear"].out
    assert re.search(r"protocol sessions \(\w+\)", shown)
    assert "UA" in shown
    assert "report.html" in journey.steps["report"].err
    assert "no test score" in journey.steps["train"].err


def test_progress_off_a_terminal_is_one_json_line_an_event(journey):
    stages = {"corpus": "scan", "extract": "extract", "linear": "crossval", "adapt": "adapt", "train": "refit"}
    for step, stage in stages.items():
        events = [json.loads(line) for line in journey.steps[step].err.splitlines() if line.startswith("{")]
        (*_, last) = [event for event in events if event["stage"] == stage]
        assert last["done"] == last["total"]
    assert not journey.steps["extract"].out


def test_a_stage_speaks_once_a_second_and_at_its_end():
    now = [0.0]
    with written() as stream:
        report = terminal._events(stream, clock=lambda: now[0])
        for done in range(1, 41):
            report("adapt", done, 40, {"loss": 0.5})
            now[0] += 0.25
        events = [json.loads(line) for line in text_of(stream).splitlines()]
    assert [event["done"] for event in events] == [*range(1, 38, 4), 40]
    assert events[0] == {"stage": "adapt", "done": 1, "total": 40, "loss": 0.5}


def test_a_terminal_gets_bars():
    with written() as stream:
        stream.isatty = lambda: True
        with patch.dict(os.environ, {"TERM": "xterm", "COLUMNS": "100"}), terminal.progress(stream) as report:
            report("adapt", 3, 12, {"loss": 0.123456, "fold": "session-1"})
            report("adapt", 12, 12, {"loss": 0.1, "fold": "session-1"})
            report("crossval", 1, 3, {})
        drawn = text_of(stream)
    assert "12/12" in drawn
    assert "loss 0.1 fold session-1" in drawn
    assert "1/3" in drawn
    assert "{" not in drawn


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example(command):
    shown = CliRunner().invoke(cli.app, [command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert shown.exit_code == 0
    assert f"Example: serein {command}" in shown.output.replace("`", "")


def test_doctor_shows_versions():
    shown = serein("doctor")
    assert shown.code == 0
    assert {"torch", "transformers", "python", "processor"} <= set(re.findall(r"\w+", shown.out))


@pytest.fixture
def partly_broken(tones: Corpus, tmp_path: Path) -> Path:
    """A table in which one of the recordings is none."""
    (tmp_path / "broken.wav").write_bytes(b"RIFF and nothing else")
    first, *others = tones.utterances
    table = tmp_path / "table.csv"
    replace(tones, utterances=(replace(first, path=tmp_path / "broken.wav"), *others)).to_csv(table)
    return table


def test_one_broken_recording_is_named_and_the_others_are_done(journey, partly_broken, tones, tmp_path):
    broken, good = tmp_path / "broken.wav", tones.utterances[1].path
    done = serein("predict", journey.folder / "model", broken, good, "--json")
    assert done.code == 3
    first, second = json.loads(done.out)
    assert "broken.wav" in first["error"]
    assert len(second["scores"]) == 2
    assert "failed: " in done.err

    done = serein("corpus", "table", partly_broken, "-o", tmp_path / "out.csv", "--json")
    assert done.code == 3
    (named,) = json.loads(done.out)["broken"]
    assert named["id"] == tones.utterances[0].id
    assert len(Corpus.from_csv(tmp_path / "out.csv")) == 95

    done = serein("corpus", "table", partly_broken, "-o", tmp_path / "out.csv")
    assert done.code == 3
    assert f"broken: {tones.utterances[0].id}: " in done.err
    assert re.search(r"all +23 +24 +24 +24 +95", done.out.replace("│", " "))

    done = serein("extract", partly_broken, "--encoder", "logmel", "-o", tmp_path / "frames")
    assert done.code == 3
    assert f"without frames: {tones.utterances[0].id}: " in done.err
    assert len(FrameStore(tmp_path / "frames").ids) == 95


def test_duplicates_and_doubts_about_a_corpus_are_told(tones, tmp_path):
    twin = tmp_path / "twin.wav"
    twin.write_bytes(tones.utterances[0].path.read_bytes())
    table = tmp_path / "table.csv"
    replace(tones, utterances=(*tones.utterances, replace(tones.utterances[0], id="twin", path=twin))).to_csv(table)
    done = serein("corpus", "table", table, "-o", tmp_path / "out.csv")
    assert f"same audio: {tones.utterances[0].id}, twin" in done.err


def test_a_corpus_of_real_release_is_compared_with_what_was_published(tmp_path):
    folder = tmp_path / "RAVDESS" / "Actor_01"
    folder.mkdir(parents=True)
    for name in ("03-01-05-01-01-01-01", "03-01-04-01-01-01-01"):
        soundfile.write(folder / f"{name}.wav", [0.1, -0.1] * 8000, 16_000)
    done = serein("corpus", "ravdess", folder.parent, "-o", tmp_path / "out.csv", "--map", "angry=angry,sad=sad")
    assert "differs from the published corpus: " in done.err
    assert "error: " in done.err
    assert done.code == 4  # one talker judges nothing


def a_table(folder: Path, *rows: list[str]) -> Path:
    with (folder / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "table.csv"


def test_wrong_words_end_with_2(journey, tmp_path):
    frames = journey.folder / "frames"
    for said, arguments in {
        "No such command": ["conquer"],
        "Missing option": ["extract", "table.csv"],
        "no reader for 'timit'": ["corpus", "timit", ".", "-o", "x.csv"],
        "write whole numbers": ["extract", "x.csv", "--encoder", "logmel", "-o", "f", "--layers", "2;3"],
        "write old=new": ["crossval", frames, "--protocol", "sessions", "-o", "r", "--map", "exc"],
        "write table.key=value": ["adapt", frames, "-o", "a", "--set", "epochs"],
        "keys: width": ["adapt", frames, "-o", "a", "--set", "model.depth=3"],
        "recipe cannot be read": ["train", frames, "-o", "m", "--recipe", tmp_path / "absent.toml"],
        "folds": ["crossval", frames, "--protocol", "emobox", "-o", "r"],
        "there are linear, superb, ": ["crossval", frames, "--protocol", "sessions", "--system", "svm", "-o", "r"],
        "no such device": ["adapt", frames, "-o", tmp_path / "a", "--set", "speed.device=toaster"],
    }.items():
        done = serein(*arguments)
        assert done.code == 2, arguments
        assert said in done.err, arguments
        assert not done.out


def test_the_next_step_after_an_adapter_is_of_the_same_recipe(tone_store, tiny_recipe, tmp_path):
    recipe = tmp_path / "a recipe.toml"
    recipe.write_text(tiny_recipe.to_toml(), encoding="utf-8")
    asked = ["--recipe", recipe, "--set", "adapt.epochs=1", "--set", "finetune.epochs=1"]
    done = serein("adapt", tone_store.folder, *asked, "-o", tmp_path / "adapter")
    (line,) = re.findall("^Next: serein (.*)$", done.err, re.MULTILINE)
    _, frames, *given = shlex.split(line)
    assert frames == str(tone_store.folder)
    assert given[:-2] == [*map(str, ["--adapter", tmp_path / "adapter", *asked])]
    assert serein("train", frames, *given[:-1], tmp_path / "model").code == 0


def test_a_linear_probe_is_trained_and_predicts(tone_store, tones, tmp_path, monkeypatch):
    done = serein("train", tone_store.folder, "--system", "linear", "-o", tmp_path / "model")
    assert re.search(r"The model: .*model \(C 0\.\d+, validation UA [01]\.\d{3}: no test score\)", done.err)
    answer = serein("predict", tmp_path / "model", tones.utterances[0].path)
    assert answer.code == 0
    assert "angry" in answer.out
    monkeypatch.setattr("serein.hub.push_model", lambda *_, **__: "there")
    assert "Next: serein predict ann/it recording.wav\n" in serein("push", tmp_path / "model", "ann/it").err


@pytest.mark.parametrize(("temperature", "warned"), [(0.25, 1), (8.0, 1), (7.9, 0), (1.0, 0)])
def test_a_temperature_at_its_bound_is_warned_of(tone_store, tiny_recipe, tmp_path, monkeypatch, temperature, warned):
    names = ("validation_ua", "calibration_error_before", "calibration_error_after")
    facts = {"epochs": 6, "temperature": temperature, "collapsed": False, **dict.fromkeys(names, 0.5)}
    monkeypatch.setattr("serein.train.ship.train_model", lambda *_, **__: facts)
    done = serein("train", tone_store.folder, "--set", "finetune.epochs=1", "-o", tmp_path / "model")
    assert done.err.count("warning: the temperature is at its bound") == warned


def test_a_collapse_is_warned_of(tone_store, tmp_path, monkeypatch):
    names = ("validation_ua", "calibration_error_before", "calibration_error_after")
    facts = {"epochs": 6, "temperature": 1.0, "collapsed": True, **dict.fromkeys(names, 0.5)}
    monkeypatch.setattr("serein.train.ship.train_model", lambda *_, **__: facts)
    monkeypatch.setattr("serein.train.adapter_folder.adapt_store", lambda *_, **__: "its spread fell")
    for command in ("adapt", "train"):
        done = serein(command, tone_store.folder, "-o", tmp_path / command)
        assert "warning: training without labels collapsed" in done.err


def test_a_table_is_not_written_over_itself(partly_broken, tmp_path):
    before = partly_broken.read_bytes()
    (tmp_path / "link.csv").symlink_to(partly_broken)
    for output in (partly_broken, tmp_path / "." / "link.csv"):
        done = serein("corpus", "table", partly_broken, "-o", output)
        assert done.code == 2
        assert f"{output}: is what is read; give another place with -o" in done.err
    assert partly_broken.read_bytes() == before


def test_an_adapter_is_not_written_over_by_the_model_made_of_it(journey, tmp_path):
    adapter = tmp_path / "adapter"
    shutil.copytree(journey.folder / "adapter", adapter)
    before = (adapter / "config.json").read_bytes()
    done = serein("train", journey.folder / "frames", "--adapter", adapter, "-o", adapter)
    assert (done.code, (adapter / "config.json").read_bytes()) == (2, before)
    assert "is what is read" in done.err


@pytest.fixture
def mended(tmp_path: Path) -> Path:
    """A table of two talkers, one of whom is heard in channels that cancel, the other in nothing but silence."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000)
    soundfile.write(tmp_path / "cancel.wav", np.stack([noise, -noise], axis=1), 16_000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(16_000), 16_000)
    rows = [["id", "path", "talker", "emotion"], ["c", "cancel.wav", "a", "sad"], ["s", "silent.wav", "b", "angry"]]
    return a_table(tmp_path, *rows)


def test_what_had_to_be_mended_in_a_recording_is_told(journey, mended, tmp_path):
    cancel, silent = tmp_path / "cancel.wav", tmp_path / "silent.wav"
    done = serein("corpus", "table", mended, "-o", tmp_path / "out.csv")
    assert re.search(r"warning: c: the channels cancel", done.err)
    assert re.search(r"warning: s: silence", done.err)
    told = json.loads(serein("corpus", "table", mended, "-o", tmp_path / "out.csv", "--json").out)["mended"]
    assert told.keys() == {"c", "s"}

    model = journey.folder / "model"
    done = serein("predict", model, cancel, silent)
    assert f"warning: {cancel}: the channels cancel" in done.err
    assert f"warning: {silent}: silence" in done.err
    answers = json.loads(serein("predict", model, cancel, silent, "--json").out)
    assert [answer["warnings"] for answer in answers] == [told["c"], told["s"]]

    done = serein("timeline", model, cancel, "--format", "json")
    assert json.loads(done.out)["warnings"] == told["c"]
    assert "warning: the channels cancel" in done.err


def test_speech_without_labels_is_fit_for_adapter_training(tones, tiny_recipe, tmp_path):
    nobody = replace(tones, utterances=tuple(replace(u, emotion="") for u in tones.utterances[:12]))
    nobody.to_csv(tmp_path / "speech.csv")
    done = serein("corpus", "table", tmp_path / "speech.csv", "-o", tmp_path / "out.csv")
    assert (done.code, "No utterance has an emotion: for adapter training only" in done.err) == (0, True)
    assert serein("extract", tmp_path / "out.csv", "--encoder", "logmel", "-o", tmp_path / "frames").code == 0
    (tmp_path / "r.toml").write_text(tiny_recipe.to_toml(), encoding="utf-8")
    done = serein("adapt", tmp_path / "frames", "--recipe", tmp_path / "r.toml", "-o", tmp_path / "adapter")
    assert done.code == 0
    assert next_line(done)[:3] == ["serein", "train", "frames-with-labels/"]


@pytest.mark.parametrize(
    ("part", "options", "told"),
    [
        ("model", [], "predict ann/it recording.wav"),
        ("model", ["--revision", "trial"], "predict ann/it recording.wav --revision trial"),
        ("adapter", [], "train frames/ --adapter ann/it -o model/"),
        ("adapter", ["--revision", "trial"], None),
    ],
)
def test_after_a_push_comes_what_can_be_done_with_it(journey, monkeypatch, part, options, told):
    monkeypatch.setattr("serein.hub.push_model", lambda *_, **__: "there")
    done = serein("push", journey.folder / part, "ann/it", *options)
    assert done.code == 0
    assert ("Next:" in done.err) == (told is not None)
    assert told is None or f"Next: serein {told}\n" in done.err


OUTPUTS = {
    "demo": ("folder", ["demo"]),
    "corpus": ("file", ["corpus", "table", "CORPUS"]),
    "extract": ("folder", ["extract", "CORPUS", "--encoder", "logmel"]),
    "adapt": ("folder", ["adapt", "FRAMES"]),
    "crossval": ("folder", ["crossval", "FRAMES", "--protocol", "sessions"]),
    "benchmark": ("folder", ["benchmark", "FRAMES", "--protocol", "sessions", "--systems", "linear"]),
    "ablate": ("folder", ["ablate", "FRAMES", "ablation.toml", "--protocol", "sessions"]),
    "inflation": ("folder", ["inflation", "FRAMES", "--protocol", "sessions"]),
    "train": ("folder", ["train", "FRAMES"]),
    "ensemble": ("folder", ["ensemble", "RUN"]),
    "import": ("folder", ["import", "TABLE", "--like", "RUN", "--name", "x"]),
    "layers": ("folder", ["layers", "CORPUS", "--encoder", "logmel"]),
    "attributes": ("folder", ["attributes", "FRAMES", "ADAPTER"]),
    "timeline": ("file", ["timeline", "MODEL", "a.wav"]),
    "export": ("file", ["export", "MODEL"]),
}


def test_every_command_that_writes_stands_here():
    commands = typer.main.get_command(cli.app).commands
    writes = {name for name, command in commands.items() if any("-o" in option.opts for option in command.params)}
    assert writes == OUTPUTS.keys()


@pytest.mark.parametrize("command", OUTPUTS)
def test_an_output_that_cannot_be_made_is_refused_before_any_work(tmp_path, command):
    kind, arguments = OUTPUTS[command]
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    taken = tmp_path / ("file" if kind == "folder" else "folder")
    under = tmp_path / "file" / "new" / "name"
    said = f"is a {taken.name}; give a {kind}"
    for output, words in ((taken, said), (under, f"{tmp_path / 'file'} is a file, no folder; give another path")):
        done = serein(*arguments, "-o", output)
        assert (done.code, done.err) == (2, f"serein: -o {output}: {words}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("command", ["train", "timeline"])
def test_an_output_whose_name_is_not_utf8_is_refused_before_any_work(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    done = serein(*OUTPUTS[command][1], "-o", os.fsdecode(b"caf\xe9"))
    assert done.code == 2
    assert done.err.startswith("serein: -o 'caf\\udce9': is not UTF-8")


def test_a_pipe_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    done = serein("timeline", "MODEL", "a.wav", "-o", tmp_path / "pipe")
    assert (done.code, done.err) == (2, f"serein: -o {tmp_path / 'pipe'}: is a device or a pipe; give a file\n")


def test_a_folder_that_may_not_be_written_to_is_told_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == tmp_path and mode == os.W_OK))
    for output in (tmp_path, tmp_path / "model", tmp_path / "new" / "model"):
        done = serein("train", "FRAMES", "-o", output)
        assert (done.code, done.err) == (
            2,
            f"serein: -o {output}: {tmp_path} may not be written to; give another path\n",
        )


REFUSED = {
    OSError(errno.ENOSPC, "No space left on device", "a.csv"): "a.csv: No space left on device; make room, then",
    OSError(errno.ENOSPC, "No space left on device"): "No space left on device; make room, then",
    PermissionError(errno.EACCES, "Permission denied", ".x", None, "x"): "x: Permission denied; change its permissions",
    IsADirectoryError(errno.EISDIR, "Is a directory", "x"): "x: Is a directory; a file is where a folder has to be",
    MemoryError(): "not enough memory (MemoryError); in training try --set",
    RuntimeError("CUDA out of memory.\nTried to"): "not enough memory (CUDA out of memory. Tried to); in training",
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you"): "not enough memory (DefaultCPUAllocator: can't",
    OSError("the\nnetwork"): "the network; `serein --debug ...` shows where",
    ConnectionError(): "ConnectionError; `serein --debug ...` shows where",
}


@pytest.mark.parametrize("error", REFUSED, ids=repr)
def test_what_the_system_refuses_is_one_line_and_a_traceback_needs_debug(monkeypatch, error):
    def fail() -> None:
        raise error

    monkeypatch.setattr("serein.train.machine.environment", fail)
    done = serein("doctor")
    assert done.code == 1
    assert done.err.startswith(f"serein: {REFUSED[error]}")
    assert done.err.count("\n") == 1
    with patch.object(sys, "argv", ["serein", "--debug", "doctor"]), pytest.raises(type(error)):
        cli.main()


def test_who_closes_the_pipe_is_told_nothing():
    there, here = os.pipe()
    os.close(there)
    with os.fdopen(here, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "serein", "doctor"], stdout=closed, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_at_stdout_is_one_line():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "serein", "doctor", "--json"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        1,
        "serein: No space left on device; make room, then give the same command again\n",
    )


def test_a_name_that_is_no_text_costs_no_recording(journey, tones, tmp_path):
    recordings = recordings_with_strange_names(tones, tmp_path)
    words = in_a_process("predict", journey.folder / "model", *recordings, PYTHONIOENCODING="ascii:strict")
    assert (words.code, words.err) == (0, "")
    assert len(words.out.splitlines()) == 3
    assert r"bad\udcff.wav  " in words.out


def test_a_name_that_is_no_text_stands_in_json(journey, tones, tmp_path):
    recordings = recordings_with_strange_names(tones, tmp_path)
    document = in_a_process("predict", journey.folder / "model", *recordings, "--json", PYTHONIOENCODING="utf-8:strict")
    assert [result["path"] for result in json.loads(document.out)] == [*map(str, recordings)]


def recordings_with_strange_names(tones: Corpus, folder: Path) -> list[Path]:
    names = [os.fsdecode(b"bad\xff.wav"), "\U0001f600 \xfc.wav"]
    for name in names:
        (folder / name).write_bytes(tones.utterances[0].path.read_bytes())
    return [tones.utterances[1].path, *(folder / name for name in names)]


def test_names_that_a_map_gets_wrong_are_told(tone_store, tmp_path):
    crossval = ["crossval", tone_store.folder, "--protocol", "sessions", "--system", "linear", "-o", tmp_path / "run"]
    for label_map, said in {
        "angry=angry,hapy=happy,sadd=sad": "tones has no emotion hapy, sadd; it has angry, happy, neutral, sad",
        "happy=joy,sad=sad,happy=happy": "renames happy twice; leave one of them",
        "sad=sad, sad = sad,happy=happy": "renames sad twice; leave one of them",
    }.items():
        done = serein(*crossval, "--map", label_map)
        assert (done.code, done.err) == (2, f"serein: --map {label_map}: {said}\n")
    assert not (tmp_path / "run").exists()


def test_a_map_may_spell_its_accents_in_two_ways():
    corpus = Corpus("deutsch", (Utterance("a", Path("a.wav"), "1", "m\u00fcde"),))
    assert relabel(corpus, "mu\u0308de=tired").labels == ("tired",)


IEMOCAP_MAP = "ang=angry,exc=happy,hap=happy,neu=neutral,sad=sad"


def test_the_map_of_a_release_may_be_given_to_a_part_of_it():
    part = Corpus("iemocap", tuple(Utterance(label, Path(label), "01F", label) for label in ("ang", "fru", "hap")))
    assert relabel(part, IEMOCAP_MAP, release="iemocap").labels == ("angry", "happy")
    with pytest.raises(UsageError, match=r"iemocap has no emotion exc, neu, sad; it has ang, fru, hap$"):
        relabel(part, IEMOCAP_MAP)
    with pytest.raises(UsageError, match=r"iemocap has no emotion hapy; it has ang, fru, hap$"):
        relabel(part, f"{IEMOCAP_MAP},hapy=happy", release="iemocap")
    with pytest.raises(UsageError, match="has no emotion session 1"):
        relabel(part, "session 1=happy", release="iemocap")


def test_every_map_on_the_pages_is_of_a_release():
    root = Path(__file__).parents[1]
    pages = [root / "README.md", *root.glob("docs/*.md"), *root.rglob("recipes/**/*.toml")]
    shown = {label_map for page in pages for label_map in re.findall(r"--map (\w+=\S+)", page.read_text("utf-8"))}
    assert shown == {IEMOCAP_MAP}
    assert dict(pair.split("=") for pair in IEMOCAP_MAP.split(",")) == FOUR_CLASSES


def next_line(done: Done) -> list[str]:
    (line,) = re.findall("^Next: (serein .*)$", done.err, re.MULTILINE)
    return shlex.split(line)


def test_the_next_command_can_be_pasted_whatever_a_folder_is_called(tone_store, tiny_recipe, tmp_path, monkeypatch):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(tiny_recipe.to_toml(), encoding="utf-8")
    linear = ["crossval", tone_store.folder, "--protocol", "sessions", "--system", "linear", "--seeds", 2]
    ours = tmp_path / "a run"
    assert next_line(serein(*linear, "-o", ours)) == ["serein", "report", str(ours)]
    both = tmp_path / "our committee"
    assert next_line(serein("ensemble", ours, "-o", both)) == ["serein", "report", str(both)]
    model = tmp_path / "a model"
    trained = serein("train", tone_store.folder, "--recipe", recipe, "--set", "finetune.epochs=1", "-o", model)
    assert next_line(trained) == ["serein", "predict", str(model), "recording.wav"]

    def graph(_: str, output: Path, **__: object) -> float:
        output.write_bytes(b"a graph")
        return 0.0

    monkeypatch.setattr("serein.export.export_model", graph)
    exported = serein("export", model, "--with-encoder", "-o", tmp_path / "a model.onnx")
    assert next_line(exported) == ["serein", "predict", str(tmp_path / "a model.onnx"), "recording.wav"]
    monkeypatch.setattr("serein.demo.demo", lambda *_, **__: (tmp_path / "report.html", [ours]))
    assert next_line(serein("demo", "-o", tmp_path / "the demo"))[:3] == [
        "serein",
        "train",
        str(tmp_path / "the demo" / "frames"),
    ]


def test_what_is_missing_is_told_with_the_command_that_makes_it(tone_store, tmp_path):
    absent = tmp_path / "absent"
    for arguments in (
        ["attributes", tone_store.folder, absent, "-o", tmp_path / "page"],
        ["train", tone_store.folder, "--adapter", absent, "-o", tmp_path / "model"],
    ):
        done = serein(*arguments)
        assert done.code == 5
        assert "`serein adapt` an adapter's" in done.err


@pytest.mark.parametrize("command", [["serve"], ["timeline", "a.wav"]], ids=lambda command: command[0])
def test_a_graph_is_for_predict_alone(tmp_path, command):
    (tmp_path / "model.onnx").write_bytes(b"a graph")
    done = serein(command[0], tmp_path / "model.onnx", *command[1:])
    assert done.code == 5
    assert "is a file; give the model's folder" in done.err
    assert "only `serein predict` reads .onnx" in done.err


def test_a_model_is_no_encoder(journey, tmp_path):
    done = serein("extract", journey.folder / "corpus.csv", "--encoder", journey.folder / "model", "-o", tmp_path / "f")
    assert done.code == 5
    assert (
        "model: is a serein model, not an encoder; --encoder takes a Hub id, a transformers folder or logmel"
        in done.err
    )


def test_views_and_unlabelled_speech_go_through_the_command_line(journey, tmp_path):
    table, recipe, frames = journey.folder / "corpus.csv", journey.folder / "tiny.toml", journey.folder / "frames"
    strangers = []
    for utterance in Corpus.from_csv(table).utterances[::12]:
        samples, rate = soundfile.read(utterance.path)
        strangers.append(replace(utterance, path=tmp_path / utterance.path.name, audio_hash=""))
        soundfile.write(strangers[-1].path, samples / 2, rate)
    other = tmp_path / "other.csv"
    Corpus("other", tuple(strangers)).to_csv(other)
    extract = ["extract", "--encoder", "logmel", "--pool", 2]
    crossval = [
        "crossval", frames, "--protocol", "sessions", "--recipe", recipe, "--set", "finetune.epochs=1",
        "--set", "adapt.epochs=1", "--view", tmp_path / "slow", "--unlabelled", tmp_path / "other",
    ]  # fmt: skip
    for command in (
        [*extract, table, "--speed", 0.9, "-o", tmp_path / "slow"],
        [*extract, other, "-o", tmp_path / "other"],
        [*crossval, "-o", tmp_path / "run"],
        [*crossval, "--set", "adapt.data=elsewhere", "-o", tmp_path / "elsewhere"],
        ["train", frames, "--recipe", recipe, "--set", "finetune.epochs=1", "--set", "adapt.epochs=1",
         "--view", tmp_path / "slow", "-o", tmp_path / "model"],
        ["report", tmp_path / "run", tmp_path / "elsewhere"],
    ):  # fmt: skip
        done = serein(*command)
        assert done.code == 0, (command, done.err)
    assert json.loads((tmp_path / "slow" / "store.json").read_text())["speed"] == 0.9
    said = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (said["views"], said["unlabelled"]) == (
        [f"speed 0.9, corpus {json.loads((tmp_path / 'slow' / 'store.json').read_text())['corpus']['hash']}"],
        [json.loads((tmp_path / "other" / "store.json").read_text())["corpus"]["name"]],
    )
    predicted = (tmp_path / "run" / "predictions.csv").read_text().splitlines()[1:]
    assert len(predicted) == 96
    assert not any("@" in row.split(",")[0] for row in predicted)
    assert (tmp_path / "model" / "model.safetensors").exists()
    refused = serein(*crossval[:-4], "--set", "adapt.data=elsewhere", "-o", tmp_path / "refused")
    assert refused.code == 2
    assert "--unlabelled" in refused.err
    for unheard in (["--set", "adapt.data=none"], ["--system", "linear"]):
        refused = serein(*crossval, *unheard, "-o", tmp_path / "refused")
        assert (refused.code, "--unlabelled: is heard by the system adapter alone" in refused.err) == (2, True)
    judged = serein("crossval", tmp_path / "slow", "--protocol", "sessions", "-o", tmp_path / "refused")
    assert judged.code == 4
    assert "a view of a corpus (--view)" in judged.err


def test_log_mel_frames_beside_the_corpus_and_its_views_go_through_the_command_line(journey, tmp_path):
    extract = ["extract", journey.folder / "corpus.csv", "--encoder", "logmel"]
    slow = ["--speed", "0.9"]
    crossval = [
        "crossval", journey.folder / "frames", "--protocol", "sessions", "--system", "co-att",
        "--recipe", journey.folder / "tiny.toml", "--set", "finetune.epochs=1", "-o", tmp_path / "run",
        "--view", tmp_path / "slow",
    ]  # fmt: skip
    for command in (
        [*extract, "--pool", 2, *slow, "-o", tmp_path / "slow"],
        [*extract, "-o", tmp_path / "mel"],
        [*extract, *slow, "-o", tmp_path / "slow-mel"],
        [*crossval, "--beside", tmp_path / "mel", "--beside", tmp_path / "slow-mel"],
    ):
        done = serein(*command)
        assert done.code == 0, (command, done.err)
    said = json.loads((tmp_path / "run" / "run.json").read_text())["beside"]
    assert [facts.split(", ")[1] for facts in said] == ["speed 1", "speed 0.9"]
    refused = serein(*crossval, "--beside", tmp_path / "mel")
    assert refused.code == 2
    assert "give --beside for the corpus, and for each --view in their order (2 in all, here are 1)" in refused.err
    unheard = serein(*crossval, "--system", "superb", "--beside", tmp_path / "mel")
    assert (unheard.code, "--beside: is heard by the system co-att alone" in unheard.err) == (2, True)
    turned = serein(*crossval, "--beside", tmp_path / "slow-mel", "--beside", tmp_path / "mel")
    assert turned.code == 4
    missing = serein(*crossval, "--beside", tmp_path / "mel", "--beside", tmp_path / "nowhere")
    assert missing.code == 4
    assert "is not a frame store" in missing.err


def test_bad_data_end_with_4(tmp_path, tones):
    for said, arguments in {
        "no column 'emotion'": ["corpus", "table", a_table(tmp_path, ["id", "path", "talker"]), "-o", "x.csv"],
        "cannot be read": ["extract", tmp_path / "absent.csv", "--encoder", "logmel", "-o", tmp_path / "f"],
        "is not a frame store": ["adapt", tmp_path, "-o", tmp_path / "a"],
        "run.json": ["report", tmp_path],
    }.items():
        done = serein(*arguments)
        assert done.code == 4, arguments
        assert said in done.err
        assert done.err.startswith("serein: ")


def test_missing_models_end_with_5(journey, tmp_path):
    table = journey.folder / "corpus.csv"
    for arguments in (
        ["predict", tmp_path / "absent", "a.wav"],
        ["predict", journey.folder / "adapter", "a.wav"],
        ["extract", table, "--encoder", tmp_path / "absent", "-o", tmp_path / "f"],
        ["train", journey.folder / "frames", "--adapter", tmp_path / "absent", "-o", tmp_path / "m"],
    ):
        done = serein(*arguments)
        assert done.code == 5, done.err
        assert 1 <= len(done.err.splitlines()) <= 2


def test_a_traceback_needs_debug(tmp_path):
    argv = ["serein", "--debug", "predict", str(tmp_path), "a.wav"]
    with patch.object(sys, "argv", argv), pytest.raises(ModelError, match="is not a model folder"):
        cli.main()


def test_a_program_that_fails_says_so_in_one_line(tmp_path):
    plain = in_a_process("report", tmp_path)
    assert plain.code == 4
    assert re.fullmatch(
        r"serein: .*run\.json: cannot be read .* is .* a run folder of `serein crossval`\?\n", plain.err
    )
    assert not plain.out
    full = in_a_process("--debug", "report", tmp_path)
    assert full.code != 0
    assert "Traceback" in full.err
    assert "CorpusError" in full.err


def test_the_help_groups_the_commands_in_the_order_in_which_a_person_goes():
    shown = in_a_process("--help", COLUMNS="100").out
    panels = re.findall(r"╭─ (\w+(?: \w+)*) ─", shown)
    assert panels == ["Options", "Start", "Make frames", "Train", "Judge", "Look", "Use"]
    last = re.findall(r"^│ (\w+) ", shown.split("╭─ Use ")[1], re.MULTILINE)
    assert last == ["predict", "timeline", "serve", "export", "push"]


def test_without_a_command_the_help_is_shown():
    done = in_a_process(COLUMNS="200")
    assert set(COMMANDS) <= set(re.findall(r"\w+", done.out + done.err))
