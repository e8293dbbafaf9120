import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from serein.errors import CorpusError
from serein.evaluate.embeddings import load_embeddings
from serein.evaluate.runs import load_run


def edit_json(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_a_run_is_read_as_it_was_written(make_run):
    folder = make_run(leaks=["fold fold-0: 1 text is in both train and test: dogs"])
    run = load_run(folder)
    assert (run.name, run.seeds, run.corpus, run.encoder["layers"]) == ("adapter", (0, 1), "toy", [2, 3])
    assert run.leaks == ("fold fold-0: 1 text is in both train and test: dogs",)
    assert run.environment["threads"] == 2
    assert run.recipe == (folder / "recipe.toml").read_text()
    assert len(run.predictions) == 72 * 2
    assert [(done.fold, done.seed) for done in run.fold_runs[:3]] == [("fold-0", 0), ("fold-0", 1), ("fold-1", 0)]
    assert run.fold_runs[0].seconds["adapt"] == 100.0


def test_history_is_parted_by_stage_and_blank_cells_are_nan(make_run):
    history = load_run(make_run()).fold_runs[0].history
    assert set(history) == {"adapt", "finetune", "refit"}
    assert len(history["adapt"]["loss"]) == 24
    validation = history["finetune"]["validation_ua"]
    np.testing.assert_allclose(validation[5::6], 0.5 + 0.05 * np.arange(5))
    assert np.isnan(np.delete(validation, slice(5, None, 6))).all()
    assert np.isnan(history["refit"]["agreement"]).all()


def test_the_linear_probe_has_no_history_and_no_space_of_its_own(make_run):
    run = load_run(make_run(adapter=False))
    assert run.fold_runs[0].history == {}
    found = load_embeddings(run.fold_runs[0].embeddings, run.protocol.folds[0].test)
    assert found.encoder.shape == (24, 8)
    assert (found.fresh, found.adapter, found.system) == (None, None, None)


def test_half_precision_embeddings_are_read_as_float32(tmp_path):
    save_file({"encoder": np.ones((1, 3), np.float16)}, tmp_path / "e", {"serein": json.dumps({"ids": ["a"]})})
    assert load_embeddings(tmp_path / "e", ["a"]).encoder.dtype == np.float32


def test_embeddings_with_another_number_of_rows_than_utterances_are_refused(tmp_path):
    save_file({"encoder": np.ones((1, 3), np.float32)}, tmp_path / "e", {"serein": json.dumps({"ids": ["a", "b"]})})
    with pytest.raises(CorpusError, match="not of the fold's test utterances"):
        load_embeddings(tmp_path / "e", ["a", "b"])


def test_an_unfinished_run_says_what_is_missing_and_how_to_go_on(make_run):
    folder = make_run()
    lines = (folder / "predictions.csv").read_text().splitlines(keepends=True)
    (folder / "predictions.csv").unlink()
    done = folder / "folds" / "fold-1" / "seed-1" / "predictions.csv"
    done.write_text("".join(line for line in lines if line.startswith("id,") or ",fold-1,1," in line))
    with pytest.raises(CorpusError) as caught:
        load_run(folder)
    said = str(caught.value)
    assert "5 of 6 are missing" in said
    assert "fold fold-1 seed 0, fold fold-2 seed 0" in said
    assert "fold fold-1 seed 1" not in said
    assert said.endswith("continues it: serein crossval frames/ --protocol three-pairs --seeds 2 -o runs/toy")


def test_a_fold_that_lacks_one_utterance_is_not_finished(make_run):
    folder = make_run()
    text = (folder / "predictions.csv").read_text()
    (folder / "predictions.csv").write_text(re.sub(r"F2_03,F2,fold-1,1,.*\r?\n", "", text))
    with pytest.raises(CorpusError, match=r"1 of 6 are missing \(fold fold-1 seed 1\)"):
        load_run(folder)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("F1_00,F1,fold-0,0,", "F1_00,F1,fold-1,0,", "not finished"),
        ("F1_00,F1,fold-0,1,angry", "F1_00,F9,fold-0,1,angry", "F1_00 has another talker or truth"),
        ("F1_00,F1,fold-0,1,angry", "F1_00,F1,fold-0,1,sad", "F1_00 has another talker or truth"),
        ("F1_00,F1,fold-0,0,angry", "F1_00,F1,fold-0,0,calm", "F1_00 has 'calm' and"),
        ("F1_00,F1,fold-0,0,", "F1_00,F1,fold-0,x,", "seed 'x' is no whole number"),
        ("F1_00,F1,", "F1_00,F1,F1,", "12 cells|11 cells"),
        ("p_happy", "p_glad", "no column p_happy"),
        (",0.7", ",no", "a probability of .* is no number"),
        (",0.7", ",nan", "a probability of .* is no number"),
        ("talker", "speaker", "no column talker"),
    ],
)
def test_predictions_that_cannot_be_true_are_refused(make_run, before, after, said):
    folder = make_run()
    text = (folder / "predictions.csv").read_text()
    assert before in text
    (folder / "predictions.csv").write_text(text.replace(before, after, 1))
    with pytest.raises(CorpusError, match=said):
        load_run(folder)


def test_an_utterance_that_stands_twice_is_refused(make_run):
    folder = make_run()
    text = (folder / "predictions.csv").read_text()
    (folder / "predictions.csv").write_text(text + text.splitlines()[1] + "\n")
    with pytest.raises(CorpusError, match="stands twice"):
        load_run(folder)


@pytest.mark.parametrize(
    "name",
    [
        "run.json",
        "protocol.json",
        "recipe.toml",
        "environment.json",
        "folds/fold-1/seed-0/cost.json",
        "folds/fold-2/seed-1/embeddings.safetensors",
    ],
)
def test_a_missing_file_is_named(make_run, name):
    folder = make_run()
    (folder / name).unlink()
    with pytest.raises(CorpusError, match=re.escape(Path(name).name)):
        load_run(folder)


def test_damaged_files_are_named(make_run):
    folder = make_run()
    for name, content, said in (
        ("run.json", "{", "is not JSON"),
        ("run.json", "null", "is no JSON object"),
        ("environment.json", "[]", "is no JSON object"),
        ("recipe.toml", "[model", "is not a recipe that serein wrote"),
        ("predictions.csv", "", "no column id"),
        ("predictions.csv", '"id', "cannot be read as a CSV"),
        ("folds/fold-0/seed-0/history.csv", "stage,epoch,step,loss\nrefit,0,0,high\n", "a cell is no number"),
        ("folds/fold-0/seed-0/history.csv", "stage,epoch,step,loss\nfinetune,0,0,1\n", "no column validation_ua"),
    ):
        whole = (folder / name).read_bytes()
        (folder / name).write_text(content)
        with pytest.raises(CorpusError, match=said):
            load_run(folder)
        (folder / name).write_bytes(whole)


def test_facts_that_are_missing_or_of_another_format_are_refused(make_run):
    folder = make_run()
    edit_json(folder / "run.json", format=2)
    with pytest.raises(CorpusError, match="format 2"):
        load_run(folder)
    edit_json(folder / "run.json", format=1, encoder=None, leaks=None)
    with pytest.raises(CorpusError, match="has no encoder, leaks"):
        load_run(folder)


def test_embeddings_must_be_those_of_the_test_utterances(make_run):
    run = load_run(make_run())
    path = run.fold_runs[0].embeddings
    with pytest.raises(CorpusError, match="not of the fold's test utterances"):
        load_embeddings(path, run.protocol.folds[1].test)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(CorpusError, match="cannot be read"):
        load_embeddings(path, run.protocol.folds[0].test)
