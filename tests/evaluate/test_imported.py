import csv
import json
import re

import pytest

from serein.errors import CorpusError, UsageError
from serein.evaluate.comparison import compare_all
from serein.evaluate.ensemble import average
from serein.evaluate.imported import import_predictions
from serein.evaluate.report import write_report
from serein.evaluate.runs import load_run
from serein.evaluate.study import save_study
from serein.evaluate.study_page import write_study
from serein.evaluate.summary import summarise


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def theirs(make_run):
    """Another system under the same protocol."""
    return make_run("theirs", accuracy=0.4, random_seed=5, adapter=False)


@pytest.fixture
def imported(theirs, default_run, tmp_path):
    return import_predictions(theirs / "predictions.csv", default_run, tmp_path / "imported", name="mine", command="c")


def test_what_is_imported_scores_as_where_it_was_made(imported, theirs, default_run):
    found, made, like = load_run(imported), load_run(theirs), load_run(default_run)
    assert found.predictions == made.predictions
    assert (summarise(found).pooled, summarise(found).intervals) == (summarise(made).pooled, summarise(made).intervals)
    assert (found.name, found.system, found.adapter_training, found.command) == ("mine", "imported", "not known", "c")
    assert (found.protocol.hash, found.leaks, found.seeds) == (like.protocol.hash, like.leaks, like.seeds)
    (ours,), (other,) = compare_all([like, found]), compare_all([like, made])
    assert ours.difference == other.difference


def test_ids_and_probabilities_are_enough(theirs, default_run, tmp_path):
    rows = [row for row in read(theirs / "predictions.csv") if row["seed"] == "1"]
    few = [{key: cell for key, cell in row.items() if key == "id" or key.startswith("p_")} for row in rows]
    found = load_run(import_predictions(write(tmp_path / "t.csv", few), default_run, tmp_path / "in", name="mine"))
    assert found.seeds == (0,)
    expected = {row.id: row for row in load_run(theirs).predictions if row.seed == 1}
    for row in found.predictions:
        assert row == expected[row.id]._replace(seed=0)


def test_pages_say_what_is_known_and_leave_the_rest_open(imported, default_run, tmp_path):
    alone, beside = write_report(imported), write_report(default_run, [imported])
    assert [path.name for path in alone.figures] == ["confusion.svg"]
    text = alone.markdown.read_text(encoding="utf-8")
    assert "Adapter training: not known." in text
    assert not {"Trainable parameters", "Encoder", "Environment"} & set(re.findall(r"[A-Z]\w+(?: parameters)?", text))
    assert "mine" in beside.markdown.read_text(encoding="utf-8")
    save_study(tmp_path / "study", "runs", "both", [("ours", default_run), ("mine", imported)])
    page = write_study(tmp_path / "study").markdown.read_text(encoding="utf-8")
    lines = page.splitlines()
    ours, mine = (next(line for line in lines if line.startswith(f"| {name} |")) for name in ("ours", "mine"))
    assert mine.endswith("|  |  |  |")
    assert not ours.endswith("|  |")
    assert "not known" in page
    assert mine.startswith("| mine | made elsewhere |")


def changed(rows, **cells):
    return [{**rows[0], **cells}, *rows[1:]]


FAULTS = {
    "a stranger": (lambda rows: changed(rows, id="x"), "row 2: 'x' is no test utterance"),
    "another talker": (lambda rows: changed(rows, talker="F9"), "row 2: talker of F1_00 is 'F9', and should be 'F1'"),
    "another truth": (lambda rows: changed(rows, truth="sad"), "row 2: truth of F1_00 is 'sad'"),
    "another fold": (lambda rows: changed(rows, fold="fold-1"), "row 2: fold of F1_00 is 'fold-1'"),
    "no seed": (lambda rows: changed(rows, seed="-1"), "row 2: seed '-1' is no whole number"),
    "logits": (lambda rows: changed(rows, p_sad="7.5"), "row 2: .* are no probabilities .* give the softmax"),
    "no number": (lambda rows: changed(rows, p_sad="high"), "row 2: could not convert"),
    "nan": (lambda rows: changed(rows, p_sad="nan"), "row 2: .* are no probabilities"),
    "another label": (lambda rows: changed(rows, prediction="bored"), "row 2: 'bored' is none of angry"),
    "one missing": (lambda rows: rows[1:], "F1_00, seed 0, is missing; give each test utterance"),
    "one twice": (lambda rows: [*rows, rows[0]], "F1_00, seed 0, stands twice"),
    "a label missing": (
        lambda rows: [{key: cell for key, cell in row.items() if key != "p_sad"} for row in rows],
        "has no column p_sad; correct it",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_table_that_is_not_of_the_run_is_refused_and_nothing_is_written(theirs, default_run, tmp_path, fault):
    change, said = FAULTS[fault]
    table = write(tmp_path / "t.csv", change(read(theirs / "predictions.csv")))
    with pytest.raises(CorpusError, match=f"t.csv.*{said}"):
        import_predictions(table, default_run, tmp_path / "in", name="mine")
    assert not (tmp_path / "in").exists()


def test_an_empty_table_has_every_utterance_missing(theirs, default_run, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text((theirs / "predictions.csv").read_text().splitlines()[0] + "\n")
    with pytest.raises(CorpusError, match="is missing"):
        import_predictions(table, default_run, tmp_path / "in", name="mine")


def test_a_run_is_not_written_over_and_needs_a_name(imported, theirs, default_run, tmp_path):
    with pytest.raises(UsageError, match="holds a run already"):
        import_predictions(theirs / "predictions.csv", default_run, imported, name="mine")
    with pytest.raises(UsageError, match="--name: is empty"):
        import_predictions(theirs / "predictions.csv", default_run, tmp_path / "in", name=" ")


def test_a_committee_takes_no_imported_member(imported, default_run, tmp_path):
    with pytest.raises(UsageError, match=re.escape(f"{imported}: was imported")):
        average([default_run, imported], tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_what_another_run_left_in_the_folder_is_not_taken_for_its_own(theirs, default_run, make_run, tmp_path):
    left = make_run("left")
    (left / "run.json").unlink()
    found = load_run(import_predictions(theirs / "predictions.csv", default_run, left, name="mine"))
    assert [(done.embeddings, done.history) for done in found.fold_runs] == [(None, {})] * len(found.fold_runs)


@pytest.mark.parametrize("mark", ["\ufeff", ""])
def test_a_table_as_a_spreadsheet_writes_it_is_read(theirs, default_run, tmp_path, mark):
    table = tmp_path / "t.csv"
    table.write_text(mark + (theirs / "predictions.csv").read_text() + "\n\n", encoding="utf-8")
    assert load_run(import_predictions(table, default_run, tmp_path / "in", name="mine")).name == "mine"


def test_without_embeddings_a_run_of_sereins_own_is_damaged(imported):
    facts = json.loads((imported / "run.json").read_text())
    (imported / "run.json").write_text(json.dumps(facts | {"system": "linear"}))
    with pytest.raises(CorpusError, match=r"embeddings\.safetensors: is missing"):
        load_run(imported)
