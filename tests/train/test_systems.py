import json
import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from serein.corpus.corpus import Corpus
from serein.corpus.protocol import Protocol
from serein.corpus.splits import make_protocol
from serein.errors import Diverged
from serein.evaluate.runs import load_run
from serein.frames.batches import FrameArray, frame_budget, plan_batches
from serein.frames.encoder import load_encoder
from serein.frames.extract import extract
from serein.frames.store import FrameStore
from serein.nn.transformer import standardise_with
from serein.progress import quiet
from serein.recipe import Recipe
from serein.train import systems
from serein.train.adapt import fresh_adapter
from serein.train.crossval import classes_of, cross_validate, model_config
from serein.train.finetune import best_row, in_batches
from serein.train.heads import HEADS
from serein.train.machine import Stage
from serein.train.material import Material, gather
from serein.train.names import NAMES
from serein.train.systems import SYSTEMS, baseline
from serein.train.task import Outcome, Task, scores_of_logits


@pytest.fixture(scope="module")
def few(tones: Corpus) -> Corpus:
    return Corpus("few", tuple(utterance for utterance in tones if utterance.id[-1] in "01"))


@pytest.fixture(scope="module")
def store(few: Corpus, tmp_path_factory) -> FrameStore:
    return extract(few, load_encoder("logmel"), tmp_path_factory.mktemp("few") / "frames", pool=2)


@pytest.fixture(scope="module")
def material(few: Corpus, store: FrameStore, tones: Corpus, tmp_path_factory) -> Material:
    """The store with a view of it and four unlabelled utterances."""
    folder = tmp_path_factory.mktemp("more")
    view = extract(few, load_encoder("logmel"), folder / "slow", pool=2, speed=0.9)
    other = extract(
        Corpus("other", tuple(u for u in tones if u.id[-1] in "23")[:4]),
        load_encoder("logmel"),
        folder / "other",
        pool=2,
    )
    return gather(store, (), views=[view], unlabelled=[other])


@pytest.fixture(scope="module")
def one_fold(few: Corpus) -> Protocol:
    protocol = make_protocol("sessions", few)
    return replace(protocol, folds=protocol.folds[:1])


@pytest.fixture(scope="module")
def brief(tiny_recipe: Recipe) -> Recipe:
    return Recipe.from_toml(tiny_recipe.to_toml(), ["finetune.epochs=2", "adapt.epochs=1"])


@pytest.fixture
def task(material: Material, store: FrameStore, few: Corpus, one_fold: Protocol, brief: Recipe, tmp_path: Path) -> Task:
    array = material.array
    return Task(
        array, classes_of(array.ids, few, one_fold.labels), material.talkers, one_fold.folds[0],
        model_config(store, array, brief, one_fold.labels), brief, 0, tmp_path,
        views=material.views, elsewhere=material.elsewhere,
    )  # fmt: skip


def names(task: Task, indices: torch.Tensor) -> set[str]:
    return {task.array.ids[index] for index in indices.tolist()}


def at_both_speeds(*ids: str) -> set[str]:
    return {*ids, *(f"{name}@0.9" for name in ids)}


@pytest.mark.parametrize("system", [*sorted(set(HEADS) - {"co-att"}), "lpmn-selected"])  # co-att: test_beside
def test_every_baseline_trains_and_leaves_a_run_that_can_be_read(store, few, one_fold, brief, tmp_path, system):
    recipe = Recipe.from_toml(brief.to_toml(), ["finetune.epochs=4"])
    folder = cross_validate(store, few, one_fold, tmp_path, recipe, system=system)
    run = load_run(folder)
    assert (run.system, run.name, run.adapter_training) == (system, NAMES[system], "none")
    assert [prediction.id for prediction in run.predictions] == list(one_fold.folds[0].test)
    (fold,) = run.fold_runs
    assert set(fold.seconds) == {"finetune", "refit", "test"}
    assert set(fold.trainable_parameters) == {"head"}
    history = (folder / "folds" / one_fold.folds[0].name / "seed-0" / "history.csv").read_text().splitlines()
    columns = history[0].split(",")
    rows = [dict(zip(columns, line.split(","), strict=True)) for line in history[1:]]
    first = [row for row in rows if row["stage"] == "finetune"]
    losses = [[float(row["loss"]) for row in first if row["epoch"] == epoch] for epoch in "03"]
    assert sum(losses[1]) / len(losses[1]) < sum(losses[0]) / len(losses[0])
    assert len([row for row in first if row["validation_ua"]]) == 4
    assert {row["stage"] for row in rows} == {"finetune", "refit"}


