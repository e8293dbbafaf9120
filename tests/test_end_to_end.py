import json
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

import serein.demo
from serein import cli
from serein.evaluate.runs import load_run

BRIEF = """
[model]
width = 16
blocks = 1
heads = 2
[adapt]
epochs = 1
attributes = 16
[finetune]
epochs = 2
learning_rate = 3e-3
head_learning_rate = 1e-2
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    pytest.importorskip("espeakng_loader", reason="the demo speaks with eSpeak NG: pip install 'serein[demo]'")
    folder = tmp_path_factory.mktemp("demo")
    argv = ["serein", "demo", "--utterances", "8", "-o", str(folder)]
    with (
        patch.object(serein.demo, "RECIPE", BRIEF),
        patch.object(sys, "argv", argv),
        pytest.raises(SystemExit) as end,
    ):
        cli.main()
    assert not end.value.code
    return folder


def test_the_demo_leaves_a_corpus_frames_three_runs_and_their_report(folder):
    assert len(list((folder / "corpus" / "wav").glob("*.wav"))) == 80
    assert (folder / "frames" / "store.json").exists()
    runs = {path.name: load_run(path) for path in (folder / "runs").iterdir()}
    assert {name: run.adapter_training for name, run in runs.items()} == {
        "linear": "none",
        "adapter-none": "none",
        "adapter-inductive": "inductive",
    }
    for run in runs.values():
        assert run.synthetic
        assert run.protocol.name == "sessions"
        assert len(run.predictions) == 80
    assert len({run.protocol.hash for run in runs.values()}) == 1


def test_the_report_compares_them_and_warns_that_no_people_speak(folder):
    place = folder / "runs" / "adapter-inductive"
    page = (place / "report.html").read_text(encoding="utf-8")
    for words in ("SYNTHETIC VOICES", "Linear probe", "Adapter, fresh", "Comparison"):
        assert words.lower() in page.lower()
    scores = json.loads((place / "scores.json").read_text(encoding="utf-8"))
    assert [other["name"] for other in scores["others"]] == ["linear probe", "adapter, fresh"]
    assert all(other["minus_first"] for other in scores["others"])


def test_calling_it_again_changes_nothing(folder):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    stages, said = set(), []
    with patch.object(serein.demo, "RECIPE", BRIEF):
        page, runs = serein.demo.demo(
            folder, utterances_per_talker=8, say=said.append, report=lambda stage, *_: stages.add(stage)
        )
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert not stages & {"adapt", "finetune", "refit"}
    assert page == runs[-1] / "report.html"
    assert [text[:3] for text in said] == ["1/4", "2/4", "3/4", "4/4"]
