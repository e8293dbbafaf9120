import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

from serein.corpus.corpus import Corpus, Utterance
from serein.corpus.protocol import Fold
from serein.corpus.splits import make_protocol
from serein.errors import StoreError, UsageError
from serein.evaluate.calibration import calibrate, fit_temperature
from serein.frames.batches import BATCHING
from serein.frames.encoder import load_encoder
from serein.frames.extract import extract
from serein.frames.store import FrameStore
from serein.model import load_config, load_model
from serein.recipe import Recipe
from serein.train import ship
from serein.train.adapter_folder import adapt_store
from serein.train.crossval import classes_of, cross_validate, model_config
from serein.train.material import gather
from serein.train.ship import is_at_a_bound, train_model
from serein.train.systems import adapter, linear_probe
from serein.train.task import Task


def changed(recipe: Recipe, *changes: str) -> Recipe:
    return Recipe.from_toml(recipe.to_toml(), changes)


@pytest.fixture(scope="module")
def recipe(tiny_recipe: Recipe) -> Recipe:
    return changed(tiny_recipe, "adapt.data=none", "finetune.epochs=4")


@pytest.fixture(scope="module")
def run(tone_store, recipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    corpus = tone_store.corpus()
    return cross_validate(tone_store, corpus, make_protocol("talkers-3", corpus, seed=0), folder, recipe)


def strangers(store, recipe, folder, views=(), system=adapter):
    """What an oracle of the same settings says of the validation talkers: it never learns from them."""
    corpus = store.corpus()
    test = next(f.test for f in make_protocol("talkers-5", corpus, seed=0).folds if len(f.test) == 32)  # two talkers
    material = gather(store, [u.id for u in corpus], views=views)
    train = tuple(u.id for u in corpus if u.id not in test)
    task = Task(
        material.array, classes_of(material.array.ids, corpus, corpus.labels), material.talkers,
        Fold("oracle", train, test, test), model_config(store, material.array, recipe, corpus.labels), recipe, 0,
        folder, views=material.views,
    )  # fmt: skip
    return system(task), corpus, test


@pytest.mark.parametrize("changes", [(), ("model.members=2",), ("adapt.data=inductive", "adapt.epochs=1")])
def test_the_temperature_is_that_of_networks_that_never_heard_the_talkers(tone_store, recipe, tmp_path, changes):
    recipe = changed(recipe, *changes)
    facts = train_model(tone_store, tone_store.corpus(), tmp_path / "m", recipe, abstain_below=0.5)
    outcome, corpus, test = strangers(tone_store, recipe, tmp_path)
    by_id = corpus.by_id()
    truth = np.array([corpus.labels.index(by_id[id_].emotion) for id_ in test])
    log_probabilities = outcome.probabilities.double().log().numpy()
    expected = calibrate(log_probabilities, truth, [by_id[id_].talker for id_ in test], threshold=0.5)
    assert facts["epochs"] == outcome.choice["epochs"]
    assert facts["temperature"] == pytest.approx(expected.temperature, rel=1e-4)
    assert facts["calibration_error_before"] == pytest.approx(expected.error_before, abs=1e-5)
    assert facts["nll_before"] == pytest.approx(expected.nll_before, rel=1e-5)
    assert facts["coverage"] == pytest.approx(expected.coverage)
    assert facts["calibration_error_after"] == pytest.approx(expected.error_after, abs=1e-5)
    assert (facts["validation_talkers"], facts["talkers"]) == (2, 6)
    card = " ".join((tmp_path / "m" / "README.md").read_text(encoding="utf-8").split())
    assert "2 of the 6 talkers chose the number of epochs" in card
    assert "On the 32 utterances of those who chose, UA was" in card
    config = load_config(tmp_path / "m")
    assert config.temperature == facts["temperature"]
    assert config.abstain_below == 0.5
    assert {path.name for path in (tmp_path / "m").iterdir()} == {"config.json", "model.safetensors", "README.md"}


@pytest.mark.parametrize(("views", "judged"), [(0, False), (1, False), (1, True)])
def test_a_linear_probe_is_chosen_calibrated_and_described(tone_store, tones, recipe, tmp_path, views, judged):
    given = [extract(tones, load_encoder("logmel"), tmp_path / "slow", pool=2, speed=0.9)] if views else []
    recipe = changed(recipe, f"model.test_views={str(judged).lower()}", "model.members=5")
    corpus = tone_store.corpus()
    run = cross_validate(
        tone_store, corpus, make_protocol("talkers-3", corpus, seed=0), tmp_path / "run", recipe, system="linear",
        views=given,
    )  # fmt: skip
    others = changed(
        recipe, "model.members=1", "finetune.epochs=2", "speed.frames=mapped" if not views else "adapt.epochs=1"
    )
    facts = train_model(
        tone_store, corpus, tmp_path / "m", others, system="linear", views=given, scores_from=run, abstain_below=0.5
    )
    outcome, _, test = strangers(tone_store, recipe, tmp_path, given, linear_probe)
    truth = torch.tensor([corpus.labels.index(corpus.by_id()[id_].emotion) for id_ in test])
    # the oracle learned from the talkers who train alone, with the C that is best on the talkers who choose
    own = outcome.probabilities[torch.arange(len(truth)), truth].double().log()
    assert facts["C"] == outcome.choice["C"]
    expected = calibrate(
        outcome.probabilities.double().log().numpy(), truth.numpy(), [corpus.by_id()[id_].talker for id_ in test],
        threshold=0.5,
    )  # fmt: skip
    assert facts["nll_before"] == pytest.approx(-own.mean().item(), rel=1e-5)
    assert facts["temperature"] == pytest.approx(expected.temperature, rel=1e-4)
    assert facts["calibration_error_after"] == pytest.approx(expected.error_after, abs=1e-5)
    assert facts["coverage"] == pytest.approx(expected.coverage)
    assert (facts["validation_ua"], facts["validation_wa"]) == pytest.approx(
        (outcome.choice["validation_ua"], (outcome.probabilities.argmax(1) == truth).double().mean().item())
    )
    config = load_config(tmp_path / "m")
    assert (config.architecture, len(config.speeds)) == ("linear", 1 + judged)
    card = " ".join((tmp_path / "m" / "README.md").read_text(encoding="utf-8").split())
    assert f"2 of the 6 talkers chose C, the inverse strength of the penalty ({facts['C']:g}), then all" in card
    assert "with a probe of the same C that had not learned from them" in card
    assert "A linear probe (logistic regression on the frames' standardised mean and deviation over time)" in card
    assert ModelCard.load(tmp_path / "m" / "README.md").data.eval_results
    for foreign in ("adapter", "networks", "epochs", "## Recipe"):
        assert foreign not in card


def test_no_other_system_is_shipped_and_a_probe_has_no_adapter(tone_store, recipe, tmp_path):
    corpus = tone_store.corpus()
    with pytest.raises(UsageError, match="system 'emobox': adapter and linear can be shipped"):
        train_model(tone_store, corpus, tmp_path, recipe, system="emobox")
    with pytest.raises(UsageError, match="a linear probe has no adapter"):
        train_model(tone_store, corpus, tmp_path, recipe, system="linear", adapter_folder="somebody/adapter")
    assert not list(tmp_path.iterdir())


def test_a_probe_takes_no_scores_of_other_views_and_no_folder_of_a_training_that_was_killed(
    tone_store, tones, recipe, tmp_path
):
    corpus, slow = tone_store.corpus(), extract(tones, load_encoder("logmel"), tmp_path / "slow", pool=2, speed=0.9)
    protocol = make_protocol("talkers-3", corpus, seed=0)
    run = cross_validate(tone_store, corpus, protocol, tmp_path / "run", recipe, system="linear", views=[slow])
    judged = changed(recipe, "model.test_views=true")
    with pytest.raises(UsageError, match="is a run with another recipe:"):
        train_model(tone_store, corpus, tmp_path / "m", judged, system="linear", views=[slow], scores_from=run)
    begun = tmp_path / "m" / "adapt.checkpoint.safetensors"
    begun.parent.mkdir()
    begun.write_bytes(b"hours of work")
    for system, asked in (("linear", recipe), ("adapter", changed(recipe, "adapt.data=none"))):
        with pytest.raises(UsageError, match="holds the beginning of another training"):
            train_model(tone_store, corpus, tmp_path / "m", asked, system=system)
    assert begun.read_bytes() == b"hours of work"
    begun.unlink()
    elsewhere = changed(recipe, "adapt.data=elsewhere")  # which is nothing to a probe
    train_model(tone_store, corpus, tmp_path / "m", elsewhere, system="linear")


@pytest.mark.parametrize(("talkers", "validate"), [(3, 1), (4, 1), (5, 1), (6, 2), (7, 2), (9, 2), (11, 3), (24, 5)])
def test_as_many_talkers_validate_as_one_group_of_five_can_hold(talkers, validate):
    """Also where talkers say little or much, and the first groups are the smallest."""
    rows = [
        Utterance(f"{talker}-{emotion}-{take}", Path("a.wav"), f"{talker:02}", emotion)
        for talker in range(talkers)
        for emotion in ("angry", "sad")
        for take in range(1 if talker else 3)
    ]
    held_out = ship._validation(Corpus("toy", tuple(rows)), 0)
    assert len({id_.split("-")[0] for id_ in held_out}) >= validate >= talkers / 5
    assert len({id_.split("-")[0] for id_ in held_out}) < talkers


def test_calibration_hears_the_talkers_at_every_speed_of_the_model(tone_store, tones, recipe, tmp_path):
    slow = extract(tones, load_encoder("logmel"), tmp_path / "slow", pool=2, speed=0.9)
    recipe = changed(recipe, "model.test_views=true", "finetune.epochs=2")
    facts = train_model(tone_store, tone_store.corpus(), tmp_path / "m", recipe, views=[slow])
    outcome, corpus, test = strangers(tone_store, recipe, tmp_path, [slow])
    by_id = corpus.by_id()
    truth = np.array([corpus.labels.index(by_id[id_].emotion) for id_ in test])
    own = outcome.probabilities[torch.arange(len(truth)), torch.tensor(truth)].double().log()
    assert facts["nll_before"] == pytest.approx(-own.mean().item(), rel=1e-5)


def test_one_validation_talker_calibrates_and_the_card_says_what_is_unknown(tone_store, recipe, tmp_path):
    corpus = tone_store.corpus().select(lambda u: u.talker in ("1F", "1M", "2F"))
    facts = train_model(tone_store, corpus, tmp_path, changed(recipe, "finetune.epochs=1"), abstain_below=0.4)
    assert math.isnan(facts["calibration_error_after"])
    assert (facts["validation_talkers"], facts["talkers"]) == (1, 3)
    assert load_config(tmp_path).temperature == facts["temperature"]
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "What it does to another talker is not known from one" in card
    assert "nan" not in card


def test_an_older_configuration_is_read_as_uncalibrated(tone_store, recipe, tmp_path):
    train_model(tone_store, tone_store.corpus(), tmp_path, changed(recipe, "finetune.epochs=1"))
    path = tmp_path / "config.json"
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if "temperature" not in line and "abstain_below" not in line]
    kept[-2] = kept[-2].rstrip(",")
    path.write_text("\n".join(kept), encoding="utf-8")
    config = load_config(tmp_path)
    assert (config.temperature, config.abstain_below) == (1.0, 0.0)