@pytest.mark.parametrize("system", ["superb", "w2v2-pt", "adapter"])
def test_the_refit_learns_from_training_and_validation_talkers_and_their_views(task, monkeypatch, system):
    trained, judged = [], []

    def watch(model, array, labels, train, recipe, **how):
        trained.append(names(task, train))
        judged.append(how["validation"])
        return finetune(model, array, labels, train, recipe, **how)

    finetune = systems.finetune
    monkeypatch.setattr(systems, "finetune", watch)
    SYSTEMS[system](task, quiet)
    fold = task.fold
    assert trained == [at_both_speeds(*fold.train), at_both_speeds(*fold.train, *fold.validation)]
    assert judged[0].equal(task.parts().validation)  # no views, and all of them
    assert judged[1] is None


def test_a_baseline_chooses_its_rate_on_the_validation_talkers_and_refits_at_it(task, monkeypatch, tmp_path):
    def at(*rates: float) -> Task:
        changes = [f"finetune.baseline_learning_rates={list(rates)}", "finetune.epochs=4"]
        folder = tmp_path / str(len(rates))
        folder.mkdir()
        return replace(task, recipe=Recipe.from_toml(task.recipe.to_toml(), changes), folder=folder)

    trained = []

    def watch(model, array, labels, train, recipe, **how):
        trained.append((recipe.finetune.head_learning_rate, how["stage"]))
        return finetune(model, array, labels, train, recipe, **how)

    finetune = systems.finetune
    monkeypatch.setattr(systems, "finetune", watch)
    rates = (1e-6, 1e-2, 1e-7)
    outcome = SYSTEMS["superb"](at(*rates), quiet)
    assert trained == [*((rate, Stage.FINETUNE) for rate in rates), (1e-2, Stage.REFIT)]
    alone = SYSTEMS["superb"](at(1e-2), quiet)
    assert outcome.choice == {**alone.choice, "learning_rate": 1e-2}
    assert outcome.probabilities.equal(alone.probabilities)
    assert [row for row in outcome.history if row["stage"] != "tried"] == alone.history
    tried = [row for row in outcome.history if row["stage"] == "tried"]
    assert max(row["learning_rate"] for row in tried) == 1e-6
    assert max(row.get("validation_ua", 0) for row in tried) < best_row(alone.history)["validation_ua"]


def test_of_rates_that_tie_the_first_is_taken(task):
    rates = [3e-12, 1e-12, 5e-12, 2e-12, 4e-12]  # at none of which anything is learned
    recipe = Recipe.from_toml(task.recipe.to_toml(), [f"finetune.baseline_learning_rates={rates}", "finetune.epochs=1"])
    outcome = SYSTEMS["superb"](replace(task, recipe=recipe), quiet)
    assert len({row["validation_ua"] for row in outcome.history if "validation_ua" in row}) == 1
    assert outcome.choice["learning_rate"] == rates[0]


def test_a_rate_that_diverges_is_passed_over_and_counted_unless_all_do(task, tmp_path):
    def at(*rates: float) -> Outcome:
        changes = [f"finetune.baseline_learning_rates={list(rates)}", "finetune.epochs=2"]
        folder = tmp_path / str(rates)
        folder.mkdir()
        recipe = Recipe.from_toml(task.recipe.to_toml(), changes)
        return SYSTEMS["superb"](replace(task, recipe=recipe, folder=folder), quiet)

    alone, outcome = at(1e-2), at(1e30, 1e-2, 1e30)
    assert outcome.choice == {**alone.choice, "learning_rate": 1e-2, "diverged_rates": 1}
    assert outcome.probabilities.equal(alone.probabilities)
    assert outcome.history == alone.history
    with pytest.raises(Diverged, match=r"finetune: the loss is .* head_learning_rate 9\.6e.28"):
        at(1e30, 1e29)


