import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from serein.cli_judge import judge
from serein.corpus.splits import make_protocol
from serein.errors import CorpusError, UsageError
from serein.train.crossval import cross_validate


@pytest.fixture(scope="module")
def runs(tone_store, tiny_recipe, tmp_path_factory) -> dict[str, Path]:
    """A linear probe with one seed and with two, and one under another protocol."""
    folder, corpus = tmp_path_factory.mktemp("runs"), tone_store.corpus()
    for name, protocol, seeds in (("one", "sessions", 1), ("two", "sessions", 2), ("other", "talkers", 1)):
        folds = make_protocol(protocol, corpus)
        cross_validate(
            tone_store, corpus, folds, folder / name, tiny_recipe, system="linear", seeds=range(seeds), command="-"
        )
    return {name: folder / name for name in ("one", "two", "other")}


def serein(*arguments: object) -> Result:
    """The commands as `serein` joins them to its own: without a name."""
    app = typer.Typer()
    app.callback()(lambda: None)
    app.add_typer(judge)
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_the_table_names_the_systems_and_the_verdict(runs):
    shown = serein("compare", runs["one"], runs["two"])
    assert shown.exit_code == 0, shown.output
    text = " ".join(shown.stdout.replace("│", " ").split())
    assert "Differences in UA" in text
    assert "p (Holm)" in text


def test_json_is_one_document_with_a_verdict_a_pair(runs):
    (found,) = json.loads(serein("compare", runs["one"], runs["two"], "--json").stdout)
    assert found["against"] == f"linear probe ({runs['one']})"
    assert found["low"] <= found["ua_difference"] <= found["high"]
    assert 0 <= found["p"] == found["holm_p"] <= 1
    assert 0 <= found["mcnemar_p"] <= 1


def test_all_pairs_and_another_protocol(runs):
    assert len(json.loads(serein("compare", *runs.values(), "--json").stdout)) == 2
    pairs = json.loads(serein("compare", *runs.values(), "--all-pairs", "--json").stdout)
    assert [pair["verdict"].startswith("not comparable") for pair in pairs] == [False, True, True]
    assert pairs[1]["p"] is None


def test_predictions_made_elsewhere_become_a_run(runs, tmp_path):
    shown = serein(
        "import", runs["one"] / "predictions.csv", "--like", runs["one"], "--name", "mine", "-o", tmp_path / "in"
    )
    assert shown.exit_code == 0, shown.output
    assert "made elsewhere" in " ".join(shown.stdout.split())
    assert f"Next: serein compare {runs['one']} {tmp_path / 'in'}" in shown.output
    (found,) = json.loads(serein("compare", runs["one"], tmp_path / "in", "--json").stdout)
    assert (found["system"], found["ua_difference"]) == ("mine", 0)
    assert found["remarks"] == ["mine: made elsewhere"]


def test_one_run_is_nothing_to_compare(runs):
    failed = serein("compare", runs["one"])
    assert isinstance(failed.exception, UsageError)
    assert "name two runs or more" in str(failed.exception)


def test_a_folder_that_is_no_run_is_named(runs, tmp_path):
    failed = serein("compare", runs["one"], tmp_path)
    assert isinstance(failed.exception, CorpusError)
    assert str(tmp_path) in str(failed.exception)


def test_the_help_shows_an_example():
    assert "Example: serein compare" in serein("compare", "--help").output.replace("`", "")
