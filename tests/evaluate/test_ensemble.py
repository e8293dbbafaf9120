import csv
import json
import re
import shlex
import shutil

import numpy as np
import pytest

from serein.errors import CorpusError, UsageError
from serein.evaluate import ensemble
from serein.evaluate.ensemble import average
from serein.evaluate.runs import load_run
from serein.files import write_atomically


def rows(folder):
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_members_probabilities_count_the_same(default_run, tmp_path):
    members, committee = rows(default_run), average([default_run], tmp_path / "committee")
    labels = load_run(default_run).protocol.labels
    for row in rows(committee):
        mine = [[float(m[f"p_{label}"]) for label in labels] for m in members if m["id"] == row["id"]]
        assert len(mine) == len(load_run(default_run).seeds) > 1
        mean = np.mean(mine, axis=0)
        assert [float(row[f"p_{label}"]) for label in labels] == pytest.approx(mean, abs=1e-6)
        assert row["prediction"] == labels[int(mean.argmax())]


def test_a_run_of_more_seeds_has_more_weight(make_run, default_run, tmp_path):
    alone = average([default_run], tmp_path / "alone")  # a run of one seed
    other = make_run("other", random_seed=5)
    members = rows(alone) + rows(other)
    for row in rows(average([alone, other], tmp_path / "both")):
        mine = [[float(value) for key, value in m.items() if key[:2] == "p_"] for m in members if m["id"] == row["id"]]
        assert len(mine) == 3
        found = [float(value) for key, value in row.items() if key[:2] == "p_"]
        assert found == pytest.approx(np.mean(mine, axis=0), abs=1e-6)


def test_parameters_are_summed_and_the_worst_member_is_told(make_run, tmp_path):
    first, second = make_run("first"), make_run("second", synthetic=True)
    for path in second.rglob("cost.json"):
        cost = json.loads(path.read_text()) | {"peak_memory_bytes": 2**29, "collapsed": True}
        path.write_text(json.dumps(cost))
    both = load_run(average([first, second], tmp_path / "both"))
    seeds = len(load_run(first).seeds)
    assert both.synthetic
    for done in both.fold_runs:
        assert done.trainable_parameters == {"adapter": 2 * seeds * 5000, "head": 2 * seeds * 37}
        assert (done.peak_memory_bytes, done.collapsed) == (2**30, True)


def test_every_file_is_seen_whole_or_not_at_all_and_the_run_last(default_run, tmp_path, monkeypatch):
    written = []

    def noted(path, content):
        written.append(path)
        write_atomically(path, content)

    monkeypatch.setattr(ensemble, "write_atomically", noted)
    folder = average([default_run], tmp_path / "committee")
    files = {path for path in folder.rglob("*") if path.is_file()}
    assert files - {folder / "protocol.json"} == set(written)  # `Protocol.save` does so too
    assert written[-1] == folder / "run.json"


def test_the_committee_is_a_run_of_one_seed_that_costs_what_its_members_cost(default_run, tmp_path):
    copy = shutil.copytree(default_run, tmp_path / "copy")
    member, committee = load_run(default_run), load_run(average([default_run, copy], tmp_path / "committee"))
    assert committee.seeds == (0,)
    assert committee.name == f"{member.name}, {2 * len(member.seeds)} averaged"
    assert committee.protocol.hash == member.protocol.hash
    spent = sum(sum(one.seconds.values()) for one in member.fold_runs)
    assert sum(sum(one.seconds.values()) for one in committee.fold_runs) == pytest.approx(2 * spent)


def test_a_run_has_no_second_vote(default_run, tmp_path):
    with pytest.raises(UsageError, match="is given twice"):
        average([default_run, default_run / ".." / default_run.name], tmp_path / "committee")


def test_a_folder_that_holds_a_run_is_left_alone(default_run):
    with pytest.raises(UsageError, match="holds a run already"):
        average([default_run], default_run)


def test_runs_on_other_utterances_make_no_committee(default_run, tmp_path):
    other = average([default_run], tmp_path / "other")
    path = other / "protocol.json"
    protocol = json.loads(path.read_text(encoding="utf-8"))
    assert protocol["folds"]
    first = load_run(other).protocol
    renamed = type(first)(
        first.name + "x", first.description, first.corpus, first.labels, first.folds, first.oracle, first.shares_talkers
    )
    renamed.save(path)
    with pytest.raises(CorpusError, match="was not tested on the utterances"):
        average([default_run, other], tmp_path / "committee")
    assert not (tmp_path / "committee").exists()