@pytest.mark.parametrize(("truth", "at_a_bound"), [([0, 1, 0], True), ([1, 0, 1], True), ([0, 1, 1], False)])
def test_a_search_that_ends_at_its_bound_is_known_by_its_temperature(truth, at_a_bound):
    sure = np.log([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1]])
    assert is_at_a_bound(fit_temperature(sure, np.array(truth))) == at_a_bound


def test_a_model_to_ship_learns_from_all_labels(tone_store, tones, recipe, tmp_path):
    with pytest.raises(UsageError, match=r"finetune\.label_share: .* leave it 1"):
        train_model(tone_store, tones, tmp_path, changed(recipe, "finetune.label_share=0.5"))
    assert not list(tmp_path.iterdir())


def test_no_emotion_of_a_shipped_model_is_called_as_the_pauses_of_timelines(tone_store, tones, recipe, tmp_path):
    mute = Corpus(tones.name, tuple(replace(u, emotion=u.emotion.replace("neutral", "silence")) for u in tones))
    with pytest.raises(UsageError, match="'silence': is what timelines call the pauses"):
        train_model(tone_store, mute, tmp_path, recipe)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("below", "fits"), [(0.0, True), (0.99, True), (1.0, False), (-0.1, False)])
def test_a_threshold_is_a_probability_below_one(tone_store, recipe, tmp_path, below, fits):
    few = tone_store.corpus().select(lambda u: u.talker in ("1F", "1M", "2F"))
    once = changed(recipe, "finetune.epochs=1")
    if fits:
        train_model(tone_store, few, tmp_path, once, abstain_below=below)
        assert load_config(tmp_path).abstain_below == below
    else:
        with pytest.raises(UsageError, match="give a probability from 0 to below 1"):
            train_model(tone_store, few, tmp_path, once, abstain_below=below)
        assert not list(tmp_path.iterdir())


