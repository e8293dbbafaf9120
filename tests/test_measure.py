import json
import sys
from pathlib import Path

import measure
import torch

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "measure.py"


def test_sides_alternate_and_the_first_round_is_not_measured():
    called = []
    seconds = measure.alternate({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 3)
    assert called == ["a", "b"] * 4
    assert [len(values) for values in seconds.values()] == [3, 3]


def test_a_ratio_is_that_of_the_medians_and_its_spread_that_of_the_rounds():
    assert measure.summary([4.0, 1.0, 2.0]) == {"median": 2.0, "lowest": 1.0, "highest": 4.0}
    found = measure.ratio([2.0, 8.0, 6.0], [1.0, 2.0, 4.0])
    assert found == {"median": 3.0, "lowest": 1.5, "highest": 4.0}


def test_peaks_are_those_of_the_threads_asked_for():
    before = torch.get_num_threads()
    try:
        found = measure.peaks(1, size=256, repeats=2)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert found.keys() == {"fp32", "bf16"}
    assert all(value > 0.1 for value in found.values())


def test_a_process_of_its_own_answers_in_json(tmp_path):
    script = tmp_path / "echo.py"
    script.write_text("import json, os, sys; print(json.dumps([os.getpid(), sys.argv[1:]]))")
    process, words = measure.own_process(str(script), "--row", "x")
    assert words == ["--row", "x"]
    assert process != measure.own_process(str(script))[0]


def test_a_result_says_how_it_was_made_and_a_quick_one_replaces_no_real_one(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/home/somebody/benchmarks/name.py", "--threads", "2"])
    path = measure.write("name", {"seconds": 1.5}, tmp_path)
    assert path == tmp_path / "name.json"
    said = json.loads(path.read_text())
    assert said["command"] == "python benchmarks/name.py --threads 2"
    assert said["seconds"] == 1.5
    assert said["machine"]["torch"] == torch.__version__.split("+")[0] or said["machine"]["torch"] == torch.__version__
    measure.write("name", {"seconds": 0.1}, tmp_path, quick=True)
    assert json.loads(path.read_text())["seconds"] == 1.5
    assert json.loads((tmp_path / "quick" / "name.json").read_text())["seconds"] == 0.1


def test_a_goal_is_held_against_its_limit_before_it_is_rounded():
    assert measure.goal(0.7198, at_least=0.72) == {"is": 0.7198, "at least": 0.72, "met": False}
    assert measure.goal(0.03, at_most=0.03) == {"is": 0.03, "at most": 0.03, "met": True}


def test_options_that_every_benchmark_has():
    args = measure.parser("What it measures.\n\nMore.").parse_args(["--quick"])
    assert (args.quick, args.threads, args.results) == (True, 2, SCRIPT.parent / "results")