def test_a_training_that_diverges_in_its_last_step_is_told(task):
    changes = ["finetune.baseline_learning_rates=[1e38]", "finetune.epochs=1", "finetune.batch_size=1000"]
    with pytest.raises(Diverged, match=r"finetune: a weight is .* after the last step.* head_learning_rate 1e\+38"):
        SYSTEMS["superb"](replace(task, recipe=Recipe.from_toml(task.recipe.to_toml(), changes)), quiet)


def test_a_rate_whose_refit_diverges_gives_way_to_the_next_best(task, tmp_path, monkeypatch):
    def at(name: str, *rates: float) -> Outcome:
        recipe = Recipe.from_toml(task.recipe.to_toml(), [f"finetune.baseline_learning_rates={list(rates)}"])
        return SYSTEMS["superb"](replace(task, recipe=recipe, folder=tmp_path / name), quiet)

    best = at("both", 1e-2, 3e-3).choice["learning_rate"]
    (other,) = {1e-2, 3e-3} - {best}
    alone = at("other", other)
    original = systems.finetune

    def diverge(*arguments, stage, **how):
        if stage == Stage.REFIT and arguments[4].finetune.head_learning_rate == best:
            time.sleep(0.2)
            raise Diverged("refit")
        return original(*arguments, stage=stage, **how)

    monkeypatch.setattr(systems, "finetune", diverge)
    outcome = at("diverged", 1e-2, 3e-3)
    assert outcome.choice == {**alone.choice, "learning_rate": other, "diverged_rates": 1}
    assert outcome.probabilities.equal(alone.probabilities)
    tried = [row for row in outcome.history if row["stage"] == "tried"]
    assert len(tried) == len([row for row in alone.history if row["stage"] == "finetune"])
    assert max(row["learning_rate"] for row in tried) == pytest.approx(best)
    assert [row for row in outcome.history if row["stage"] != "tried"] == alone.history
    assert outcome.seconds["refit"] >= 0.2  # what came to nothing was work, too
    with pytest.raises(Diverged):
        at("best", best)


def test_a_choice_of_rates_that_was_killed_in_the_second_goes_on_there(task, tmp_path):
    def at(name: str) -> Task:
        changes = ["finetune.baseline_learning_rates=[1e-2, 1e-3]", "speed.checkpoint_seconds=0"]
        (tmp_path / name).mkdir(exist_ok=True)
        return replace(task, recipe=Recipe.from_toml(task.recipe.to_toml(), changes), folder=tmp_path / name)

    seen: list[tuple[str, int]] = []

    def kill(stage, done, total, facts):
        seen.append((stage, done))
        if seen.count(("finetune", 2)) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SYSTEMS["superb"](at("killed"), kill)
    steps = []
    again = SYSTEMS["superb"](at("killed"), lambda stage, done, total, facts: steps.append((stage, done)))
    assert steps[0] == ("finetune", 3)
    whole = SYSTEMS["superb"](at("whole"), quiet)
    assert again.probabilities.equal(whole.probabilities)
    assert again.history == whole.history


@pytest.mark.parametrize("system", ["superb", "adapter"])
def test_first_training_and_refit_are_laid_out_for_the_least_number_of_steps(task, system):
    lengths = task.array.lengths[task.with_views(task.labelled())]
    batches = plan_batches(lengths, frame_budget(lengths, task.recipe.finetune.batch_size), seed=task.seed, epoch=0)
    steps = 3 * len(batches) + 1  # for 2 epochs, 4
    more = replace(task, recipe=Recipe.from_toml(task.recipe.to_toml(), [f"finetune.min_steps={steps}"]))
    outcome = SYSTEMS[system](more, quiet)
    first = [row for row in outcome.history if row["stage"] == "finetune"]
    assert {row["epoch"] for row in first} == {0, 1, 2, 3}
    assert len(first) == 4 * len(batches)
    refit = [row for row in outcome.history if row["stage"] == "refit"]
    assert len({row["epoch"] for row in refit}) == outcome.choice["epochs"]
    epochs = len({row["epoch"] for row in first})
    per_epoch = len([row for row in refit if row["epoch"] == 0])
    rate = refit[-1]["learning_rate"] / refit[0]["learning_rate"]  # a cosine from 1 to 0 over all epochs
    assert rate == pytest.approx((1 + math.cos(math.pi * (len(refit) - 1) / (epochs * per_epoch))) / 2, rel=1e-6)


