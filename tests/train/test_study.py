import json
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open

from serein.corpus.splits import make_protocol
from serein.errors import CorpusError, UsageError
from serein.evaluate.runs import load_run
from serein.recipe import Recipe
from serein.train.study import (
    SHARED,
    Variant,
    ablation_variants,
    benchmark_variants,
    changed,
    inflation_variants,
    read_ablation,
    run_study,
)

ABLATION = """\
title = "Epochs"
base = "base/tiny.toml"
system = "superb"

[[variant]]
name = "1 epoch"
set = ["finetune.epochs=1"]

[[variant]]
name = "2 epochs, K = 32"
set = ["finetune.epochs=2", "adapt.attributes=32"]
"""


@pytest.fixture(scope="module")
def protocol(tone_store):
    return make_protocol("sessions", tone_store.corpus())


@pytest.fixture
def ablation(tmp_path, tiny_recipe) -> Path:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "tiny.toml").write_text(tiny_recipe.to_toml(), encoding="utf-8")
    (tmp_path / "ablation.toml").write_text(ABLATION, encoding="utf-8")
    return tmp_path / "ablation.toml"


@pytest.fixture(scope="module")
def study(tone_store, protocol, tiny_recipe, tmp_path_factory) -> Path:
    variants = [
        Variant("Linear probe!", "linear", tiny_recipe, protocol),
        Variant("SUPERB", "superb", changed(tiny_recipe, ["finetune.epochs=1"]), protocol),
    ]
    return run_study(
        tone_store, tone_store.corpus(), variants, tmp_path_factory.mktemp("studies") / "study",
        kind="benchmark", title="Two systems", seeds=(0, 1), command="serein benchmark",
    )  # fmt: skip


def test_a_study_is_a_list_of_ordinary_runs(study, protocol):
    assert json.loads((study / "study.json").read_text()) == {
        "format": 1,
        "kind": "benchmark",
        "title": "Two systems",
        "runs": [{"name": "Linear probe!", "folder": "linear-probe"}, {"name": "SUPERB", "folder": "superb"}],
    }
    assert {path.name for path in study.iterdir()} == {"study.json", "linear-probe", "superb"}
    for folder, system, epochs, seeds in (("linear-probe", "linear", 8, (0,)), ("superb", "superb", 1, (0, 1))):
        run = load_run(study / folder)
        assert (run.system, run.seeds, run.command) == (system, seeds, "serein benchmark")
        assert run.protocol.hash == protocol.hash
        assert Recipe.read(study / folder / "recipe.toml").finetune.epochs == epochs


def test_variants_share_the_adapter_that_both_train_without_labels(tone_store, protocol, tiny_recipe, tmp_path):
    folds = replace(protocol, folds=protocol.folds[:2])
    base = changed(tiny_recipe, ["adapt.data=inductive", "adapt.epochs=1", "finetune.epochs=1"])
    variants = [
        Variant("all labels", "adapter", base, folds),
        Variant("half", "adapter", changed(base, ["finetune.label_share=0.5"]), folds),
        Variant("K = 9", "adapter", changed(base, ["adapt.attributes=9"]), folds),
    ]
    trained, spent = [], {}

    def watch(stage, done, total, facts):
        if stage == "adapt" and done == total:
            trained.append(facts["fold"])
        if stage == "study":
            trained.append(facts["variant"])
            spent[facts["variant"]] = [
                json.loads(safe_open(path, framework="pt").metadata()["serein"])["spent"]
                for path in (tmp_path / SHARED).iterdir()
            ]

    study = run_study(
        tone_store, tone_store.corpus(), variants, tmp_path, kind="ablation", title="Shared", report=watch
    )  # fmt: skip
    names = [fold.name for fold in folds.folds]
    assert trained == [*names, "all labels", "half", *names, "K = 9"]
    assert {path.name for path in study.iterdir()} == {"study.json", "all-labels", "half", "k-9"}
    for name in ("all-labels", "half"):
        cost = json.loads((study / name / "folds" / names[0] / "seed-0" / "cost.json").read_text())
        assert cost["seconds"]["adapt"] >= min(spent["all labels"])  # what it cost once


def test_a_probe_on_a_share_of_the_labels_draws_them_and_runs_with_every_seed(
    tone_store, protocol, tiny_recipe, tmp_path
):
    folds = replace(protocol, folds=protocol.folds[:1])
    few = changed(tiny_recipe, ["finetune.label_share=0.5"])
    variants = [Variant("all", "linear", tiny_recipe, folds), Variant("half", "linear", few, folds)]
    study = run_study(
        tone_store, tone_store.corpus(), variants, tmp_path, kind="benchmark", title="Few", seeds=(0, 1)
    )  # fmt: skip
    assert [load_run(study / name).seeds for name in ("all", "half")] == [(0,), (0, 1)]


