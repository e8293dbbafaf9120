import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serein.corpus.protocol import Fold, Protocol
from serein.demo import RECIPE
from serein.errors import UsageError
from serein.recipe import Adapt, Finetune, Model, Recipe, Speed
from serein.train.study import ablation_variants, read_ablation

FOLDER = Path(__file__).resolve().parents[1] / "recipes"
SHIPPED = sorted(FOLDER.rglob("*.toml"))
ABLATIONS = sorted((FOLDER / "ablation").glob("*.toml"))
ANY_PROTOCOL = Protocol("any", "One fold.", "toy", ("happy", "sad"), (Fold("only", ("a", "b"), ("c",), ("d",)),))


def test_without_a_word_a_recipe_is_the_papers_but_for_the_rate_of_fresh_layers():
    paper = Recipe.read(FOLDER / "paper.toml")
    assert paper.finetune.head_learning_rate == 1e-4
    finetune = paper.finetune.model_copy(update={"head_learning_rate": 1e-3})
    assert Recipe.from_toml("") == paper.model_copy(update={"finetune": finetune})


@pytest.mark.parametrize(
    "change",
    [
        "finetune.epochs=true", 'finetune.epochs="7"', "finetune.epochs=7.0", "finetune.label_smoothing=false",
        "adapt.attribute_eta=true", "adapt.mask_span=inf", 'model.test_views="on"', "model.test_views=1",
        "finetune.baseline_learning_rates=[true]", 'finetune.baseline_learning_rates=["1e-3"]',
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_refused_and_a_whole_number_is_a_number(change):
    with pytest.raises(UsageError, match=change.partition("=")[0].replace(".", r"\.") + r".*: Input should be"):
        Recipe.from_toml("", [change])
    recipe = Recipe.from_toml("", ["adapt.mask_span=4", "finetune.baseline_learning_rates=[1]"])
    assert (recipe.adapt.mask_span, recipe.finetune.baseline_learning_rates) == (4.0, (1.0,))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[adapt]\nepoch = 3", r"mine: adapt\.epoch: .*keys: data, epochs, batch_size"),
        ("[finetun]\nepochs = 3", r"mine: finetun: .*tables: model, adapt, finetune, speed"),
        ("width = 3", r"width: .*tables: model"),
        ("[adapt]\nepochs = 0", r"adapt\.epochs: .*greater than or equal to 1"),
        ("[adapt]\nmask_ratio = 1.0", r"adapt\.mask_ratio: .*less than 1"),
        ("[adapt]\nlearning_rate = nan", r"adapt\.learning_rate"),
        ("[adapt]\ndata = 'some'", r"adapt\.data: .*'none', 'inductive', 'transductive' or 'elsewhere'"),
        ("[model]\nwidth = 100\nheads = 6", r"model: .*heads = 6 does not divide width = 100"),
        (
            "[model]\npooling_variance = 'printed'\npooled_norm = 'batch'",
            r"model: .*\"printed\" can be negative.*\"l2\"",
        ),
        ("[speed]\ndevice = 'the \"best\"'", r"speed\.device: .*pattern"),
        ("model = 3", r"model"),
        ("[model", r"mine: is not TOML"),
        ("[adapt]\nepochs = 0\n[finetune]\nepochs = 0", r"adapt\.epochs: .*; finetune\.epochs: "),
    ],
)
def test_a_fault_is_named_with_its_place(text, said):
    with pytest.raises(UsageError, match=said):
        Recipe.from_toml(text, source="mine")


def test_a_setting_on_the_command_line_is_toml_or_text():
    recipe = Recipe.from_toml(
        "[adapt]\nepochs = 3",
        ["adapt.epochs=4", "adapt.learning_rate = 3e-4", "adapt.data=none", 'speed.device="cuda:1"', "model.heads=8"],
    )
    assert recipe.adapt.epochs == 4
    assert recipe.adapt.learning_rate == 3e-4
    assert recipe.adapt.data == "none"
    assert recipe.speed.device == "cuda:1"
    assert recipe.model.heads == 8


@pytest.mark.parametrize("change", ["adapt.epochs", "epochs=3", "=3", ".epochs=3", "adapt.=3"])
def test_a_setting_without_place_or_value_shows_how(change):
    with pytest.raises(UsageError, match=re.escape(f"--set {change}: write table.key=value")):
        Recipe.from_toml("", [change])


def test_a_setting_of_what_is_no_table_is_refused():
    with pytest.raises(UsageError, match="adapt"):
        Recipe.from_toml("adapt = 3", ["adapt.epochs=4"])
    with pytest.raises(UsageError, match=r"finetune\.lr: .*keys: epochs"):
        Recipe.from_toml("", ["finetune.lr=1"])


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Recipe().adapt.epochs = 3


