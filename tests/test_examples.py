import csv
import io
import json
import os
import re
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import soundfile

from serein.corpus.corpus import Corpus
from serein.errors import SereinError
from serein.frames.audio import load_audio
from serein.frames.store import FrameStore
from serein.recipe import Recipe
from serein.recognizer import EmotionRecognizer
from serein.train.ship import train_model

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str):
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))[name.removesuffix("_microphone")]


@pytest.fixture(scope="module")
def model(tone_store: FrameStore, tiny_recipe: Recipe, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    train_model(tone_store, tone_store.corpus(), folder, tiny_recipe)
    return str(folder)


@pytest.fixture(scope="module")
def call(tones: Corpus, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("call") / "call.flac"
    voices = [load_audio(utterance.path) for utterance in tones.utterances[:8]]
    soundfile.write(path, np.concatenate([*voices, np.zeros(32_000, dtype=np.float32)]), 16_000)
    return path


def test_a_folder_becomes_a_table_and_a_broken_file_costs_nothing_else(model, tones, tmp_path, capsys):
    for utterance in tones.utterances[:3]:
        (tmp_path / utterance.path.name).write_bytes(utterance.path.read_bytes())
    (tmp_path / os.fsdecode(b"caf\xe9.wav")).write_bytes(tones.utterances[3].path.read_bytes())
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    (tmp_path / "notes.txt").write_text("not asked for")
    assert example("classify_folder")(model, tmp_path, tmp_path / "table.csv") == 1
    assert "broken.wav" in capsys.readouterr().err
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    names = [utterance.path.name for utterance in tones.utterances[:3]]
    assert sorted(row["path"] for row in rows) == sorted([*names, r"caf\udce9.wav"])
    rows = [row for row in rows if row["path"] in names]
    best = EmotionRecognizer.from_pretrained(model)(tmp_path / rows[0]["path"])[0]
    assert (rows[0]["emotion"], rows[0][best["label"]]) == (best["label"], f"{best['score']:.4f}")


def test_a_call_becomes_a_table_a_label_track_and_a_picture(model, call, tmp_path):
    example("call_timeline")(model, call, tmp_path / "call.2026-11-30")
    expected = EmotionRecognizer.from_pretrained(model).timeline(call)
    assert (tmp_path / "call.2026-11-30.csv").read_text() == expected.to_csv()
    assert (tmp_path / "call.2026-11-30.txt").read_text() == expected.to_audacity()
    assert (tmp_path / "call.2026-11-30.png").read_bytes().startswith(b"\x89PNG")


def test_live_samples_draw_what_the_timeline_of_the_same_sound_says(model, call, capsys):
    samples = load_audio(call)
    drawn = example("live_microphone")(model, io.BytesIO(samples.astype("<f4").tobytes()), 1.0, 0.5)
    expected = EmotionRecognizer.from_pretrained(model).timeline(call, 1.0, 0.5)
    assert drawn == len(expected.windows) > 3
    text = capsys.readouterr().out
    assert text.count("silence") == sum(window.silent for window in expected.windows) > 0
    assert text.count("█") > drawn


def test_a_pipe_may_end_within_a_sample(model, call):
    raw = load_audio(call).astype("<f4").tobytes()
    live = example("live_microphone")
    assert live(model, io.BytesIO(raw[:64_003]), 1.0, 0.5) == live(model, io.BytesIO(raw[:64_000]), 1.0, 0.5) == 1
    assert live(model, io.BytesIO(b"\0\0"), 1.0, 0.5) == 0


def test_a_table_of_ones_own_becomes_a_report_and_a_model(tones, tiny_recipe, tmp_path, capfd):
    unlabelled = tones.talkers[:3]  # no talkers to divide, though there are three with labels
    mine = (replace(u, emotion="") if u.talker in unlabelled else u for u in tones)
    Corpus("mine", tuple(mine)).to_csv(tmp_path / "mine.csv")
    folder = example("own_corpus")(tmp_path / "mine.csv", tmp_path / "mine", "logmel", [0], 2, tiny_recipe)
    assert (tmp_path / "mine" / "run" / "report.html").exists()
    shown = capfd.readouterr()
    assert "What to expect" in shown.out
    assert re.search(r"\d\d\.\d \[\d+\.\d, \d+\.\d\]", shown.out)  # UA and its interval
    stages = {json.loads(line)["stage"] for line in shown.err.splitlines() if line.startswith("{")}
    assert stages >= {"scan", "extract", "crossval", "refit"}
    assert EmotionRecognizer.from_pretrained(folder).labels == ("angry", "happy", "neutral", "sad")


def program(name: str, *arguments: object) -> int:
    """The example as it is run from the command line; its exit code."""
    with patch.object(sys, "argv", [name, *map(str, arguments)]), pytest.raises(SystemExit) as end:
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return end.value.code


def test_examples_end_with_one_line_and_its_exit_code(model, tmp_path, capfd):
    absent = tmp_path / "absent"
    for arguments, code, said in (
        (["classify_folder", absent, tmp_path, "-o", tmp_path / "a.csv"], 5, "absent: is no folder here"),
        (["call_timeline", model, absent, "-o", tmp_path / "call"], 4, "absent: does not exist"),
        (["live_microphone", absent], 5, "absent: is no folder here"),
        (["own_corpus", absent, "--encoder", "logmel", "-o", tmp_path], 4, "absent: cannot be read"),
    ):
        assert program(*arguments) == code
        (line,) = capfd.readouterr().err.splitlines()
        assert said in line


def test_layers_that_are_no_numbers_are_told(tmp_path, capfd):
    assert program("own_corpus", tmp_path / "mine.csv", "--encoder", "logmel", "--layers", "a", "-o", tmp_path) == 2
    assert "argument --layers: invalid" in capfd.readouterr().err


def test_the_folder_of_the_output_is_made(model, call, tmp_path):
    example("classify_folder")(model, tmp_path, tmp_path / "no" / "table.csv")
    assert (tmp_path / "no" / "table.csv").exists()
    example("call_timeline")(model, call, tmp_path / "nor" / "call")
    assert (tmp_path / "nor" / "call.csv").exists()


def test_a_folder_is_no_name_of_three_files(tmp_path, capfd):
    assert program("call_timeline", "nobody", tmp_path / "call.wav", "-o", ".") == 2
    assert "give the name that the three files are to have" in capfd.readouterr().err


def test_a_folder_is_no_table(tmp_path, capfd):
    assert program("classify_folder", tmp_path / "absent", tmp_path, "-o", tmp_path) == 2
    assert "is a folder; give a file" in capfd.readouterr().err


def test_a_folder_that_is_not_there_is_no_empty_table(model, tmp_path, capfd):
    assert program("classify_folder", model, tmp_path / "absent", "-o", tmp_path / "table.csv") == 2
    assert "absent: no folder" in capfd.readouterr().err
    assert not (tmp_path / "table.csv").exists()


def test_examples_fail_with_an_error_that_teaches(tmp_path):
    with pytest.raises(SereinError, match="serein train"):
        example("classify_folder")(str(tmp_path), tmp_path, tmp_path / "table.csv")
