import csv
import json
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors import safe_open

from serein.corpus.corpus import Corpus
from serein.corpus.protocol import Fold, Protocol
from serein.corpus.splits import make_protocol
from serein.errors import CorpusError, SereinError, StoreError, UsageError
from serein.evaluate.embeddings import load_embeddings
from serein.evaluate.metrics import unweighted_accuracy
from serein.evaluate.report import write_report
from serein.evaluate.runs import load_run
from serein.frames.batches import BATCHING, FrameArray
from serein.frames.encoder import load_encoder
from serein.frames.extract import extract
from serein.frames.store import FrameStore, write_shard
from serein.recipe import Recipe
from serein.train import systems
from serein.train.adapter_folder import adapt_store
from serein.train.crossval import classes_of, cross_validate, model_config
from serein.train.material import gather
from serein.train.names import run_name
from serein.train.ship import train_model
from serein.train.systems import SYSTEMS
from serein.train.task import Task

RUN_FILES = {"environment.json", "predictions.csv", "protocol.json", "recipe.toml", "run.json"}
FOLD_FILES = {"cost.json", "embeddings.safetensors", "predictions.csv"}


@pytest.fixture(scope="module")
def labelled(tone_store: FrameStore) -> Corpus:
    return tone_store.corpus()


@pytest.fixture(scope="module")
def protocol(labelled: Corpus) -> Protocol:
    return make_protocol("sessions", labelled)


@pytest.fixture(scope="module")
def two_folds(protocol: Protocol) -> Protocol:
    return replace(protocol, folds=protocol.folds[:2])


@pytest.fixture(scope="module")
def brief(tiny_recipe: Recipe) -> Recipe:
    """A tenth of the tiny recipe's work, with every source of chance: copies, masks, dropout."""
    return Recipe.from_toml(
        tiny_recipe.to_toml(),
        ["model.dropout=0.1", "finetune.epochs=3", "finetune.frame_masking=0.2", "speed.checkpoint_seconds=0"],
    )