def test_the_scores_of_a_run_of_the_same_corpus_and_recipe_come_into_the_card(tone_store, recipe, run, tmp_path):
    train_model(tone_store, tone_store.corpus(), tmp_path, changed(recipe, "speed.device=cpu"), scores_from=run)
    card = ModelCard.load(tmp_path / "README.md")
    protocol = make_protocol("talkers-3", tone_store.corpus(), seed=0)
    assert protocol.hash in card.text
    assert {result.metric_name for result in card.data.eval_results} == {"UA", "WA", "macro F1"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("finetune.epochs=3", "another recipe:"),
        ("labels", "another corpus and another labels:"),
        ("corpus", "another corpus:"),
        ("system", "another system:"),
        ("batching", "trained on other batches"),
        ("views", "another views:"),
        ("adapter", "trained its own adapters"),
    ],
)
def test_scores_of_another_run_are_refused(tone_store, tones, recipe, run, tmp_path, change, said, monkeypatch):
    corpus, views, given = tone_store.corpus(), [], None
    if "=" in change:
        recipe = changed(recipe, change)
    elif change == "labels":
        corpus = corpus.relabel({"happy": "glad", "angry": "angry", "neutral": "neutral", "sad": "sad"})
    elif change == "corpus":
        corpus = replace(corpus, name="others")
    elif change in ("system", "batching"):
        copy = Path(shutil.copytree(run, tmp_path / "run"))
        path = copy / "run.json"
        old, new = ('"adapter"', '"linear"') if change == "system" else (f'"batching": {BATCHING}', '"batching": 1')
        facts = path.read_text(encoding="utf-8")
        assert old in facts
        path.write_text(facts.replace(old, new, 1), encoding="utf-8")
        run = copy
    elif change == "views":
        views = [extract(tones, load_encoder("logmel"), tmp_path / "slow", pool=2, speed=0.9)]
    else:
        given = tmp_path / "adapter"
        adapt_store(tone_store, given, changed(recipe, "adapt.epochs=1"))
    monkeypatch.setitem(ship.SHIPPED, "adapter", lambda *_: pytest.fail("was trained"))
    with pytest.raises(UsageError, match=said):
        train_model(tone_store, corpus, tmp_path / "m", recipe, views=views, adapter_folder=given, scores_from=run)