def test_the_probe_takes_the_strength_with_the_best_ua_of_the_validation_talkers(task, monkeypatch):
    labels, known = task.labels.clone(), (task.labels >= 0).nonzero().squeeze(1)
    labels[known] = labels[known[torch.randperm(len(known), generator=torch.Generator().manual_seed(2))]]
    fold = replace(task.fold, validation=task.fold.validation[3:])  # where labels are not equally many
    task = replace(task, labels=labels, fold=fold)
    fitted = []

    def watch(features, truth, classes, *strengths):
        fitted.append(strengths)
        return original(features, truth, classes, *strengths)

    original = systems.fit_linear_probes
    monkeypatch.setattr(systems, "fit_linear_probes", watch)
    outcome = systems.linear_probe(task)
    train, validation, _ = task.parts()
    train = task.with_views(train)
    features = task.array.pooled(torch.arange(len(task.array.ids))).flatten(1)
    uas, was = [], []
    for probe in original(features[train], task.labels[train], 4, *systems.PROBE_C):
        answers = probe.read(features[validation]).argmax(1)
        was.append(accuracy_score(task.labels[validation], answers))
        uas.append(balanced_accuracy_score(task.labels[validation], answers))
        assert uas[-1] != was[-1]
    assert min(uas) < max(uas)
    best = systems.PROBE_C[uas.index(max(uas))]  # of equals the first, which is the simplest
    wa = was[systems.PROBE_C.index(best)]
    assert outcome.choice == {"C": best, "validation_ua": pytest.approx(max(uas)), "validation_wa": pytest.approx(wa)}
    assert fitted == [systems.PROBE_C, (best,)]


@pytest.mark.parametrize("system", ["linear", "lpmn-selected"])
def test_with_test_views_a_test_utterance_has_the_mean_over_its_speeds(task, system):
    task = at_all_speeds(task)
    outcome = SYSTEMS[system](task, quiet)
    (test,) = [task.parts().test]
    said = []
    for indices in (test, task.with_views(test)[len(test) :]):
        said.append(in_batches(outcome.model, task.array, indices, task.recipe.speed).softmax(1))
    assert not torch.allclose(*said, atol=1e-3)
    assert torch.allclose(outcome.probabilities, (said[0] + said[1]) / 2, atol=1e-5)


@pytest.mark.parametrize("system", ["superb", "adapter"])
def test_the_embeddings_are_what_the_output_layer_sees_of_the_test_utterances(task, system):
    outcome = SYSTEMS[system](task, quiet)
    expected = in_batches(outcome.model.embed, task.array, task.parts().test, task.recipe.speed)
    assert torch.allclose(outcome.embeddings["system"], expected, atol=1e-5)


def at_all_speeds(task: Task) -> Task:
    return replace(task, recipe=Recipe.from_toml(task.recipe.to_toml(), ["model.test_views=true"]))


@pytest.mark.parametrize("system", ["superb", "adapter"])
def test_with_test_views_epochs_are_chosen_as_the_test_is_judged(task, monkeypatch, system):
    judged = []

    def watch(*arguments, **how):
        rows = finetune(*arguments, **how)
        if how["validation"] is not None:
            judged.append((arguments[0], how["validation"], rows[-1]))
        return rows

    finetune = systems.finetune
    monkeypatch.setattr(systems, "finetune", watch)
    task = at_all_speeds(task)
    SYSTEMS[system](task, quiet)
    ((model, heard, last),) = judged
    validation = task.parts().validation
    assert names(task, heard) == at_both_speeds(*task.fold.validation)
    probabilities = in_batches(model, task.array, heard, task.recipe.speed).softmax(1)
    mean = (probabilities[: len(validation)] + probabilities[len(validation) :]) / 2
    assert last["validation_ua"] == scores_of_logits(mean, task.labels[validation], task.config.labels).ua
    picked = mean[torch.arange(len(validation)), task.labels[validation]]
    assert last["validation_loss"] == pytest.approx(-picked.log().mean().item(), rel=1e-4)