def test_members_of_several_encoders_and_recipes_are_all_named(make_run, tmp_path):
    first, second = make_run("first"), make_run("second")
    edited = json.loads((second / "run.json").read_text())
    edited["encoder"]["layers"] = [9]
    edited["without_frames"] = {"lost": "no file"}
    (second / "run.json").write_text(json.dumps(edited | {"frames": ["another"]}))
    (second / "recipe.toml").write_text("[finetune]\nepochs = 3\n")
    both = load_run(average([first, second], tmp_path / "both"))
    encoders = [load_run(member).encoder for member in (first, second)]
    assert both.encoder == {"members": encoders}
    assert both.recipe == f"# '{second}' has a recipe of its own; this is that of '{first}'\n{load_run(first).recipe}"
    assert both.without_frames == {"lost": "no file"}
    assert "frames" not in json.loads((tmp_path / "both" / "run.json").read_text())
    three = load_run(average([tmp_path / "both", first], tmp_path / "three"))
    assert three.encoder == {"members": encoders}
    assert three.recipe == both.recipe


def test_an_encoder_under_another_name_is_the_same(make_run, tmp_path):
    first, moved = make_run("first"), make_run("moved")
    facts = json.loads((moved / "run.json").read_text())
    facts["encoder"]["name"] = "moved/encoder"
    (moved / "run.json").write_text(json.dumps(facts))
    assert load_run(average([first, moved], tmp_path / "both")).encoder == load_run(first).encoder


def test_runs_that_disagree_about_a_truth_make_no_committee(make_run, tmp_path):
    first, second = make_run("first"), make_run("second")
    table = second / "predictions.csv"
    table.write_text(re.sub(r"(F1_00,F1,fold-0,.),angry", r"\1,sad", table.read_text()))
    with pytest.raises(CorpusError, match="was not tested on the utterances"):
        average([first, second], tmp_path / "committee")


def test_what_flatters_one_member_flatters_the_committee(make_run, tmp_path):
    plain = make_run("plain")
    copied = "fold fold-0: 1 recording is in both train and test: a = b"
    flattered = make_run("flattered", adapter_training="transductive", talker_statistics="z-norm", leaks=[copied])
    for number, members in enumerate([(plain, flattered), (flattered, plain)]):
        committee = load_run(average(members, tmp_path / str(number)))
        assert (committee.adapter_training, committee.talker_statistics) == ("transductive", "z-norm")
        assert committee.leaks == (copied,)
    alone = load_run(average([plain], tmp_path / "alone"))
    assert (alone.adapter_training, alone.talker_statistics) == ("inductive", "none")


def test_members_that_learned_from_other_shares_of_the_labels_make_no_committee(make_run, tmp_path):
    runs = [make_run("all"), make_run("few")]
    (runs[1] / "recipe.toml").write_text("[finetune]\nlabel_share = 0.1\n")
    with pytest.raises(UsageError, match=r"few: learned from another share of the labels than .*all"):
        average(runs, tmp_path / "both")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_committee_with_a_trained_adapter_is_one_that_was_trained(make_run, tmp_path, order):
    members = [make_run("trained", adapter_training="inductive"), make_run("fresh", adapter_training="none")]
    committee = load_run(average([members[index] for index in order], tmp_path / "both"))
    assert committee.adapter_training == "inductive"


def test_the_command_can_be_typed_again(make_run, tmp_path):
    members = [make_run("one run"), make_run("other")]
    command = load_run(average(members, tmp_path / "my committee")).command
    assert shlex.split(command) == ["serein", "ensemble", *map(str, members), "-o", str(tmp_path / "my committee")]


def test_a_run_whose_folds_are_not_yet_joined_makes_a_committee(make_run, tmp_path):
    run = make_run("stopped at the last step")
    whole = average([run], tmp_path / "whole")
    for done in load_run(run).fold_runs:
        lines = (run / "predictions.csv").read_text().splitlines()
        own = [line for line in lines[1:] if f",{done.fold},{done.seed}," in line]
        part = run / "folds" / done.fold / f"seed-{done.seed}" / "predictions.csv"
        part.write_text("\n".join([lines[0], *own]) + "\n")
    (run / "predictions.csv").unlink()
    assert rows(average([run], tmp_path / "parts")) == rows(whole)