def test_what_is_done_is_not_done_again_and_a_variant_can_be_added(study, tone_store, protocol, tiny_recipe):
    before = {path: path.stat().st_mtime_ns for path in study.rglob("cost.json")}
    variants = [
        Variant("Linear probe!", "linear", tiny_recipe, protocol),
        Variant("SUPERB", "superb", changed(tiny_recipe, ["finetune.epochs=1"]), protocol),
        Variant("again", "linear", tiny_recipe, protocol),
    ]
    told = []
    run_study(
        tone_store, tone_store.corpus(), variants, study, kind="benchmark", title="Two systems", seeds=(0, 1),
        report=lambda stage, done, total, facts: told.append((stage, done, total, facts)),
    )  # fmt: skip
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (study / "again" / "predictions.csv").exists()
    assert [event for event in told if event[0] == "study"] == [
        ("study", 1, 3, {"variant": "Linear probe!"}),
        ("study", 2, 3, {"variant": "SUPERB"}),
        ("study", 3, 3, {"variant": "again"}),
    ]


@pytest.mark.parametrize(
    ("names", "system", "said"),
    [
        (("only",), "linear", "name two or more"),
        (("one", "two"), "svm", "there are linear, "),
        (("a b", "A-b"), "linear", "'a-b', which must be its own"),
        (("one", "!?"), "linear", "would be '', which"),
    ],
)
def test_a_study_that_cannot_be_told_apart_leaves_nothing(
    tone_store, protocol, tiny_recipe, tmp_path, names, system, said
):
    variants = [Variant(name, system, tiny_recipe, protocol) for name in names]
    with pytest.raises(UsageError, match=said):
        run_study(tone_store, tone_store.corpus(), variants, tmp_path / "s", kind="runs", title="t")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("change", "said"), [("adapt.data=elsewhere", "--unlabelled"), ("model.test_views=true", "--view")]
)
def test_what_a_later_variant_lacks_is_said_before_the_first_is_trained(
    tone_store, protocol, tiny_recipe, tmp_path, change, said
):
    variants = [
        Variant("one", "linear", changed(tiny_recipe, ["adapt.data=elsewhere"]), protocol),
        Variant("two", "adapter", changed(tiny_recipe, [change]), protocol),
    ]
    with pytest.raises(UsageError, match=said):
        run_study(tone_store, tone_store.corpus(), variants, tmp_path / "s", kind="runs", title="t")
    assert not (tmp_path / "s").exists()


def test_the_adapter_of_a_benchmark_may_say_what_it_hears(protocol, tiny_recipe):
    names = ["linear", "adapter", "adapter:none", "adapter:transductive"]
    variants = benchmark_variants(names, tiny_recipe, protocol)
    assert [variant.name for variant in variants] == names
    assert [variant.system for variant in variants] == ["linear", "adapter", "adapter", "adapter"]
    assert [variant.recipe.adapt.data for variant in variants] == ["inductive", "inductive", "none", "transductive"]
    assert [variant.folder for variant in variants] == ["linear", "adapter", "adapter-none", "adapter-transductive"]
    assert replace(variants[2], recipe=changed(variants[2].recipe, ["adapt.data=inductive"])).recipe == tiny_recipe


@pytest.mark.parametrize(("name", "said"), [("linear:none", "only the adapter"), ("adapter:all", "adapt.data")])
def test_other_words_behind_a_system_are_refused(protocol, tiny_recipe, name, said):
    with pytest.raises(UsageError, match=said):
        benchmark_variants([name], tiny_recipe, protocol)


def test_an_ablation_changes_its_base_which_lies_beside_it(ablation, protocol, tiny_recipe):
    one, two = ablation_variants(ablation, protocol)
    assert (one.name, one.system, one.folder) == ("1 epoch", "superb", "1-epoch")
    assert two.folder == "2-epochs-k-32"
    assert one.recipe == changed(tiny_recipe, ["finetune.epochs=1"])
    assert (two.recipe.finetune.epochs, two.recipe.adapt.attributes) == (2, 32)


def test_what_an_ablation_sets_for_all_comes_before_what_the_user_does(ablation, protocol):
    text = ablation.read_text(encoding="utf-8")
    shared = 'set = ["adapt.epochs=7", "finetune.batch_size=5", "finetune.epochs=9"]\n'
    ablation.write_text(text.replace('system = "superb"\n', f'system = "superb"\n{shared}'), encoding="utf-8")
    variants = ablation_variants(ablation, protocol, ["finetune.batch_size=6"])
    assert [variant.recipe.adapt.epochs for variant in variants] == [7, 7]
    assert [variant.recipe.finetune.batch_size for variant in variants] == [6, 6]
    assert [variant.recipe.finetune.epochs for variant in variants] == [1, 2]