@given(
    st.builds(
        Recipe,
        model=st.builds(
            Model, width=st.sampled_from([48, 96]), heads=st.sampled_from([1, 6]), dropout=st.floats(0, 0.99)
        ),
        adapt=st.builds(
            Adapt,
            epochs=st.integers(1, 10_000),
            learning_rate=st.floats(1e-12, 1e3),
            attribute_eta=st.none() | st.floats(1e-6, 1),
        ),
        finetune=st.builds(Finetune, balance=st.sampled_from(["masked-copies", "class-weights", "none"])),
        speed=st.builds(Speed, device=st.from_regex(r"[a-z]+(:[0-9]+)?", fullmatch=True)),
    )
)
def test_what_is_written_is_read_as_the_same(recipe):
    assert Recipe.from_toml(recipe.to_toml()) == recipe


def test_every_key_is_written():
    text = Recipe(adapt=Adapt(attribute_eta=0.5)).to_toml()
    keys = [key for section in (Model, Adapt, Finetune, Speed) for key in section.model_fields]
    assert re.findall(r"^(\w+) = ", text, re.MULTILINE) == keys


def test_a_recipe_file_that_is_not_there_is_named(tmp_path):
    (tmp_path / "r.toml").write_text("[adapt]\nepochs = 7\n", encoding="utf-8")
    assert Recipe.read(tmp_path / "r.toml", ["adapt.warmup=0.1"]).adapt.epochs == 7
    (tmp_path / "latin.toml").write_bytes("# Größe".encode("latin-1"))
    with pytest.raises(UsageError, match=r"latin\.toml: recipe cannot be read: it is not UTF-8"):
        Recipe.read(tmp_path / "latin.toml")
    with pytest.raises(UsageError, match=r"absent\.toml: recipe cannot be read \(No such file"):
        Recipe.read(tmp_path / "absent.toml")


def test_the_three_main_recipes_are_there():
    assert {"paper.toml", "laptop.toml", "demo.toml"} <= {path.name for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_recipe_opens_with_its_command_its_cost_and_its_score(path):
    opening = path.read_text(encoding="utf-8").partition("\n\n")[0]
    said = dict(re.findall(r"^# (Command|Cost|Expected): +(\S.*)$", opening, re.MULTILINE))
    assert list(said) == ["Command", "Cost", "Expected"]
    assert said["Command"].startswith("serein ")
    cost, _, expected = opening.partition("# Cost:")[2].partition("# Expected:")
    assert re.search(r"second|minute|hour|not measured", cost)
    assert re.search(r"\bUA\b|\bWA\b", expected)


@pytest.mark.parametrize("path", [path for path in SHIPPED if path not in ABLATIONS], ids=lambda path: path.stem)
def test_a_shipped_recipe_can_be_read(path):
    assert Recipe.read(path)


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_a_shipped_ablation_varies_the_laptop_recipe_one_way_a_variant(path):
    variants = ablation_variants(path, ANY_PROTOCOL)
    assert read_ablation(path).base == "../laptop.toml"
    assert len({variant.recipe.to_toml() for variant in variants}) == len(variants)
    assert len({variant.folder for variant in variants}) == len(variants)


def test_every_ablation_that_is_spoken_of_is_there():
    names = {
        "attributes", "data", "ema", "eta", "labels", "lambda", "layers", "masking", "steps", "targets", "temperature",
    }  # fmt: skip
    assert {path.stem for path in ABLATIONS} == names


def test_the_ablation_of_attributes_is_the_papers_table_2():
    first, *others = ablation_variants(FOLDER / "ablation" / "attributes.toml", ANY_PROTOCOL)
    assert first.recipe.adapt.data == "none"
    assert [variant.recipe.adapt.attributes for variant in others] == [128, 256, 512, 1024]
    assert {variant.recipe.adapt.data for variant in others} == {"inductive"}


def test_the_ablation_of_labels_sets_a_fresh_adapter_beside_each_share_and_keeps_steps_near():
    recipes = [variant.recipe for variant in ablation_variants(FOLDER / "ablation" / "labels.toml", ANY_PROTOCOL)]
    fresh, trained = recipes[::2], recipes[1::2]
    assert {recipe.adapt.data for recipe in fresh} == {"none"}
    assert {recipe.adapt.data for recipe in trained} == {"inductive"}
    assert [recipe.finetune for recipe in fresh] == [recipe.finetune for recipe in trained]
    assert [recipe.finetune.label_share for recipe in fresh] == [0.05, 0.1, 0.2, 0.5, 1.0]
    whole = Recipe.read(FOLDER / "laptop.toml").finetune.epochs
    assert fresh[-1].finetune.epochs == whole
    epochs = [recipe.finetune.epochs for recipe in fresh]
    assert epochs == sorted(epochs, reverse=True)
    # an epoch of a share is that share of the steps
    shown = [recipe.finetune.label_share * recipe.finetune.epochs / whole for recipe in fresh]
    assert all(0.5 <= part <= 1 for part in shown)


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_an_ablation_promises_what_the_docs_show_and_nothing_else(path):
    opening = path.read_text(encoding="utf-8").partition("\n\n")[0]
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (FOLDER.parent / "docs").glob("*.md"))
    shown = bool(re.search(rf"\nserein ablate (ravdess|emodb) recipes/ablation/{path.name} ", pages))
    command = re.search(r"^# Command: +(.*)$", opening, re.MULTILINE)[1]
    if shown:  # the command that made the scores
        assert f"\n{command}\n" in pages
    else:
        assert command == (
            f"serein ablate frames/ recipes/ablation/{path.name} --protocol talkers-5 -o ablation/{path.stem}"
        )
    assert shown != bool(re.search(r"^# Cost: +not measured yet$", opening, re.MULTILINE))
    assert shown == bool(re.search(r"^# Expected: UA [^n]", opening, re.MULTILINE))
    assert shown or "UA not measured yet" in opening