def test_an_adapter_from_another_place_of_the_same_encoder_fits(tone_store, recipe, tmp_path):
    adapt_store(tone_store, tmp_path / "adapter", changed(recipe, "adapt.epochs=1"))
    path = tmp_path / "adapter" / "config.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"logmel"', '"somebody/logmel"', 1), encoding="utf-8")
    few = tone_store.corpus().select(lambda u: u.talker in ("1F", "1M", "2F"))
    once = changed(recipe, "finetune.epochs=1")
    train_model(tone_store, few, tmp_path / "m", once, adapter_folder=tmp_path / "adapter")
    assert load_model(tmp_path / "m")[1].encoder.name == "logmel"


def test_an_adapter_has_a_card_that_the_hub_reads(tone_store, recipe, tmp_path):
    adapt_store(tone_store, tmp_path, changed(recipe, "adapt.epochs=1", "adapt.data=none"))
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.library_name == "serein"
    assert 'data = "inductive"' in card.text  # it was trained, whatever the recipe is for
    assert "96 utterances, 6 talkers" in card.text
    assert "trained without labels" in card.text


def test_a_collapse_is_told_and_stands_on_the_cards(tone_store, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("serein.train.adapt.collapse", lambda history: "the teacher's spread fell from 1 to 0")
    brief = changed(recipe, "adapt.epochs=1", "finetune.epochs=1", "adapt.data=inductive")
    assert adapt_store(tone_store, tmp_path / "adapter", brief) == "the teacher's spread fell from 1 to 0"
    assert train_model(tone_store, tone_store.corpus(), tmp_path / "model", brief)["collapsed"]
    for folder in ("adapter", "model"):
        card = (tmp_path / folder / "README.md").read_text(encoding="utf-8")
        assert "collapsed (the teacher's spread fell from 1 to 0)" in card


def test_an_adapter_is_not_continued_in_another_precision(tone_store, recipe, tmp_path, monkeypatch):
    class KilledError(Exception):
        pass

    def kill(stage, done, total, facts):
        raise KilledError

    brief = changed(recipe, "adapt.epochs=1", "speed.checkpoint_seconds=0", "speed.precision=float32")
    with pytest.raises(KilledError):
        adapt_store(tone_store, tmp_path, brief, report=kill)
    with pytest.raises(StoreError, match="other settings"):
        adapt_store(tone_store, tmp_path, changed(brief, "speed.precision=bfloat16"))
    assert adapt_store(tone_store, tmp_path, brief) == ""


def test_frames_left_on_disk_give_the_same_adapter_and_model(tone_store, recipe, tmp_path):
    store = FrameStore(shutil.copytree(tone_store.folder, tmp_path / "frames"))
    brief = changed(recipe, "adapt.epochs=1", "finetune.epochs=1")
    for name in ("memory", "mapped"):
        settings = changed(brief, f"speed.frames={name}")
        adapt_store(store, tmp_path / f"adapter-{name}", settings)
        train_model(store, store.corpus(), tmp_path / f"model-{name}", settings)
    assert any(store.folder.glob("*flat*"))
    for kind in ("adapter", "model"):
        one, other = (tmp_path / f"{kind}-{name}" / "model.safetensors" for name in ("memory", "mapped"))
        assert one.read_bytes() == other.read_bytes()