def test_a_variants_own_changes_come_last(ablation, protocol):
    one, two = ablation_variants(ablation, protocol, ["finetune.epochs=5", "adapt.attributes=64"])
    assert (one.recipe.finetune.epochs, one.recipe.adapt.attributes) == (1, 64)
    assert (two.recipe.finetune.epochs, two.recipe.adapt.attributes) == (2, 32)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("title", "heading", r"title: Field required; heading: Extra inputs .*keys: title, base, set, system, variant"),
        ("name =", "label =", r"variant\.0\.name: Field required"),
        ("set =", "change =", r"variant\.0\.change: Extra inputs"),
        ("[[variant]]", "[variant]", "is not TOML"),
        (ABLATION[ABLATION.rindex("[[") :], "", "variant: .*at least 2 items"),
    ],
)
def test_a_faulty_ablation_is_refused_with_the_place(ablation, old, new, said):
    ablation.write_text(ABLATION.replace(old, new), encoding="utf-8")
    with pytest.raises(UsageError, match=said):
        read_ablation(ablation)


def test_an_ablation_or_a_base_that_is_not_there_is_named(ablation, tmp_path, protocol):
    (tmp_path / "latin.toml").write_bytes("# Größe".encode("latin-1"))
    with pytest.raises(UsageError, match=r"latin\.toml: ablation cannot be read: it is not UTF-8"):
        read_ablation(tmp_path / "latin.toml")
    with pytest.raises(UsageError, match=r"absent\.toml: ablation cannot be read"):
        read_ablation(tmp_path / "absent.toml")
    (tmp_path / "base" / "tiny.toml").unlink()
    with pytest.raises(UsageError, match=r"tiny\.toml: recipe cannot be read"):
        ablation_variants(ablation, protocol)


def test_a_setting_that_there_is_not_is_laid_at_the_variants_door(ablation, protocol):
    ablation.write_text(ABLATION.replace("finetune.epochs=1", "finetune.epoch=1"), encoding="utf-8")
    with pytest.raises(UsageError, match=rf"{ablation.name}, variant '1 epoch': .*finetune\.epoch: Extra inputs"):
        ablation_variants(ablation, protocol)


def test_inflation_has_a_variant_a_protocol(protocol, tone_store, tiny_recipe):
    variants = inflation_variants(protocol, tone_store.corpus(), "linear", tiny_recipe)
    assert [variant.folder for variant in variants] == [
        "honest", "random20", "oracle-same-train", "oracle-val-is-test", "random-talkers-shared",
    ]  # fmt: skip
    assert variants[0].protocol is protocol
    assert {variant.recipe.adapt.data for variant in variants} == {"inductive"}


def test_inflation_of_the_adapter_has_a_transductive_one_on_honest_folds(protocol, tone_store, tiny_recipe):
    *others, last = inflation_variants(protocol, tone_store.corpus(), "adapter", tiny_recipe)
    assert len(others) == 5
    assert (last.protocol, last.recipe.adapt.data) == (protocol, "transductive")
    with pytest.raises(UsageError, match="is one of the variants"):
        inflation_variants(protocol, tone_store.corpus(), "adapter", last.recipe)


@pytest.mark.parametrize("data", ["none", "elsewhere"])
def test_inflation_of_another_adapter_has_no_transductive_one(protocol, tone_store, tiny_recipe, data):
    variants = inflation_variants(
        protocol, tone_store.corpus(), "adapter", changed(tiny_recipe, [f"adapt.data={data}"])
    )
    assert {variant.recipe.adapt.data for variant in variants} == {data}
    assert len(variants) == 5


@pytest.mark.parametrize("system", ["linear", "adapter"])
def test_inflation_hears_no_test_talkers_in_its_honest_variant(protocol, tone_store, tiny_recipe, system):
    recipe = changed(tiny_recipe, ["model.talker_statistics=z-norm"])
    with pytest.raises(UsageError, match="hears the test talkers in every variant"):
        inflation_variants(protocol, tone_store.corpus(), system, recipe)


def test_inflation_begins_with_honest_folds(tone_store, tiny_recipe):
    corpus = tone_store.corpus()
    with pytest.raises(CorpusError, match="is not honest"):
        inflation_variants(make_protocol("sessions-random20", corpus), corpus, "linear", tiny_recipe)