def test_with_test_views_the_probe_chooses_c_as_the_test_is_judged(task, monkeypatch):
    scored = []

    def watch(logits, labels, classes):
        scored.append(logits)
        return scores_of_logits(logits, labels, classes)

    monkeypatch.setattr(systems, "scores_of_logits", watch)
    SYSTEMS["linear"](task, quiet)
    plain = scored.copy()
    scored.clear()
    validation = task.parts().validation
    SYSTEMS["linear"](at_all_speeds(task), quiet)
    for one, both in zip(plain, scored, strict=True):
        assert one.shape == both.shape == (len(validation), len(task.config.labels))
        assert not torch.allclose(one.softmax(1), both.softmax(1), atol=1e-3)
        assert torch.allclose(both.exp().sum(1), torch.ones(len(validation)), atol=1e-5)  # of mean probabilities


def test_the_linear_probe_does_not_listen_to_other_corpora(task, monkeypatch):
    pooled, original = [], FrameArray.pooled

    def watch(array, indices):
        pooled.extend(array.ids[index] for index in indices.tolist())
        return original(array, indices)

    monkeypatch.setattr(FrameArray, "pooled", watch)
    SYSTEMS["linear"](task, quiet)
    assert not [name for name in pooled if name.startswith("other/")]


@pytest.mark.parametrize("stage", ["FINETUNE", "REFIT"])
def test_snp_trains_against_all_of_its_talkers_and_no_others(task, monkeypatch, stage):
    shown: dict[str, set[int]] = {}

    def watch(model, array, labels, train, recipe, **how):
        shown[how["stage"].name] = set(how["talkers"][train].tolist())
        shown["outputs"] = set(range(model.talker_output.out_features))
        return finetune(model, array, labels, train, recipe, **how)

    finetune = systems.finetune
    monkeypatch.setattr(systems, "finetune", watch)
    SYSTEMS["snp"](task, quiet)
    assert shown["REFIT"] == shown["outputs"] == set(range(2 * 4))  # four of six talkers, at two speeds
    assert shown[stage] <= shown["outputs"]


def test_the_linear_probe_learns_from_views_too_and_is_judged_without(task, monkeypatch):
    fitted = []

    def watch(statistics, labels, classes, *strengths):
        fitted.append(len(labels))
        assert labels.min() >= 0
        return fit(statistics, labels, classes, *strengths)

    fit = systems.fit_linear_probes
    monkeypatch.setattr(systems, "fit_linear_probes", watch)
    outcome = SYSTEMS["linear"](task, quiet)
    train, validation = len(task.fold.train), len(task.fold.validation)
    assert fitted == [2 * train, 2 * (train + validation)]
    assert len(outcome.probabilities) == len(task.fold.test)


@pytest.mark.parametrize("system", ["linear", "emobox"])
def test_a_share_of_the_labels_trains_and_all_validation_labels_judge(task, monkeypatch, system):
    seen: list[int] = []
    inner = {"linear": "fit_linear_probes", "emobox": "finetune"}[system]
    original = getattr(systems, inner)

    def watch(*arguments, **how):
        seen.append(len(arguments[1] if system == "linear" else arguments[3]))
        if how.get("validation") is not None:
            assert how["validation"].equal(task.parts().validation)
        return original(*arguments, **how)

    monkeypatch.setattr(systems, inner, watch)
    recipe = Recipe.from_toml(task.recipe.to_toml(), ["finetune.label_share=0.5"])
    quarter = replace(task, recipe=recipe)
    SYSTEMS[system](quarter, quiet)
    assert seen[0] == len(task.fold.train)  # half of them, at two speeds
    assert seen[-1] == len(task.fold.train) + len(task.fold.validation)


def test_a_baseline_standardises_with_the_training_talkers_and_their_views_alone(task):
    model = baseline(HEADS["emobox"], task).model
    mean, deviation = task.array.moments(task.with_views(task.parts().train))
    assert model.front_end.mean.equal(mean)
    assert model.front_end.deviation.equal(deviation)


