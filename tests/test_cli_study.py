import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from serein.cli_study import study
from serein.errors import UsageError
from serein.evaluate.runs import load_run
from serein.frames.encoder import load_encoder
from serein.frames.extract import extract


def serein(*arguments: object) -> Result:
    """The commands as `serein` joins them to its own: without a name."""
    app = typer.Typer()
    app.callback()(lambda: None)
    app.add_typer(study)
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_recipe) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    (folder / "tiny.toml").write_text(tiny_recipe.to_toml(), encoding="utf-8")
    (folder / "ablation.toml").write_text(
        'title = "Blocks"\nbase = "tiny.toml"\n'
        '[[variant]]\nname = "one"\nset = ["model.blocks=1"]\n'
        '[[variant]]\nname = "two"\nset = ["model.blocks=2"]\n',
        encoding="utf-8",
    )
    return folder


@pytest.fixture(scope="module")
def benchmark(place, tone_store) -> Result:
    return serein(
        "benchmark", tone_store.folder, "--protocol", "sessions", "--systems", "linear, adapter:none", "--seeds", 1,
        "--recipe", place / "tiny.toml", "--set", "finetune.epochs=1", "-o", place / "benchmark",
    )  # fmt: skip


@pytest.fixture(scope="module")
def inflation(place, tone_store) -> Result:
    return serein(
        "inflation", tone_store.folder, "--protocol", "sessions", "--system", "linear", "--seeds", 1,
        "-o", place / "inflation",
    )  # fmt: skip


def words(shown: Result) -> str:
    return " ".join(shown.stdout.replace("│", " ").split())


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


PAGE = {"study.json", "study.html", "study.md", "scores.json", "figures"}


def test_a_benchmark_leaves_its_runs_and_its_page(place, benchmark):
    assert benchmark.exit_code == 0, benchmark.output
    assert files(place / "benchmark") == PAGE | {"linear", "adapter-none"}
    assert [path.name for path in (place / "benchmark" / "figures").iterdir()] == ["study.svg"]
    run = load_run(place / "benchmark" / "adapter-none")
    assert (run.adapter_training, run.seeds) == ("none", (0,))
    assert 'data = "none"' in run.recipe
    assert "Systems on tones, protocol sessions" in words(benchmark)
    assert "adapter:none" in words(benchmark)
    assert "study.html" in benchmark.stderr


def test_a_benchmark_with_co_att_hears_log_mel_frames_beside(place, tone_store, tones):
    mel = extract(tones, load_encoder("logmel"), place / "mel")
    done = serein(
        "benchmark", tone_store.folder, "--protocol", "sessions", "--systems", "linear,co-att", "--seeds", 1,
        "--recipe", place / "tiny.toml", "--set", "finetune.epochs=1", "--beside", mel.folder, "-o", place / "beside",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    said = [json.loads((place / "beside" / name / "run.json").read_text()) for name in ("linear", "co-att")]
    assert ["beside" in facts for facts in said] == [False, True]


def test_a_study_is_rendered_again_from_what_is_on_disk(place, benchmark):
    for name in ("study.html", "study.md", "scores.json"):
        (place / "benchmark" / name).unlink()
    again = serein("study", place / "benchmark")
    assert again.exit_code == 0, again.output
    assert words(again) == words(benchmark)
    assert files(place / "benchmark") == PAGE | {"linear", "adapter-none"}


def test_finished_runs_become_a_study(place, benchmark):
    runs = [place / "benchmark" / name for name in ("adapter-none", "linear")]
    made = serein("study", place / "made", *runs, "--title", "Turned round")
    assert made.exit_code == 0, made.output
    assert "Turned round" in words(made)
    said = json.loads((place / "made" / "study.json").read_text())
    assert said["kind"] == "runs"
    assert [run["folder"] for run in said["runs"]] == ["../benchmark/adapter-none", "../benchmark/linear"]
    assert [run["name"] for run in said["runs"]] == ["adapter, fresh", "linear probe"]
    turned, straight = (
        json.loads((place / name / "scores.json").read_text())["variants"][1]["minus_first"]["ua"]
        for name in ("made", "benchmark")
    )
    assert turned == pytest.approx(-straight)
    assert turned != 0
    assert serein("study", place / "made", *runs[::-1]).exit_code == 0
    alone = serein("study", place / "made", "--title", "Another")
    assert isinstance(alone.exception, UsageError)
    assert "name its runs too" in str(alone.exception)


def test_a_study_that_a_command_made_is_not_written_over(place, benchmark):
    failed = serein("study", place / "benchmark", place / "benchmark" / "linear")
    assert isinstance(failed.exception, UsageError)
    assert json.loads((place / "benchmark" / "study.json").read_text())["kind"] == "benchmark"


def test_an_ablation_goes_through(place, tone_store):
    done = serein(
        "ablate", tone_store.folder, place / "ablation.toml", "--protocol", "sessions", "--seeds", 1,
        "--set", "adapt.data=none", "--set", "finetune.epochs=1", "-o", place / "ablation",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert files(place / "ablation") == PAGE | {"one", "two"}
    assert "Blocks (tones, protocol sessions)" in words(done)
    parameters = [
        variant["trainable_parameters"]
        for variant in json.loads((place / "ablation" / "scores.json").read_text())["variants"]
    ]
    assert parameters[0] < parameters[1]


def test_inflation_sets_every_short_cut_beside_the_honest_folds(place, inflation):
    assert inflation.exit_code == 0, inflation.output
    variants = json.loads((place / "inflation" / "scores.json").read_text())["variants"]
    assert [variant["name"] for variant in variants] == [
        "honest", "random20", "ORACLE-same-train", "ORACLE-val-is-test", "random-TALKERS-SHARED",
    ]  # fmt: skip
    assert len({variant["protocol"]["hash"] for variant in variants}) == 5
    honest = variants[0]["scores"]["ua"]
    for variant in variants[1:]:
        found = variant["minus_first"]
        assert found["ua"] == pytest.approx(variant["scores"]["ua"] - honest)
        assert found["interval"]["low"] <= found["ua"] <= found["interval"]["high"]
        assert found["p"] <= found["holm_p"] <= 1
    tested = [
        sorted(row.id for row in load_run(place / "inflation" / variant["folder"]).predictions) for variant in variants
    ]
    assert tested == [tested[0]] * 5
    assert "TALKERS SHARED: intervals too narrow" in (place / "inflation" / "study.md").read_text(encoding="utf-8")


def test_the_tested_talkers_are_heard_only_where_it_says_so(place, inflation):
    for folder in ("honest", "random20", "oracle-same-train", "oracle-val-is-test", "random-talkers-shared"):
        leaks = load_run(place / "inflation" / folder).leaks
        train_and_test = any("both train and test" in leak for leak in leaks)
        assert train_and_test == (folder == "random-talkers-shared")