def test_the_readings_of_the_paper_are_compared_under_its_norm_one_at_a_time():
    first, *others = (
        variant.recipe.model_dump() for variant in ablation_variants(FOLDER / "ablation" / "targets.toml", ANY_PROTOCOL)
    )
    assert first["model"]["pooled_norm"] == "l2"
    differing = [
        [key for table in first for key in first[table] if first[table][key] != other[table][key]] for other in others
    ]
    assert differing == [["target_norm"], ["pooling_variance"], ["hand_on"]]


@pytest.mark.parametrize("name", ["ema", "lambda", "layers", "masking", "temperature"])
def test_an_ablation_begins_with_its_base(name):
    path = FOLDER / "ablation" / f"{name}.toml"
    first, *_ = ablation_variants(path, ANY_PROTOCOL)
    assert first.recipe == Recipe.read(FOLDER / "laptop.toml", read_ablation(path).set)


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_an_ablation_of_adapter_training_trains_the_adapter_and_one_network(path):
    recipes = [variant.recipe for variant in ablation_variants(path, ANY_PROTOCOL)]
    assert {recipe.model.members for recipe in recipes} == {1}
    if len({recipe.adapt.model_dump_json(exclude={"data"}) for recipe in recipes}) > 1:
        assert any(recipe.adapt.data == "inductive" for recipe in recipes[1:])


def test_the_demo_runs_from_a_wheel_as_its_recipe_says():
    assert Recipe.read(FOLDER / "demo.toml") == Recipe.from_toml(RECIPE)


def test_what_is_no_toml_but_plain_is_taken_for_what_it_says():
    changes = [
        "adapt.mask_ratio=.3",
        "finetune.learning_rate=1.",
        "model.test_views=True",
        "speed.checkpoint_seconds=inf",
    ]
    recipe = Recipe.from_toml("", [*changes, "adapt.data=none"])
    assert (recipe.adapt.mask_ratio, recipe.finetune.learning_rate, recipe.model.test_views) == (0.3, 1.0, True)
    assert (recipe.speed.checkpoint_seconds, recipe.adapt.data) == (float("inf"), "none")
    assert Recipe.from_toml(recipe.to_toml()) == recipe


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    for path in (FOLDER / "laptop.toml", FOLDER / "ablation" / "masking.toml"):
        (tmp_path / path.name).write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert Recipe.read(tmp_path / "laptop.toml") == Recipe.read(FOLDER / "laptop.toml")
    assert read_ablation(tmp_path / "masking.toml") == read_ablation(FOLDER / "ablation" / "masking.toml")


def test_the_papers_recipe_has_the_papers_values():
    recipe = Recipe.read(FOLDER / "paper.toml")
    model, adapt, finetune = recipe.model, recipe.adapt, recipe.finetune
    assert (model.width, model.blocks, model.pooling_heads) == (384, 3, 4)
    assert (adapt.mask_ratio, adapt.ema_decay, adapt.attributes) == (0.4, 0.999, 1024)
    assert (adapt.reconstruction_start, adapt.reconstruction_end) == (1.0, 0.5)
    for stage in (adapt, finetune):
        assert (stage.epochs, stage.batch_size, stage.learning_rate) == (100, 96, 1e-4)