def test_who_speaks_matters_to_snp_and_to_no_other(task):
    strangers = replace(task, talkers=task.talkers.flip(0))
    for system, differs in (("snp", True), ("emobox", False)):
        first = baseline(HEADS[system], replace(task, folder=task.folder / system)).probabilities
        second = baseline(HEADS[system], replace(strangers, folder=task.folder / f"{system}-2")).probabilities
        assert first.equal(second) is not differs


def test_head_k_learns_otherwise_than_the_same_head_with_plain_cross_entropy(task):
    first = baseline(HEADS["emobox"], task)
    second = baseline(HEADS["head-k"], replace(task, folder=task.folder / "other"))
    assert first.parameters == second.parameters
    assert not first.probabilities.allclose(second.probabilities, atol=1e-4)


def test_prototypes_are_selected_from_the_training_that_a_study_already_has(task, tmp_path):
    steps = []

    def run(system: str, folder: str, **facts) -> torch.Tensor:
        steps.clear()
        shared = replace(task, folder=tmp_path / folder, shared=tmp_path / "shared", **facts)
        return SYSTEMS[system](shared, lambda stage, *_: steps.append(stage)).probabilities

    alone = SYSTEMS["lpmn-selected"](task, quiet).probabilities
    run("lpmn", "lpmn")
    assert steps.count("finetune") > 0
    assert run("lpmn-selected", "selected").equal(alone)
    assert not steps
    run("lpmn-selected", "seed", seed=1)
    assert steps
    assert not run("emobox", "emobox").equal(alone)
    assert all(path.name.startswith("LPMN") for path in (tmp_path / "shared").iterdir())


def test_selected_prototypes_are_three_in_five_of_the_same_training(task):
    whole = baseline(HEADS["lpmn"], task)
    part = SYSTEMS["lpmn-selected"](replace(task, folder=task.folder / "other"), quiet)
    kept = part.model.output.weight.norm(dim=0) > 0
    assert kept.sum() == round(0.6 * 1024)
    assert part.model.output.weight[:, kept].equal(whole.model.output.weight[:, kept])
    assert not part.probabilities.equal(whole.probabilities)
    assert torch.allclose(part.probabilities.sum(1), torch.ones(len(task.fold.test)), atol=1e-5)