@pytest.fixture(scope="module")
def linear_run(tone_store, labelled, protocol, tiny_recipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "linear"
    return cross_validate(
        tone_store, labelled, protocol, folder, tiny_recipe, system="linear", seeds=(0, 1), command="serein crossval"
    )


@pytest.fixture(scope="module")
def inductive_run(tone_store, labelled, protocol, tiny_recipe, tmp_path_factory) -> Path:
    return cross_validate(tone_store, labelled, protocol, tmp_path_factory.mktemp("runs") / "adapter", tiny_recipe)


@pytest.fixture(scope="module")
def brief_run(tone_store, labelled, two_folds, brief, tmp_path_factory) -> Path:
    return cross_validate(tone_store, labelled, two_folds, tmp_path_factory.mktemp("runs") / "brief", brief)


def test_a_run_keeps_the_space_of_the_adapter_before_labels(brief_run, brief, tmp_path):
    run = load_run(brief_run)
    fold = run.protocol.folds[0]
    found = load_embeddings(run.fold_runs[0].embeddings, fold.test)
    assert found.system is not None
    for space in (found.fresh, found.adapter):
        assert space is not None
        assert space.shape == (len(fold.test), brief.model.width)
        assert np.abs(space).max() > 0
    assert not np.array_equal(found.fresh, found.adapter)
    page = write_report(Path(shutil.copytree(brief_run, tmp_path / "copy"))).markdown.read_text(encoding="utf-8")
    assert re.search(r"\| Fresh adapter, untrained \| -?\d", page)
    assert re.search(r"\| Adapter, before fine-tuning \| -?\d", page)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def with_data(recipe: Recipe, data: str) -> Recipe:
    return Recipe.from_toml(recipe.to_toml(), [f"adapt.data={data}"])


def fresh(recipe: Recipe) -> Recipe:
    return with_data(recipe, "none")


@pytest.mark.parametrize(("run", "seeds", "more"), [("linear_run", 2, set()), ("inductive_run", 1, {"history.csv"})])
def test_a_run_leaves_exactly_the_promised_files(request, protocol, run, seeds, more):
    folder = request.getfixturevalue(run)
    folds = {
        f"folds/{fold.name}/seed-{seed}/{name}"
        for fold in protocol.folds
        for seed in range(seeds)
        for name in FOLD_FILES | more
    }
    assert tree(folder).keys() == RUN_FILES | folds


@pytest.mark.parametrize("run", ["linear_run", "inductive_run"])
def test_every_test_utterance_is_predicted_once_a_seed_and_far_above_chance(request, protocol, labelled, run):
    folder = request.getfixturevalue(run)
    rows = rows_of(folder / "predictions.csv")
    seeds = json.loads((folder / "run.json").read_text())["seeds"]
    expected = [(str(seed), fold.name, name) for seed in seeds for fold in protocol.folds for name in fold.test]
    assert [(row["seed"], row["fold"], row["id"]) for row in rows] == expected
    known = labelled.by_id()
    for row in rows:
        probabilities = [float(row[f"p_{label}"]) for label in protocol.labels]
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert row["prediction"] == protocol.labels[int(np.argmax(probabilities))]
        assert (row["talker"], row["truth"]) == (known[row["id"]].talker, known[row["id"]].emotion)
    truth, prediction = (np.array([row[name] for row in rows]) for name in ("truth", "prediction"))
    assert unweighted_accuracy(truth, prediction, protocol.labels) > 0.6  # chance: 0.25


def test_the_files_of_a_fold_agree_with_each_other(inductive_run, protocol, labelled, tone_store):
    array = tone_store.load()
    for fold in protocol.folds:
        place = inductive_run / "folds" / fold.name / "seed-0"
        with safe_open(place / "embeddings.safetensors", framework="pt") as file:
            assert json.loads(file.metadata()["serein"])["ids"] == list(fold.test)
            assert file.get_tensor("system").shape == (len(fold.test), 2 * 16 * 4)
            expected = array.pooled(array.indices(fold.test))[:, 0].flatten(1)
            assert torch.allclose(file.get_tensor("encoder"), expected)
        cost = json.loads((place / "cost.json").read_text())
        assert set(cost["seconds"]) == {"adapt", "finetune", "refit", "test"}
        assert cost["trainable_parameters"]["adapter"] > cost["trainable_parameters"]["head"] > 0
        history = rows_of(place / "history.csv")
        scored = [float(row["validation_ua"]) for row in history if row["validation_ua"]]
        assert scored[cost["choice"]["epochs"] - 1] == max(scored)
        refit = [row for row in history if row["stage"] == "refit"]
        assert {row["stage"] for row in history} == {"adapt", "finetune", "refit"}
        assert int(refit[-1]["epoch"]) + 1 == cost["choice"]["epochs"]
    run = load_run(inductive_run)
    assert (run.system, run.name, run.adapter_training) == ("adapter", "adapter, trained without labels", "inductive")
    assert run.corpus == labelled.name
    assert not run.synthetic
    assert run.encoder["name"] == "logmel"


def test_the_run_says_how_it_was_made(linear_run, tiny_recipe, protocol):
    assert Recipe.read(linear_run / "recipe.toml") == tiny_recipe
    assert Protocol.load(linear_run / "protocol.json") == protocol
    said = json.loads((linear_run / "run.json").read_text())
    assert (said["name"], said["adapter_training"], said["seeds"]) == ("linear probe", "none", [0, 1])
    assert said["command"] == "serein crossval"
    assert json.loads((linear_run / "environment.json").read_text())["torch"] == torch.__version__


def test_calling_again_does_nothing_and_loses_nothing(linear_run, tone_store, labelled, protocol, tiny_recipe):
    before = tree(linear_run)
    told = []
    cross_validate(
        tone_store, labelled, protocol, linear_run, tiny_recipe, system="linear", seeds=(0, 1), command="another word",
        report=lambda stage, done, total, facts: told.append((stage, done, total)),
    )  # fmt: skip
    assert tree(linear_run) == before
    assert told == [("crossval", number, 6) for number in range(1, 7)]


def test_speed_is_no_other_run(linear_run, tone_store, labelled, protocol, tiny_recipe):
    recipe = Recipe.from_toml(tiny_recipe.to_toml(), ["speed.checkpoint_seconds=7"])
    before = tree(linear_run)
    cross_validate(tone_store, labelled, protocol, linear_run, recipe, system="linear", seeds=(0, 1))
    assert tree(linear_run) == before


def test_frames_left_on_disk_give_the_same_run(brief_run, tone_store, labelled, two_folds, brief, tmp_path):
    shutil.copytree(tone_store.folder, tmp_path / "frames")
    recipe = Recipe.from_toml(brief.to_toml(), ["speed.frames=mapped"])
    cross_validate(FrameStore(tmp_path / "frames"), labelled, two_folds, tmp_path / "run", recipe)
    assert list((tmp_path / "frames").glob("flat-*"))
    for name in ("predictions.csv", f"folds/{two_folds.folds[0].name}/seed-0/history.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (brief_run / name).read_bytes()


@pytest.mark.parametrize("stage", ["adapt", "finetune", "refit"])
def test_a_run_killed_inside_a_fold_continues_to_the_same_bytes(
    brief_run, tone_store, labelled, two_folds, brief, tmp_path, stage
):
    def kill(now, done, total, facts):
        if (now, done, facts.get("fold")) == (stage, 2, two_folds.folds[1].name):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cross_validate(tone_store, labelled, two_folds, tmp_path, brief, report=kill)
    half = tree(tmp_path)
    second = f"folds/{two_folds.folds[1].name}/seed-0"
    name = stage if stage == "adapt" else f"{stage}-0-{brief.finetune.head_learning_rate}"
    assert f"{second}/{name}.checkpoint.safetensors" in half
    assert f"{second}/predictions.csv" not in half
    first_steps = []
    cross_validate(
        tone_store, labelled, two_folds, tmp_path, brief,
        report=lambda now, done, total, facts: first_steps.append((now, done)),
    )  # fmt: skip
    assert first_steps[0] == ("crossval", 1)
    assert first_steps[1] == (stage, 3)
    assert {name: content for name, content in tree(tmp_path).items() if not name.endswith("cost.json")} == {
        name: content for name, content in tree(brief_run).items() if not name.endswith("cost.json")
    }


def test_a_fold_that_was_deleted_is_made_again_as_it_was(brief_run, tone_store, labelled, two_folds, brief, tmp_path):
    for name, content in tree(brief_run).items():
        if two_folds.folds[1].name not in name:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
    cross_validate(tone_store, labelled, two_folds, tmp_path, brief)
    assert (tmp_path / "predictions.csv").read_bytes() == (brief_run / "predictions.csv").read_bytes()


def test_a_kill_after_the_predictions_leaves_no_checkpoint_behind(
    brief_run, tone_store, labelled, two_folds, brief, tmp_path
):
    for name, content in tree(brief_run).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    left = tmp_path / "folds" / two_folds.folds[0].name / "seed-0" / "refit-0-0.1.checkpoint.safetensors"
    left.write_bytes(b"")
    cross_validate(tone_store, labelled, two_folds, tmp_path, brief)
    assert not left.exists()
    assert tree(tmp_path) == tree(brief_run)


def test_another_run_in_the_same_folder_is_refused_and_what_differs_is_named(
    linear_run, tone_store, labelled, protocol, tiny_recipe
):
    wider = Recipe.from_toml(tiny_recipe.to_toml(), ["model.width=32"])
    talkers = make_protocol("talkers", labelled)
    before = tree(linear_run)
    for asked, recipe, system, seeds, said in (
        (protocol, wider, "linear", (0, 1), "another recipe"),
        (talkers, tiny_recipe, "linear", (0, 1), "another protocol"),
        (protocol, tiny_recipe, "adapter", (0, 1), "another system and adapter_training"),
        (protocol, tiny_recipe, "linear", (0,), "another seeds"),
    ):
        with pytest.raises(StoreError, match=f"holds a run with {said}; give another folder"):
            cross_validate(tone_store, labelled, asked, linear_run, recipe, system=system, seeds=seeds)
    assert tree(linear_run) == before


def test_a_run_is_not_continued_on_frames_that_were_extracted_anew(
    linear_run, tone_store, labelled, protocol, tiny_recipe, tmp_path
):
    shutil.copytree(tone_store.folder, tmp_path / "frames")
    shard, header = next(iter(FrameStore(tmp_path / "frames").headers.items()))
    frames = tone_store.load().flat[: sum(header.lengths)] * 2
    write_shard(shard, header.ids, frames.split(list(header.lengths)), header.failed)
    before = tree(linear_run)
    with pytest.raises(StoreError, match="holds a run with another frames; give another folder"):
        cross_validate(
            FrameStore(tmp_path / "frames"), labelled, protocol, linear_run, tiny_recipe, system="linear", seeds=(0, 1)
        )
    assert tree(linear_run) == before


def test_a_run_that_does_not_say_what_it_heard_can_only_be_read(
    linear_run, tone_store, labelled, protocol, tiny_recipe, tmp_path
):
    run = Path(shutil.copytree(linear_run, tmp_path / "run"))
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (run / "run.json").write_text(json.dumps({name: fact for name, fact in facts.items() if name != "frames"}))
    with pytest.raises(StoreError, match="holds a run that does not say which frames it heard and whose"):
        cross_validate(tone_store, labelled, protocol, run, tiny_recipe, system="linear", seeds=(0, 1))
    assert load_run(run).predictions == load_run(linear_run).predictions


def test_unknown_systems_and_seeds_are_refused_before_anything_is_written(
    tone_store, labelled, protocol, tiny_recipe, tmp_path
):
    folder = tmp_path / "run"
    with pytest.raises(UsageError, match=r"system 'svm': there are linear, superb, .*, adapter"):
        cross_validate(tone_store, labelled, protocol, folder, tiny_recipe, system="svm")
    for seeds in ((), (1, 1), (-1, 0), (0, 1000)):  # 1000 would be the second member of seed 0's committee
        with pytest.raises(UsageError, match="give at least one, each once, from 0 and below 1000"):
            cross_validate(tone_store, labelled, protocol, folder, tiny_recipe, seeds=seeds)
    assert not folder.exists()


def test_co_att_is_not_given_standardised_energies(tone_store, labelled, protocol, tiny_recipe, tmp_path):
    normed = Recipe.from_toml(tiny_recipe.to_toml(), ["model.talker_statistics=z-norm"])
    with pytest.raises(UsageError, match=r"co-att, model\.talker_statistics"):
        cross_validate(
            tone_store, labelled, protocol, tmp_path / "run", normed, system="co-att", beside=[tone_store]
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_continued_with_other_talkers(linear_run, tone_store, labelled, protocol, tiny_recipe):
    first, *others = labelled.utterances
    renamed = {first.talker: "renamed"}
    corrected = replace(
        labelled,
        utterances=tuple(replace(u, talker=renamed.get(u.talker, u.talker)) for u in (first, *others)),
    )
    with pytest.raises(StoreError, match="holds a run with another talkers; give another folder"):
        cross_validate(tone_store, corrected, protocol, linear_run, tiny_recipe, system="linear", seeds=(0, 1))


def test_a_run_of_other_batches_is_not_continued(linear_run, tone_store, labelled, protocol, tiny_recipe, tmp_path):
    run = Path(shutil.copytree(linear_run, tmp_path / "run"))
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert facts.pop("batching") == BATCHING
    (run / "run.json").write_text(json.dumps(facts))
    with pytest.raises(StoreError, match="holds a run with another batching; give another folder"):
        cross_validate(tone_store, labelled, protocol, run, tiny_recipe, system="linear", seeds=(0, 1))


def test_another_torch_continues_no_run_that_is_not_finished(
    linear_run, tone_store, labelled, protocol, tiny_recipe, tmp_path
):
    run = Path(shutil.copytree(linear_run, tmp_path / "run"))
    facts = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    (run / "environment.json").write_text(json.dumps(facts | {"torch": "1.13.1"}))
    again = partial(cross_validate, tone_store, labelled, protocol, run, tiny_recipe, system="linear", seeds=(0, 1))
    assert again() == run  # nothing is left to do
    shutil.rmtree(run / "folds" / protocol.folds[1].name)
    with pytest.raises(StoreError, match=r"that torch 1\.13\.1 began, and this is torch"):
        again()


def test_a_run_whose_name_or_leaks_were_told_in_other_words_is_continued(
    linear_run, tone_store, labelled, protocol, tiny_recipe, tmp_path
):
    run = Path(shutil.copytree(linear_run, tmp_path / "run"))
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (run / "run.json").write_text(
        json.dumps(facts | {"leaks": ["fold 1: 1 recording is in both train and test: ab12"], "name": "probe"})
    )
    again = partial(cross_validate, tone_store, labelled, protocol, run, tiny_recipe, system="linear", seeds=(0, 1))
    assert again() == run


def test_a_run_on_the_voices_of_a_machine_says_so(tone_store, labelled, protocol, tiny_recipe, linear_run, tmp_path):
    spoken = replace(labelled, utterances=tuple(replace(one, release="espeak-demo") for one in labelled))
    folder = cross_validate(tone_store, spoken, protocol, tmp_path / "run", tiny_recipe, system="linear")
    assert [json.loads((run / "run.json").read_text())["synthetic"] for run in (folder, linear_run)] == [True, False]


def test_predictions_that_no_run_json_explains_are_not_taken_over(
    linear_run, tone_store, labelled, protocol, tiny_recipe, tmp_path
):
    run = Path(shutil.copytree(linear_run, tmp_path / "run"))
    (run / "run.json").unlink()
    again = partial(cross_validate, tone_store, labelled, protocol, run, tiny_recipe, system="superb")
    with pytest.raises(StoreError, match=r"holds predictions, and no run\.json that says what made them"):
        again()
    (run / "predictions.csv").unlink()
    with pytest.raises(StoreError, match=r"holds predictions, and no run\.json"):
        again()


def test_a_fold_that_fails_is_named(tone_store, labelled, protocol, tiny_recipe, tmp_path):
    wild = Recipe.from_toml(tiny_recipe.to_toml(), ["adapt.data=none", "finetune.head_learning_rate=1e30"])
    said = rf"fold {protocol.folds[0].name}, seed 0: finetune: the loss is nan .*, head_learning_rate [0-9.e+]+\)"
    with pytest.raises(SereinError, match=said):
        cross_validate(tone_store, labelled, protocol, tmp_path / "run", wild)


def test_an_utterance_without_frames_is_named_with_its_reason(tones, tiny_recipe, tmp_path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no sound at all")
    first, *others = tones.utterances
    holed = replace(tones, utterances=(replace(first, path=broken), *others))
    store = extract(holed, load_encoder("logmel"), tmp_path / "frames", pool=2)
    protocol = make_protocol("sessions", tones)
    with pytest.raises(CorpusError, match=f"1 utterances have no frames; first {first.id}: .*broken"):
        cross_validate(store, tones, protocol, tmp_path / "run", tiny_recipe)
    partial = replace(tones, utterances=tuple(others[:-1]))
    store = extract(partial, load_encoder("logmel"), tmp_path / "fewer", pool=2)
    with pytest.raises(CorpusError, match=r"2 utterances .* it was not in the table that was extracted"):
        cross_validate(store, tones, protocol, tmp_path / "run", tiny_recipe)


def test_talkers_on_both_sides_are_refused(tone_store, labelled, protocol, tiny_recipe, tmp_path):
    fold = protocol.folds[0]
    ids = fold.train + fold.test
    mixed = replace(protocol, folds=(Fold("mixed", ids[::2], fold.validation, ids[1::2]),))
    with pytest.raises(CorpusError, match="both train and test"):
        cross_validate(tone_store, labelled, mixed, tmp_path / "run", tiny_recipe)


def test_a_label_that_the_protocol_lacks_is_named(tone_store, labelled, protocol, tiny_recipe, tmp_path):
    name = protocol.folds[0].test[0]
    other = replace(
        labelled, utterances=tuple(replace(u, emotion="bored") if u.id == name else u for u in labelled.utterances)
    )
    with pytest.raises(CorpusError, match=f"{name} is 'bored'"):
        cross_validate(tone_store, other, protocol, tmp_path / "run", tiny_recipe, system="linear")
    assert not (tmp_path / "run").exists()


def test_an_oracle_chooses_on_test_utterances_but_never_trains_on_them(
    tone_store, labelled, brief, tmp_path, monkeypatch
):
    oracle = make_protocol("sessions-ORACLE-val-is-test", labelled)
    array = tone_store.load()
    trained = []

    def watch(model, frames, labels, train, recipe, **how):
        trained.append((how["stage"].name, {array.ids[index] for index in train.tolist()}))
        return finetune(model, frames, labels, train, recipe, **how)

    finetune = systems.finetune
    monkeypatch.setattr(systems, "finetune", watch)
    run = cross_validate(tone_store, labelled, oracle, tmp_path, fresh(brief))
    assert [stage for stage, _ in trained] == ["FINETUNE", "FINETUNE"] * len(oracle.folds)
    for (_, ids), fold in zip(trained, [fold for fold in oracle.folds for _ in range(2)], strict=True):
        assert ids == set(fold.train)
        assert not ids & set(fold.test)
    assert load_run(run).protocol.oracle
    for fold in oracle.folds:  # what is scored is the very epoch that was best on the test utterances
        place = run / "folds" / fold.name / "seed-0"
        rows = rows_of(place / "predictions.csv")
        truth, prediction = (np.array([row[name] for row in rows]) for name in ("truth", "prediction"))
        best = max(float(row["validation_ua"]) for row in rows_of(place / "history.csv") if row["validation_ua"])
        assert unweighted_accuracy(truth, prediction, oracle.labels) == pytest.approx(best)


def test_a_transductive_run_says_so_and_sees_the_test_talkers_frames(tone_store, labelled, protocol, brief, tmp_path):
    one_fold = replace(protocol, folds=protocol.folds[:1])
    run = cross_validate(tone_store, labelled, one_fold, tmp_path / "run", with_data(brief, "transductive"))
    assert load_run(run).adapter_training == "transductive"
    assert "TRANSDUCTIVE" in load_run(run).name
    task = task_of(tone_store, labelled, protocol, with_data(brief, "transductive"), tmp_path / "a")
    assert not same(fit(task), fit(replace(task, array=shifted_test(task), folder=tmp_path / "b")))


def task_of(store: FrameStore, corpus: Corpus, protocol: Protocol, recipe: Recipe, folder: Path) -> Task:
    array = store.load()
    labels = classes_of(array.ids, corpus, protocol.labels)
    config = model_config(store, array, recipe, protocol.labels)
    return Task(array, labels, gather(store, ()).talkers, protocol.folds[0], config, recipe, 0, folder)


def fit(task: Task, system: str = "adapter"):
    return SYSTEMS[system](task, lambda *_: None)


def same(first, second) -> bool:
    ours, theirs = first.model.state_dict(), second.model.state_dict()
    return first.choice == second.choice and all(ours[name].equal(theirs[name]) for name in ours)


def shifted_test(task: Task) -> FrameArray:
    """The frames with those of the test talkers changed beyond recognition."""
    flat = task.array.flat.clone()
    starts = task.array.lengths.cumsum(0) - task.array.lengths
    for index in task.array.indices(task.fold.test).tolist():
        start, length = int(starts[index]), int(task.array.lengths[index])
        flat[start : start + length] = flat[start : start + length].flip(0) * -2 + 5
    return FrameArray(task.array.ids, flat, task.array.lengths, task.array.frame_rate)


@pytest.mark.parametrize("system", ["linear", "adapter"])
def test_test_talkers_frames_change_nothing_that_is_fitted_or_chosen(
    tone_store, labelled, protocol, brief, tmp_path, system
):
    task = task_of(tone_store, labelled, protocol, brief, tmp_path / "a")
    first = fit(task, system)
    second = fit(replace(task, array=shifted_test(task), folder=tmp_path / "b"), system)
    assert same(first, second)
    assert first.history == second.history
    assert not first.probabilities.allclose(second.probabilities)


@pytest.mark.parametrize("system", ["linear", "adapter"])
def test_labels_of_test_utterances_change_no_prediction(tone_store, labelled, protocol, brief, tmp_path, system):
    task = task_of(tone_store, labelled, protocol, brief, tmp_path / "a")
    test = task.array.indices(task.fold.test)
    labels = task.labels.clone()
    labels[test] = labels[test].flip(0)
    assert not labels.equal(task.labels)
    first, second = fit(task, system), fit(replace(task, labels=labels, folder=tmp_path / "b"), system)
    assert first.probabilities.equal(second.probabilities)
    assert same(first, second)


def test_utterances_of_other_labels_are_not_read(tone_store, labelled, brief, tmp_path):
    three = labelled.relabel({"angry": "angry", "neutral": "neutral", "sad": "sad"})
    protocol = make_protocol("sessions", three)
    array = tone_store.load()
    labels = classes_of(array.ids, three, protocol.labels)
    assert (labels == -1).sum() == len(labelled) - len(three)
    run = cross_validate(tone_store, three, protocol, tmp_path, brief, system="linear")
    rows = rows_of(run / "predictions.csv")
    assert len(rows) == len(three)
    assert {row["prediction"] for row in rows} <= {"angry", "neutral", "sad"}


def with_talker_statistics(recipe: Recipe) -> Recipe:
    return Recipe.from_toml(recipe.to_toml(), ["model.talker_statistics=z-norm"])


def test_talker_statistics_are_in_the_runs_name_and_change_it(tone_store, labelled, two_folds, brief, tmp_path):
    with_statistics, without = (
        cross_validate(tone_store, labelled, two_folds, tmp_path / name, recipe, system="linear")
        for name, recipe in (("with", with_talker_statistics(brief)), ("without", brief))
    )
    assert load_run(with_statistics).name == "linear probe, with talker statistics"
    assert load_run(without).name == "linear probe"
    said = json.loads((with_statistics / "run.json").read_text())
    assert said["talker_statistics"] == "z-norm"
    assert (with_statistics / "predictions.csv").read_bytes() != (without / "predictions.csv").read_bytes()
    with pytest.raises(StoreError, match="another talker_statistics and recipe"):
        cross_validate(tone_store, labelled, two_folds, without, with_talker_statistics(brief), system="linear")


def test_talker_statistics_work_where_some_emotions_are_left_out(tone_store, labelled, brief, tmp_path):
    two = labelled.relabel({"angry": "angry", "sad": "sad"})
    protocol = make_protocol("sessions", two)
    one_fold = replace(protocol, folds=protocol.folds[:1])
    run = cross_validate(tone_store, two, one_fold, tmp_path, with_talker_statistics(brief), system="linear")
    assert len(load_run(run).predictions) == len(one_fold.folds[0].test)


def test_a_model_to_ship_has_no_talker_statistics(tone_store, labelled, brief, tmp_path):
    for ship in (
        lambda: train_model(tone_store, labelled, tmp_path / "model", with_talker_statistics(brief)),
        lambda: adapt_store(tone_store, tmp_path / "model", with_talker_statistics(brief)),
    ):
        with pytest.raises(UsageError, match="a model to ship hears one recording, not all of a talker's"):
            ship()
    assert not (tmp_path / "model").exists()


def test_an_adapter_from_elsewhere_needs_an_elsewhere(tone_store, labelled, protocol, brief, tmp_path):
    with pytest.raises(UsageError, match="give the other corpora with --unlabelled"):
        cross_validate(tone_store, labelled, protocol, tmp_path / "run", with_data(brief, "elsewhere"))
    with pytest.raises(UsageError, match="run `serein adapt` on the other corpus, and give --adapter"):
        train_model(tone_store, labelled, tmp_path / "model", with_data(brief, "elsewhere"))
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def other(tones: Corpus, tmp_path_factory) -> FrameStore:
    """Four recordings that are not the corpus's."""
    folder = tmp_path_factory.mktemp("other")
    quieter = []
    for utterance in tones.utterances[:4]:
        samples, rate = soundfile.read(utterance.path)
        soundfile.write(folder / utterance.path.name, samples / 2, rate)
        quieter.append(replace(utterance, path=folder / utterance.path.name))
    return extract(Corpus("quiet", tuple(quieter)), load_encoder("logmel"), folder / "frames", pool=2)


@pytest.fixture(scope="module")
def slow(tones: Corpus, tmp_path_factory) -> FrameStore:
    return extract(tones, load_encoder("logmel"), tmp_path_factory.mktemp("slow") / "frames", pool=2, speed=0.9)


def test_what_the_run_hears_is_in_its_name():
    for given, name in (
        (("linear", "none", False), "linear probe"),
        (("adapter", "inductive", False), "adapter, trained without labels"),
    ):
        assert run_name(*given) == name
        assert run_name(*given, speeds=3) == f"{name}, heard at 3 speeds"
        assert run_name(*given, members=5) == (name if given[0] == "linear" else f"{name}, 5 averaged")
        assert run_name(*given, others=["a", "b", "a"]) == f"{name}, and a, b"
    assert run_name("adapter", "elsewhere", True, others=["a"], speeds=2) == (
        "adapter, trained without labels on other corpora (a), heard at 2 speeds, with talker statistics"
    )


def test_to_judge_at_every_speed_is_in_the_runs_name_and_needs_a_view(
    tone_store, labelled, two_folds, brief, slow, tmp_path
):
    recipe = Recipe.from_toml(brief.to_toml(), ["model.test_views=true"])
    for refused in (
        lambda: cross_validate(tone_store, labelled, two_folds, tmp_path / "run", recipe, system="linear"),
        lambda: train_model(tone_store, labelled, tmp_path / "model", recipe),
    ):
        with pytest.raises(UsageError, match=r"model\.test_views: there is no view to judge at; .*--view"):
            refused()
    assert not list(tmp_path.iterdir())
    runs = [
        cross_validate(tone_store, labelled, two_folds, tmp_path / name, asked, system="linear", views=[slow])
        for name, asked in (("all", recipe), ("one", brief))
    ]
    assert [load_run(run).name for run in runs] == ["linear probe, heard at 2 speeds", "linear probe"]


def test_a_view_of_another_table_does_not_continue_a_run(tone_store, tones, two_folds, brief, slow, tmp_path):
    labelled = tone_store.corpus()
    run = cross_validate(tone_store, labelled, two_folds, tmp_path / "run", brief, system="linear", views=[slow])
    longer = replace(tones, utterances=tuple(replace(u, seconds=9.0) for u in tones))
    other = extract(longer, load_encoder("logmel"), tmp_path / "slow", pool=2, speed=0.9)
    with pytest.raises(StoreError, match="holds a run with another views;"):
        cross_validate(tone_store, labelled, two_folds, run, brief, system="linear", views=[other])


@pytest.mark.parametrize(("system", "data"), [("linear", "elsewhere"), ("linear", "inductive"), ("adapter", "none")])
def test_where_no_adapter_is_trained_other_corpora_are_left_aside(
    tone_store, labelled, two_folds, brief, other, tmp_path, monkeypatch, system, data
):
    one_fold = replace(two_folds, folds=two_folds.folds[:1])
    recipe = with_data(brief, data)
    run = cross_validate(tone_store, labelled, one_fold, tmp_path / "run", recipe, system=system, unlabelled=[other])
    without = cross_validate(tone_store, labelled, one_fold, tmp_path / "without", recipe, system=system)
    assert json.loads((run / "run.json").read_text()) == json.loads((without / "run.json").read_text())
    assert (run / "predictions.csv").read_bytes() == (without / "predictions.csv").read_bytes()


def test_the_corpus_itself_is_no_other_corpus(tone_store, labelled, two_folds, brief, tmp_path):
    with pytest.raises(CorpusError, match="hear test talkers"):
        cross_validate(tone_store, labelled, two_folds, tmp_path / "run", brief, unlabelled=[tone_store])
    assert not (tmp_path / "run").exists()


def test_a_run_with_views_or_other_corpora_is_not_continued_without_them(
    tone_store, labelled, two_folds, brief, other, tmp_path
):
    recipe = with_data(brief, "elsewhere")
    run = cross_validate(tone_store, labelled, two_folds, tmp_path / "run", recipe, unlabelled=[other])
    assert load_run(run).name == "adapter, trained without labels on other corpora (quiet)"
    assert json.loads((run / "run.json").read_text())["unlabelled"] == ["quiet"]
    with pytest.raises(StoreError, match="holds a run with another frames and unlabelled and truths and talkers;"):
        cross_validate(tone_store, labelled, two_folds, run, recipe, unlabelled=[other, other])
    with pytest.raises(UsageError, match="give the other corpora with --unlabelled"):
        cross_validate(tone_store, labelled, two_folds, run, recipe)