def heard_in_adapter_training(task: Task, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Ids of all utterances whose frames adapter training touches, by any way into the array."""
    heard: set[str] = set()
    adapt, originals = systems.adapt, {name: getattr(FrameArray, name) for name in ("batch", "moments", "pooled")}

    def spied(*arguments, **how):
        with monkeypatch.context() as patch:
            for name, original in originals.items():

                def watch(array, indices, original=original):
                    heard.update(array.ids[index] for index in indices.tolist())
                    return original(array, indices)

                patch.setattr(FrameArray, name, watch)
            return adapt(*arguments, **how)

    monkeypatch.setattr(systems, "adapt", spied)
    SYSTEMS["adapter"](task, quiet)
    return heard


def with_data(task: Task, data: str) -> Task:
    return replace(task, recipe=Recipe.from_toml(task.recipe.to_toml(), [f"adapt.data={data}"]))


@pytest.mark.parametrize("data", ["inductive", "transductive", "elsewhere", "none"])
def test_adapter_training_hears_whom_it_says_and_nobody_else(task, monkeypatch, data):
    fold = task.fold
    others = {name for name in task.array.ids if name.startswith("other/0/")}
    assert len(others) == 4
    assert (
        heard_in_adapter_training(with_data(task, data), monkeypatch)
        == {
            "inductive": at_both_speeds(*fold.train) | others,
            "transductive": at_both_speeds(*fold.train, *fold.validation, *fold.test) | others,
            "elsewhere": others,
            "none": set(),
        }[data]
    )


def test_a_fresh_adapter_standardises_with_the_training_talkers_alone(task):
    model = SYSTEMS["adapter"](with_data(task, "none"), quiet).model
    assert model.adapter.front_end.mean.equal(task.array.moments(task.with_views(task.parts().train))[0])


@pytest.mark.parametrize("data", ["inductive", "elsewhere", "transductive"])
def test_each_corpus_is_standardised_by_itself_and_labels_are_learned_as_without_the_others(task, monkeypatch, data):
    heard = []

    def spy(array, indices, *arguments, **how):
        heard.append((array, indices))
        return adapt(array, indices, *arguments, **how)

    adapt = systems.adapt
    monkeypatch.setattr(systems, "adapt", spy)
    first, second = task.elsewhere[0].split(2)
    loud = task.array.flat.clone()  # as from other rooms
    for others, factor in ((first, 3), (second, 2)):
        start, end = (int(task.array.lengths[:place].sum()) for place in (others[0], others[-1] + 1))
        loud[start:end] = factor * loud[start:end] + factor
    task = with_data(replace(task, array=replace(task.array, flat=loud), elsewhere=(first, second)), data)
    outcome = SYSTEMS["adapter"](task, quiet)
    ((array, indices),) = heard
    train = task.with_views(task.own[: len(task.own) // 2] if data == "transductive" else task.parts().train)
    own = set() if data == "elsewhere" else {*train.tolist()}
    assert set(indices.tolist()) == {*first.tolist(), *second.tolist()} | own
    for members in (first, second, train):
        mean, deviation = array.moments(members)
        assert torch.allclose(mean, torch.zeros(1, 80), atol=2e-3)
        assert torch.allclose(deviation, torch.ones(1, 80), atol=2e-3)
    for moment, expected in zip(
        (outcome.model.adapter.front_end.mean, outcome.model.adapter.front_end.deviation),
        task.array.moments(train),
        strict=True,
    ):
        assert moment.equal(expected)


def test_an_adapter_that_is_given_standardises_as_a_fresh_one(task):
    given = fresh_adapter(task.config, (torch.full((1, 80), 9.0), torch.full((1, 80), 7.0)), 0)
    model = SYSTEMS["adapter"](replace(task, pretrained=given), quiet).model
    assert model.adapter.front_end.mean.equal(task.array.moments(task.with_views(task.parts().train))[0])
    assert given.front_end.mean.equal(torch.full((1, 80), 9.0))


def test_batch_norm_trains_continues_to_the_same_bits_and_can_be_read(store, few, one_fold, brief, tmp_path):
    more = ["model.pooled_norm=batch", "adapt.data=none", "speed.checkpoint_seconds=0"]
    recipe = Recipe.from_toml(brief.to_toml(), more)
    whole = cross_validate(store, few, one_fold, tmp_path / "whole", recipe)

    def kill(stage, done, total, facts):
        if (stage, done) == ("refit", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cross_validate(store, few, one_fold, tmp_path / "killed", recipe, report=kill)
    killed = cross_validate(store, few, one_fold, tmp_path / "killed", recipe)
    assert (killed / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()
    assert load_run(whole).name == "adapter, fresh"
    assert json.loads((whole / "run.json").read_text())["views"] == []


def with_members(task: Task, members: int, *changes: str) -> Task:
    return replace(task, recipe=Recipe.from_toml(task.recipe.to_toml(), [f"model.members={members}", *changes]))


@pytest.mark.parametrize("system", ["emobox", "adapter"])
def test_a_committee_is_refits_from_several_seeds_after_one_choice(task, monkeypatch, system):
    seeds, models = [], []

    def watch(model, *arguments, **how):
        seeds.append((how["stage"].name, how["seed"]))
        models.append(model)
        return finetune(model, *arguments, **how)

    finetune = systems.finetune
    monkeypatch.setattr(systems, "finetune", watch)
    outcome = SYSTEMS[system](with_members(task, 3), quiet)
    assert seeds == [("FINETUNE", 0), ("REFIT", 0), ("REFIT", 1000), ("REFIT", 2000)]
    test = task.parts().test
    alone = [in_batches(member, task.array, test, task.recipe.speed).softmax(1) for member in models[1:]]
    assert not alone[0].allclose(alone[1], atol=1e-3)
    assert torch.allclose(outcome.probabilities, sum(alone) / 3, atol=1e-5)
    assert sum(outcome.parameters.values()) == 3 * sum(p.numel() for p in models[0].parameters())
    single = SYSTEMS[system](replace(task, folder=task.folder / "single"), quiet)
    assert torch.allclose(single.probabilities, alone[0], atol=1e-6)
    assert outcome.choice == single.choice


def test_each_member_of_a_committee_keeps_three_in_five_of_its_prototypes(task):
    outcome = SYSTEMS["lpmn-selected"](with_members(task, 2), quiet)
    kept = [(member.output.weight.norm(dim=0) > 0).sum() for member in outcome.model.members]
    assert kept == [round(0.6 * 1024)] * 2


def test_the_members_of_a_committee_start_from_one_adapter_that_was_trained_without_labels(task, monkeypatch):
    starts = []

    def watch(config, recipe, start, seed):
        starts.append({name: tensor.clone() for name, tensor in start.state_dict().items()})
        return fresh_classifier(config, recipe, start, seed)

    fresh_classifier = systems.fresh_classifier
    monkeypatch.setattr(systems, "fresh_classifier", watch)
    systems.adapter(with_members(task, 2, "adapt.data=inductive"), quiet)
    assert len(starts) == 3
    assert all(start[name].equal(tensor) for start in starts[1:] for name, tensor in starts[0].items())
    starts.clear()
    systems.adapter(replace(with_members(task, 2, "adapt.data=none"), folder=task.folder / "fresh"), quiet)
    assert starts[0]["embed.weight"].equal(starts[1]["embed.weight"])
    assert not starts[0]["embed.weight"].equal(starts[2]["embed.weight"])


def test_the_spaces_of_the_adapter_before_labels_are_its_mean_frames_fresh_and_trained(task, monkeypatch):
    handed = []

    def watch(*arguments, **how):
        handed.append(adapt(*arguments, **how))
        return handed[-1]

    adapt = systems.adapt
    monkeypatch.setattr(systems, "adapt", watch)
    trained = replace(task, recipe=Recipe.from_toml(task.recipe.to_toml(), ["adapt.data=inductive"]))
    outcome = systems.adapter(trained, quiet)
    assert list(outcome.embeddings) == ["encoder", "system", "fresh adapter", "adapter without labels"]
    frames, _, padding_mask = task.array.batch(task.parts().test[:1])
    moments = task.array.moments(task.with_views(task.parts().train))
    untrained = fresh_adapter(task.config, moments, task.seed)
    standardise_with(handed[0].adapter.front_end, moments)
    for space, network in (("fresh adapter", untrained), ("adapter without labels", handed[0].adapter)):
        with torch.no_grad():
            expected = network.eval()(frames, padding_mask).mean(1)
        assert torch.allclose(outcome.embeddings[space][:1], expected, atol=0.02)  # bf16 where there is
    fresh = replace(task, recipe=Recipe.from_toml(task.recipe.to_toml(), ["adapt.data=none"]), folder=task.folder / "f")
    spaces = systems.adapter(fresh, quiet).embeddings
    assert list(spaces) == ["encoder", "system", "fresh adapter"]
    assert spaces["fresh adapter"].equal(outcome.embeddings["fresh adapter"])


def test_an_adapter_is_trained_once_for_all_tasks_that_need_the_same_one(task, tmp_path):
    steps = []

    def count(stage, done, total, facts):
        steps.append(stage)

    def run(name: str, *changes: str, **facts) -> torch.Tensor:
        steps.clear()
        recipe = Recipe.from_toml(task.recipe.to_toml(), ["adapt.data=inductive", *changes])
        shared = replace(task, recipe=recipe, folder=tmp_path / name, shared=tmp_path / "shared", **facts)
        return systems.adapter(shared, count).probabilities

    alone = systems.adapter(
        replace(task, recipe=Recipe.from_toml(task.recipe.to_toml(), ["adapt.data=inductive"])), quiet
    )
    first = run("first")
    assert "adapt" in steps
    assert first.equal(alone.probabilities)
    assert run("again").equal(first)
    assert "adapt" not in steps
    run("fewer labels", "finetune.label_share=0.5", "model.members=2", "finetune.epochs=1")
    assert "adapt" not in steps
    for name, change in [
        ("k", "adapt.attributes=17"),
        ("heard", "adapt.data=transductive"),
        ("w", "model.dropout=0.1"),
    ]:
        run(name, change)
        assert "adapt" in steps, change
    run("seed", seed=1)
    assert "adapt" in steps
    assert len(list((tmp_path / "shared").iterdir())) == 5
