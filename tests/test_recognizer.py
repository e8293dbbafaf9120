import json
import re
import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

import jaxtyping
import numpy as np
import pytest
import soundfile
import soxr
import torch
import transformers
from safetensors.torch import load_file, save_file

from serein.baselines.linear_probe import fit_linear_probes
from serein.corpus.corpus import Corpus
from serein.errors import (
    AudioError,
    CorpusError,
    ModelError,
    NonFiniteAudio,
    StoreError,
    TooShort,
    UsageError,
)
from serein.frames.audio import load_audio
from serein.frames.encoder import load_encoder
from serein.frames.extract import extract, pool_frames
from serein.frames.sources import Recording
from serein.frames.store import FrameStore
from serein.frames.windows import hear
from serein.model import build_adapter, build_classifier, load_config, load_model, save_model
from serein.nn.classifier import EmotionClassifier
from serein.nn.committee import Committee
from serein.nn.transformer import WAPTransformer
from serein.recipe import Recipe
from serein.recognizer import EmotionRecognizer
from serein.train import ship
from serein.train.adapter_folder import adapt_store
from serein.train.crossval import classes_of
from serein.train.ship import train_model


@pytest.fixture(scope="module")
def model_folder(tone_store: FrameStore, tiny_recipe: Recipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    facts = train_model(tone_store, tone_store.corpus(), folder, tiny_recipe)
    assert facts["validation_ua"] > 0.4  # chance: 0.25
    assert (facts["talkers"], facts["utterances"]) == (6, 96)
    return folder


@pytest.fixture(scope="module")
def adapter_folder(tone_store: FrameStore, tiny_recipe: Recipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    adapt_store(tone_store, folder, tiny_recipe)
    return folder


@pytest.fixture(scope="module")
def recognizer(model_folder: Path) -> EmotionRecognizer:
    """Its probabilities are the network's: not calibrated."""
    return changed(EmotionRecognizer.from_pretrained(model_folder), temperature=1.0)


def changed(recognizer: EmotionRecognizer, **settings: object) -> EmotionRecognizer:
    """The same network under another configuration."""
    return EmotionRecognizer(recognizer.classifier, recognizer.config.model_copy(update=settings), recognizer.encoder)


def by_label(scores: list[dict]) -> list[float]:
    return [score["score"] for score in sorted(scores, key=lambda score: score["label"])]


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "copy"))


def test_training_leaves_a_model_folder_and_nothing_else(model_folder, tiny_recipe):
    assert {path.name for path in model_folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    config = load_config(model_folder)
    assert config.labels == ("angry", "happy", "neutral", "sad")
    assert config.model == tiny_recipe.model
    assert config.encoder.name == "logmel"
    card = (model_folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: ")
    assert re.search(r"\| *all *\| *96 *\| *6 *\|", card)
    assert "not a test score" in card
    assert Recipe.from_toml(card.partition("```toml\n")[2].partition("```")[0]) == tiny_recipe


def test_a_committee_is_shipped_as_one_model(tone_store, tiny_recipe, tones, tmp_path):
    recipe = Recipe.from_toml(tiny_recipe.to_toml(), ["model.members=2", "finetune.epochs=2"])
    train_model(tone_store, tone_store.corpus(), tmp_path, recipe)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    module, config = load_model(tmp_path)
    assert isinstance(module, Committee)
    assert config.model.members == 2
    config = config.model_copy(update={"temperature": 1.0})
    encoder = load_encoder("logmel")
    recognizer = EmotionRecognizer(module, config, encoder)
    path = tones.utterances[0].path
    members = [EmotionRecognizer(member, config, encoder) for member in module.members]
    mean = (members[0].probabilities(path) + members[1].probabilities(path)) / 2
    assert torch.allclose(recognizer.probabilities(path), mean, atol=1e-6)
    assert not torch.allclose(members[0].probabilities(path), members[1].probabilities(path), atol=1e-4)


def test_a_linear_probe_is_shipped_and_reads_what_a_store_would_hold(tone_store, tiny_recipe, tones, tmp_path):
    facts = train_model(tone_store, tone_store.corpus(), tmp_path, tiny_recipe, system="linear")
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert facts["validation_ua"] > 0.4  # chance: 0.25
    array = tone_store.load()
    (probe,) = fit_linear_probes(
        array.pooled(torch.arange(96)).flatten(1),
        classes_of(array.ids, tone_store.corpus(), tone_store.corpus().labels), 4, facts["C"],
    )  # fmt: skip
    recognizer = EmotionRecognizer.from_pretrained(tmp_path)
    heard = [utterance.path for utterance in tones.utterances[::19]]
    statistics = array.pooled(array.indices([utterance.id for utterance in tones.utterances[::19]])).flatten(1)
    for path, mine in zip(heard, statistics, strict=True):
        torch.testing.assert_close(recognizer.embed(path), mine, atol=1e-4, rtol=1e-4)
    together = recognizer.logits_of([load_audio(path) for path in heard]).log_softmax(1)
    wanted = (probe.read(statistics).log_softmax(1) / recognizer.config.temperature).log_softmax(1)
    torch.testing.assert_close(together, wanted, atol=1e-3, rtol=1e-3)
    window = recognizer.timeline(heard[0], window=0.4, hop=0.2).windows[0]
    first = recognizer.logits_of([load_audio(heard[0])[:6400]]).softmax(1)[0]
    assert window.scores == pytest.approx(first.tolist(), abs=1e-5)


def test_scores_are_probabilities_best_first(recognizer, tones):
    scores = recognizer(tones.utterances[0].path)
    values = [score["score"] for score in scores]
    assert sum(values) == pytest.approx(1, abs=1e-5)
    assert values == sorted(values, reverse=True)
    assert {score["label"] for score in scores} == set(recognizer.labels) == {"angry", "happy", "neutral", "sad"}
    assert recognizer(tones.utterances[0].path, top_k=2) == scores[:2]


def test_most_tones_are_named_right(recognizer, tones):
    right = [recognizer(u.path, top_k=1)[0]["label"] == u.emotion for u in tones.utterances]
    assert np.mean(right) > 0.7


def test_a_path_its_bytes_and_its_samples_give_the_same_answer(recognizer, tones):
    path = tones.utterances[3].path
    samples, rate = soundfile.read(path, dtype="float32")
    expected = recognizer(path)
    assert recognizer(str(path)) == expected
    assert recognizer(path.read_bytes()) == expected
    assert by_label(recognizer(Recording(samples, rate))) == pytest.approx(by_label(expected), abs=1e-6)
    assert by_label(recognizer(Recording(np.stack([samples] * 2, 1), rate))) == pytest.approx(
        by_label(expected), abs=1e-6
    )
    assert recognizer([path, path.read_bytes()], top_k=1) == [expected[:1], expected[:1]]
    assert recognizer([]) == []


def test_another_sample_rate_is_the_same_recording(recognizer, tones):
    samples, rate = soundfile.read(tones.utterances[3].path)
    faster = soxr.resample(samples, rate, 44_100, quality="VHQ")
    expected = recognizer(tones.utterances[3].path)
    assert by_label(recognizer(Recording(faster, 44_100))) == pytest.approx(by_label(expected), abs=0.05)


def test_the_answer_is_the_classifiers_on_the_stored_frames(recognizer, model_folder, tone_store, tones):
    array = tone_store.load()
    classifier, _ = load_model(model_folder)
    for index in (0, 40, 95):
        batch = array.batch(torch.tensor([index]))
        with torch.inference_mode():
            expected = classifier(batch.frames, batch.padding_mask).softmax(1)[0]
            embedded = classifier.embed(batch.frames, batch.padding_mask)[0]
        path = tones.by_id()[array.ids[index]].path
        assert torch.allclose(recognizer.probabilities(path), expected, atol=1e-4)
        assert torch.allclose(recognizer.embed(path), embedded, atol=1e-4)
        assert recognizer.embed(path).shape == (2 * 16 * 4,)


def test_a_long_recording_is_the_mean_of_equal_windows(recognizer, tones):
    samples = np.concatenate([load_audio(utterance.path) for utterance in tones.utterances[:60]])
    assert recognizer.config.max_frames == 750
    assert 30.0 < recognizer.longest_window / 16_000 < 30.03
    assert 1 < len(samples) / recognizer.longest_window <= 2
    whole = recognizer.probabilities(Recording(samples, 16_000))
    assert float(whole.sum()) == pytest.approx(1, abs=1e-5)
    halves = [recognizer.probabilities(Recording(half, 16_000)) for half in np.array_split(samples, 2)]
    assert torch.allclose(whole, (halves[0] + halves[1]) / 2, atol=1e-6)
    embedded = [recognizer.embed(Recording(half, 16_000)) for half in np.array_split(samples, 2)]
    assert torch.allclose(recognizer.embed(Recording(samples, 16_000)), (embedded[0] + embedded[1]) / 2, atol=1e-5)
    short = changed(recognizer, max_frames=5).probabilities(Recording(samples, 16_000))
    assert not torch.allclose(short, whole, atol=1e-4)


@pytest.mark.parametrize("frames", [2, 5, 750])
def test_the_longest_window_fits_the_networks_positions(recognizer, frames):
    short = changed(recognizer, max_frames=frames)
    longest = short.longest_window
    (encoded,) = recognizer.encoder.encode([np.zeros(longest, dtype=np.float32)])
    assert len(pool_frames(encoded, 2)) == frames
    (encoded,) = recognizer.encoder.encode([np.zeros(longest + 1, dtype=np.float32)])
    assert len(pool_frames(encoded, 2)) == frames + 1


def test_positions_for_the_longest_window_there_are_no_more(recognizer, tones):
    """The network itself refuses longer input, so these calls would fail."""
    longest = recognizer.longest_window
    noise = np.random.default_rng(0).normal(size=3 * longest + 1).astype(np.float32) * 0.1
    for samples in (longest, longest + 1, 2 * longest, 2 * longest + 1, 3 * longest + 1):
        assert recognizer.probabilities_of([noise[:samples]]).shape == (1, 4)


@pytest.mark.parametrize(
    ("recording", "error", "said"),
    [
        (Recording(np.zeros(300), 16_000), TooShort, "300 samples at 16 kHz; 400 make one frame"),
        (Recording(np.zeros(0), 16_000), TooShort, "0 samples"),
        (Recording(np.zeros(1000), 44_100), TooShort, "36. samples"),
        (Recording(np.full(8000, np.nan), 16_000), NonFiniteAudio, "not finite"),
        (Recording(np.array([0.0] * 8000 + [np.inf]), 16_000), NonFiniteAudio, "not finite"),
        (b"no sound", AudioError, "bytes"),
        ("absent.wav", AudioError, "absent.wav: does not exist"),
    ],
)
def test_what_is_no_recording_is_refused(recognizer, recording, error, said):
    with pytest.raises(error, match=said):
        recognizer(recording)


def test_silence_gets_an_answer(recognizer):
    assert sum(by_label(recognizer(Recording(np.zeros(16_000), 16_000)))) == pytest.approx(1, abs=1e-5)


def test_an_adapter_is_no_recognizer_but_training_goes_on_from_it(
    adapter_folder, tone_store, tiny_recipe, tmp_path, tones
):
    assert {path.name for path in adapter_folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "attributes.safetensors",
        "README.md",
    }
    module, config = load_model(adapter_folder)
    assert isinstance(module, WAPTransformer)
    assert config.labels == ()
    with pytest.raises(ModelError, match=r"is an adapter without a classifier; `serein train --adapter"):
        EmotionRecognizer.from_pretrained(adapter_folder)

    told = []
    other = Recipe.from_toml(tiny_recipe.to_toml(), ["model.width=32", "finetune.epochs=1"])
    train_model(
        tone_store, tone_store.corpus(), tmp_path, other, adapter_folder=adapter_folder,
        report=lambda stage, *_: told.append(stage),
    )  # fmt: skip
    assert set(told) == {"finetune", "refit"}
    assert load_config(tmp_path).model.width == 16  # the adapter's, not the recipe's
    assert "may have heard those who chose" in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert EmotionRecognizer.from_pretrained(tmp_path)(tones.utterances[0].path)


def recipe_of_the_card(folder: Path) -> Recipe:
    card = (folder / "README.md").read_text(encoding="utf-8")
    return Recipe.from_toml(card.partition("```toml\n")[2].partition("```")[0])


def test_what_is_not_the_adapters_shape_is_the_recipes(adapter_folder, tone_store, tones, tiny_recipe, tmp_path):
    slow = extract(tones, load_encoder("logmel"), tmp_path / "slow", pool=2, speed=0.9)
    changes = ["model.blocks=1", "model.layer_mix=joined", "model.heads=4", "model.width=32"]
    kept = ["model.pooling_heads=2", "model.pooled_norm=batch", "model.dropout=0.25", "model.test_views=true"]
    recipe = Recipe.from_toml(tiny_recipe.to_toml(), [*changes, *kept, "finetune.epochs=1", "adapt.data=elsewhere"])
    train_model(
        tone_store, tone_store.corpus(), tmp_path / "m", recipe, adapter_folder=adapter_folder, views=[slow]
    )  # fmt: skip
    module, config = load_model(tmp_path / "m")
    expected = Recipe.from_toml(tiny_recipe.to_toml(), kept).model
    assert config.model == recipe_of_the_card(tmp_path / "m").model == expected
    assert config.speeds == (1.0, 0.9)
    assert isinstance(module, EmotionClassifier)
    assert module.adapter.blocks[0].dropout == 0.25
    said = (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    assert "on other corpora only: so says the recipe" in said


def test_the_dropout_of_training_is_the_recipes_and_not_the_adapters(adapter_folder, tone_store, tiny_recipe, tmp_path):
    weights = []
    for dropout in (0.0, 0.5):
        changes = [f"model.dropout={dropout}", "finetune.epochs=1"]
        recipe = Recipe.from_toml(tiny_recipe.to_toml(), changes)
        folder = tmp_path / str(dropout)
        train_model(tone_store, tone_store.corpus(), folder, recipe, adapter_folder=adapter_folder)
        weights.append((folder / "model.safetensors").read_bytes())
    assert weights[0] != weights[1]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("none", "was not trained without labels"),
        ("inductive", "on the other talkers only"),
        ("transductive", "on all talkers, so it heard those who chose too"),
    ],
)
def test_the_card_says_whom_the_adapter_heard(tone_store, tiny_recipe, tmp_path, data, said):
    recipe = Recipe.from_toml(tiny_recipe.to_toml(), [f"adapt.data={data}", "finetune.epochs=1", "adapt.epochs=1"])
    train_model(tone_store, tone_store.corpus(), tmp_path, recipe)
    assert said in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_a_view_to_ship_with_has_another_speed(tone_store, tones, tiny_recipe, tmp_path):
    again = extract(tones, load_encoder("logmel"), tmp_path / "again", pool=2)
    recipe = Recipe.from_toml(tiny_recipe.to_toml(), ["model.test_views=true"])
    with pytest.raises(StoreError, match="again: was not extracted at another speed"):
        train_model(tone_store, tone_store.corpus(), tmp_path / "m", recipe, views=[again])


def test_training_from_what_does_not_fit_the_frames_is_refused(
    adapter_folder, model_folder, tone_store, tones, tiny_recipe, tmp_path
):
    corpus = tone_store.corpus()
    with pytest.raises(ModelError, match="is not an adapter for these frames"):
        train_model(tone_store, corpus, tmp_path / "m", tiny_recipe, adapter_folder=model_folder)
    few = Corpus("few", tones.utterances[::20])
    unpooled = extract(few, load_encoder("logmel"), tmp_path / "frames")
    with pytest.raises(ModelError, match=r"it wants logmel, layers \[0\]"):
        train_model(unpooled, few, tmp_path / "m", tiny_recipe, adapter_folder=adapter_folder)
    short = load_config(adapter_folder).model_copy(update={"max_frames": 20})
    save_model(tmp_path / "short", build_adapter(short), short)
    with pytest.raises(ModelError, match="learned positions for 20 frames, the longest utterance has 750"):
        train_model(tone_store, corpus, tmp_path / "m", tiny_recipe, adapter_folder=tmp_path / "short")


def test_an_interrupted_training_goes_on_only_with_the_same_settings(tone_store, tiny_recipe, tmp_path):
    corpus = tone_store.corpus()
    every = Recipe.from_toml(tiny_recipe.to_toml(), ["speed.checkpoint_seconds=0", "finetune.epochs=2"])
    other = Recipe.from_toml(every.to_toml(), ["adapt.learning_rate=1e-4"])
    slower = Recipe.from_toml(every.to_toml(), ["speed.checkpoint_seconds=60"])

    def kill(stage, done, total, facts):
        if done == 3:
            raise KeyboardInterrupt

    for train in (
        lambda folder, recipe, **how: adapt_store(tone_store, folder, recipe, **how),
        lambda folder, recipe, **how: train_model(tone_store, corpus, folder, recipe, **how),
    ):
        whole, halted = (Path(mkdtemp(dir=tmp_path)) for _ in range(2))
        train(whole, every)
        with pytest.raises(KeyboardInterrupt):
            train(halted, every, report=kill)
        for recipe, seed in ((other, 0), (every, 1)):
            with pytest.raises(StoreError, match="left by a training with other settings; delete it"):
                train(halted, recipe, seed=seed)
        train(halted, slower)
        assert (halted / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.parametrize("keep", ["two talkers", "one emotion", "no labels"])
def test_training_needs_three_talkers_and_two_emotions(tone_store, tiny_recipe, tmp_path, keep):
    corpus = tone_store.corpus()
    kept = {
        "two talkers": lambda: corpus.select(lambda u: u.session == "1"),
        "one emotion": lambda: corpus.select(lambda u: u.emotion == "sad"),
        "no labels": lambda: replace(corpus, utterances=tuple(replace(u, emotion="") for u in corpus)),
    }[keep]()
    with pytest.raises(CorpusError, match="needs three talkers and two emotions"):
        train_model(tone_store, kept, tmp_path, tiny_recipe)


def test_three_talkers_are_enough(tone_store, tiny_recipe, tmp_path):
    recipe = Recipe.from_toml(tiny_recipe.to_toml(), ["finetune.epochs=1", "adapt.data=none"])
    three = tone_store.corpus().select(lambda u: u.talker in ("1F", "1M", "2F"))
    assert train_model(tone_store, three, tmp_path, recipe)["talkers"] == 3


def test_the_encoder_is_asked_for_as_it_was_in_training(tones, tiny_recipe, tmp_path):
    config = transformers.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, vocab_size=8,
    )  # fmt: skip
    paths = []
    for seed in (0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = transformers.Wav2Vec2Model(config)
        paths.append(tmp_path / f"encoder-{seed}")
        model.save_pretrained(paths[-1])
        transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(paths[-1])
    store = extract(tones, load_encoder(str(paths[0]), layers=[0, 2]), tmp_path / "frames", pool=2)
    recipe = Recipe.from_toml(tiny_recipe.to_toml(), ["finetune.epochs=1", "adapt.data=none"])
    train_model(store, store.corpus(), tmp_path / "model", recipe)

    recognizer = EmotionRecognizer.from_pretrained(tmp_path / "model")
    batch = store.load().batch(torch.tensor([7]))
    with torch.inference_mode():
        expected = recognizer.classifier(batch.frames, batch.padding_mask)[0] / recognizer.config.temperature
    path = tones.by_id()[store.ids[7]].path
    assert torch.allclose(recognizer.probabilities(path), expected.softmax(0), atol=1e-3)

    moved = paths[0].rename(tmp_path / "moved")
    with pytest.raises(ModelError, match="encoder-0"):
        EmotionRecognizer.from_pretrained(tmp_path / "model")
    again = EmotionRecognizer.from_pretrained(tmp_path / "model", encoder=str(moved))
    assert again.probabilities(path).equal(recognizer.probabilities(path))
    with pytest.raises(
        ModelError, match=r"encoder-1: differs from the encoder that .*model was trained .* its weights$"
    ):
        EmotionRecognizer.from_pretrained(tmp_path / "model", encoder=str(paths[1]))
    for folder, differing in ((moved, "do_normalize"), (paths[1], "do_normalize and weights")):
        transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)
        with pytest.raises(ModelError, match=f"was trained on in its {differing}$"):
            EmotionRecognizer.from_pretrained(tmp_path / "model", encoder=str(folder))


def test_a_model_is_saved_and_loaded_bit_for_bit(model_folder, tmp_path):
    module, config = load_model(model_folder)
    assert isinstance(module, EmotionClassifier)
    assert not module.training
    save_model(tmp_path, module, config)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (model_folder / name).read_bytes()


def test_what_is_no_model_folder_is_said(model_folder, tmp_path):
    with pytest.raises(ModelError, match=r"is not a model folder \(no config.json\); `serein train` makes one"):
        load_model(tmp_path / "absent")
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ModelError, match="is not a serein model's configuration"):
        load_model(tmp_path)
    broken = copied(model_folder, tmp_path)
    (broken / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no model\.safetensors"):
        load_model(broken)


@pytest.mark.parametrize(
    "change",
    [
        {"labels": ["a", "b", "c", "d", "e"]},
        {"labels": ["angry"]},
        {"model": {"width": 32, "heads": 2}},
        {"model": {"width": 16, "heads": 3}},
        {"max_frames": 10},
        {"architecture": "adapter"},
        {"architecture": "transformer"},
        {"format": 2},
        {"surprise": 1},
        {"encoder": {}},
        None,
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(model_folder, tmp_path, change):
    broken = copied(model_folder, tmp_path)
    content = json.loads((broken / "config.json").read_text())
    text = "{" if change is None else json.dumps(content | change)
    (broken / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json"):
        load_model(broken)


DAMAGES = [
    lambda b: b"",
    lambda b: b[:100],
    lambda b: b"\xff" * 8 + b[8:],
    lambda b: b.replace(b'"config":"{', b'"config":"['),
    lambda b: re.sub(rb'"config":"(?:[^"\\]|\\.)*"', lambda m: b'"config":"5"'.ljust(len(m[0])), b),
]


def test_a_card_that_somebody_wrote_in_another_encoding_spoils_no_model(model_folder, tmp_path):
    broken = copied(model_folder, tmp_path)
    (broken / "README.md").write_bytes("by Müller".encode("latin-1"))
    assert EmotionRecognizer.from_pretrained(broken).card == "by M\ufffdller"


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_refused(model_folder, tmp_path, damage):
    broken = copied(model_folder, tmp_path)
    weights = broken / "model.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(ModelError, match=r"model\.safetensors: these weights do not fit"):
        load_model(broken)


@pytest.mark.parametrize("name", ["labels", "temperature", "encoder"])
def test_weights_beside_the_configuration_of_another_model_are_refused(model_folder, tmp_path, name):
    mixed = copied(model_folder, tmp_path)
    config = json.loads((mixed / "config.json").read_text())
    changes = {
        "labels": list(reversed(config["labels"])),
        "temperature": 2 * config["temperature"],
        "encoder": config["encoder"] | {"fingerprint": "another"},
    }
    (mixed / "config.json").write_text(json.dumps(config | {name: changes[name]}))
    with pytest.raises(ModelError, match=r"belongs to another config\.json"):
        load_model(mixed)


def test_weights_of_an_earlier_serein_are_told(model_folder, tmp_path):
    old = copied(model_folder, tmp_path)
    save_file(load_file(old / "model.safetensors"), old / "model.safetensors", metadata={"labels": '["angry"]'})
    with pytest.raises(ModelError, match=r"was written by an earlier serein.*train again"):
        load_model(old)


def test_a_card_takes_the_place_of_nobodys_page(recognizer, tone_store, tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("serein.train.adapter_folder.adapt", lambda *_, **__: pytest.fail("was trained"))
    monkeypatch.setitem(ship.SHIPPED, "adapter", lambda *_, **__: pytest.fail("was trained"))
    (tmp_path / "README.md").write_text("mine")
    for work in (
        recognizer.save_pretrained,
        lambda folder: adapt_store(tone_store, folder, tiny_recipe),
        lambda folder: train_model(tone_store, tone_store.corpus(), folder, tiny_recipe),
    ):
        with pytest.raises(UsageError, match=r"has a README\.md and is no model's folder"):
            work(tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("README.md", "mine")]


def test_integer_samples_are_refused(model_folder):
    recognizer = EmotionRecognizer.from_pretrained(model_folder)
    with pytest.raises(AudioError, match="divide integers by full scale"):
        recognizer(Recording(np.zeros(16_000, dtype=np.int16), 16_000))


def test_a_model_of_several_speeds_averages_what_it_says_at_each(recognizer, tones):
    path = next(iter(tones)).path
    slow, both = changed(recognizer, speeds=(0.8,)), changed(recognizer, speeds=(1.0, 0.8))
    mean = (recognizer.probabilities(path) + slow.probabilities(path)) / 2
    assert not torch.allclose(recognizer.probabilities(path), slow.probabilities(path))
    assert torch.allclose(both.probabilities(path), mean, atol=1e-6)


def test_every_speed_counts_alike_however_many_windows_it_has(recognizer, tones):
    samples = load_audio(next(iter(tones)).path)
    frames = -(-recognizer.encoder.num_frames(len(samples)) // 2)

    def at(*speeds: float) -> EmotionRecognizer:
        return changed(recognizer, speeds=speeds, max_frames=frames)

    recording = Recording(samples, 16_000)
    windows = hear(samples, (1.0, 0.8), at(1.0).longest_window)
    assert [len(of_speed) for of_speed in windows] == [1, 2]
    for judge in (EmotionRecognizer.probabilities, EmotionRecognizer.embed):
        mean = (judge(at(1.0), recording) + judge(at(0.8), recording)) / 2
        assert torch.allclose(judge(at(1.0, 0.8), recording), mean, atol=1e-4)


def test_a_recording_too_short_for_a_speed_is_judged_at_its_own(recognizer):
    fast = changed(recognizer, speeds=(1.0, 1.5))
    clip = Recording(np.random.default_rng(0).normal(size=450).astype(np.float32) * 0.1, 16_000)
    assert torch.equal(fast.probabilities(clip), recognizer.probabilities(clip))


@pytest.fixture(scope="module")
def transformer(recognizer: EmotionRecognizer, tmp_path_factory) -> EmotionRecognizer:
    """Behind a small random HuBERT, whose convolutions and positions look far, a network of random weights."""
    config = transformers.HubertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2, vocab_size=8,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("hubert")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.HubertModel(config).save_pretrained(folder)
        transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
        encoder = load_encoder(str(folder), layers=[1, 2])
        described = recognizer.config.encoder.model_copy(update={"layers": (1, 2), "width": 16, "pool": 1})
        whole = recognizer.config.model_copy(update={"encoder": described, "max_frames": 150, "speeds": (1.0, 0.9)})
        classifier = build_classifier(whole, build_adapter(whole))
        for weights in classifier.parameters():
            torch.nn.init.normal_(weights, std=0.3)
    return EmotionRecognizer(classifier, whole, encoder)


@pytest.mark.parametrize("front", ["logmel", "transformer"])
def test_alone_in_a_batch_in_a_timeline_and_in_a_stream_the_answer_is_the_same(recognizer, transformer, front):
    model = {"logmel": changed(recognizer, max_frames=60, speeds=(1.0, 0.9)), "transformer": transformer}[front]
    random = np.random.default_rng(0)
    lengths = (48_000, 16_000, 400, 70_000, 16_000, 33_333, 150_000, 450)
    sounds = [(0.1 * random.standard_normal(length)).astype(np.float32) for length in lengths]
    single = torch.cat([model.logits_of([sound]) for sound in sounds])
    together = model.logits_of(sounds)
    assert single.std() > 0.05
    assert single.dtype == together.dtype == torch.float32
    assert torch.allclose(together, single, atol=1e-4, rtol=0)
    assert torch.allclose(model.probabilities_of(sounds), single.softmax(1), atol=1e-5)

    long = Recording(sounds[6], 16_000)
    timeline = model.timeline(long, 2.0, 0.7)
    stream = model.stream(2.0, 0.7)
    windows = [window for start in range(0, 150_000, 1_111) for window in stream.feed(long.samples[start:][:1_111])]
    windows += stream.finish()
    assert len(windows) == len(timeline.windows) == 12
    for window, streamed in zip(timeline.windows, windows, strict=True):
        assert (window.start, window.end) == (streamed.start, streamed.end)
        samples = long.samples[round(window.start * 16_000) : round(window.end * 16_000)]
        logits = model.logits_of([samples])[0].log_softmax(0).tolist()
        assert np.log(window.scores) == pytest.approx(logits, abs=1e-4)
        assert np.log(streamed.scores) == pytest.approx(logits, abs=1e-4)
    assert stream.timeline().quiet == timeline.quiet


def test_silence_and_a_tone_have_the_same_answer_in_any_company(recognizer):
    """Their frames hardly vary, and the pooled variances are brought to length 1 however small they are."""
    assert recognizer.config.model.pooled_norm == "l2"
    noise = (0.1 * np.random.default_rng(0).standard_normal(64_000)).astype(np.float32)
    tone = (0.5 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 16_000)).astype(np.float32)
    for sound in (np.zeros(48_000, dtype=np.float32), tone):
        alone = recognizer.logits_of([sound])[0]
        for other in (noise, noise[:50_000], noise[:16_000]):
            assert torch.allclose(recognizer.logits_of([sound, other])[0], alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("rate", "name"), [(16_000, "a.wav"), (44_100, "a.flac"), (8_000, "a.wav")])
def test_the_timeline_of_a_file_is_that_of_a_stream_of_its_samples(recognizer, tones, tmp_path, rate, name):
    samples = np.concatenate([load_audio(utterance.path) for utterance in tones.utterances[:8]])
    soundfile.write(tmp_path / name, samples, rate)
    taken, _ = soundfile.read(tmp_path / name, dtype="float32")
    timeline = recognizer.timeline(tmp_path / name, 1.0, 0.25)
    stream = recognizer.stream(1.0, 0.25, rate=rate)
    windows = [window for start in range(0, len(taken), 999) for window in stream.feed(taken[start : start + 999])]
    windows += stream.finish()
    assert timeline.seconds == pytest.approx(len(samples) / rate, abs=1e-3) == stream.timeline().seconds
    assert timeline.labels == recognizer.labels
    assert len(timeline.windows) == len(windows) > 4
    for window, streamed in zip(timeline.windows, windows, strict=True):
        assert (window.start, window.end, window.silent) == (streamed.start, streamed.end, streamed.silent)
        assert window.scores == pytest.approx(streamed.scores, abs=1e-4)
    assert timeline.segments()[-1].end == timeline.seconds
    of_samples = recognizer.timeline(Recording(taken, rate), 1.0, 0.25)
    assert of_samples.windows == timeline.windows


def test_a_timeline_hears_what_is_no_recording(recognizer):
    with pytest.raises(AudioError, match=r"absent\.wav: does not exist"):
        recognizer.timeline("absent.wav")
    with pytest.raises(TooShort, match="300 samples"):
        recognizer.timeline(Recording(np.zeros(300), 16_000))


@pytest.mark.parametrize("ask", [EmotionRecognizer.__call__, EmotionRecognizer.timeline, EmotionRecognizer.embed])
@pytest.mark.parametrize("source", [np.zeros(16_000, np.float32), ("a.wav", "b.wav")])
def test_what_is_no_source_is_refused_with_the_way_out(recognizer, source, ask, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # types are not checked where people use it
    with pytest.raises(UsageError, match=r"is no recording; .*Recording\(samples, rate\), and several in a list"):
        ask(recognizer, source)


def test_what_a_detector_cannot_find_is_not_told_of_the_recording(recognizer, tones):
    def absent(_):
        raise FileNotFoundError(2, "No such file or directory", "detector.onnx")

    with pytest.raises(FileNotFoundError, match=r"detector\.onnx"):
        recognizer.timeline(tones.utterances[0].path, 0.5, 0.25, silent=absent)


def test_silence_is_marked_in_a_timeline(recognizer, tones):
    samples = load_audio(tones.utterances[0].path)
    paused = np.concatenate([samples, np.zeros(48_000, dtype=np.float32), samples])
    timeline = recognizer.timeline(Recording(paused, 16_000), 0.5, 0.25)
    assert [segment.label == "silence" for segment in timeline.segments()].count(True) == 1
    assert {window.silent for window in timeline.windows} == {True, False}
    loudly = recognizer.timeline(Recording(paused, 16_000), 0.5, 0.25, silent=lambda samples: True)
    assert [segment.label for segment in loudly.segments()] == ["silence"]


def test_a_list_is_computed_together_in_groups_of_a_minute_and_answered_in_its_order(recognizer, tones, monkeypatch):
    paths = [utterance.path for utterance in tones.utterances]
    expected = [recognizer(path) for path in paths]
    groups = []
    encode = recognizer.encoder.encode
    monkeypatch.setattr(recognizer.encoder, "encode", lambda given: groups.append([*map(len, given)]) or encode(given))
    found = recognizer([*paths])
    assert [scores[0]["label"] for scores in found] == [scores[0]["label"] for scores in expected]
    for scores, alone in zip(found, expected, strict=True):
        assert by_label(scores) == pytest.approx(by_label(alone), abs=1e-5)
    assert len(groups) == 2
    assert sum(map(len, groups)) == 96
    assert all(len(group) * max(group) <= 60 * 16_000 for group in groups)


def test_a_bad_recording_in_a_list_is_named(recognizer, tones, tmp_path):
    good = tones.utterances[0].path
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    with pytest.raises(AudioError, match=r"^.*bad\.wav: "):
        recognizer([good, tmp_path / "bad.wav"])
    with pytest.raises(AudioError, match=r"^recording 2: these bytes: "):
        recognizer([good, good, b"no sound"])
    with pytest.raises(NonFiniteAudio, match=r"^recording 1: "):
        recognizer([good, Recording(np.full(500, np.nan), 16_000)])
    with pytest.raises(TooShort, match=r"^recording 1: this recording has 399 samples"):
        recognizer.probabilities_of([np.zeros(400, dtype=np.float32), np.zeros(399, dtype=np.float32)])
    assert recognizer.probabilities_of([]).shape == (0, 4)


def test_the_temperature_softens_and_the_threshold_says_when_not_to_believe(recognizer, tones):
    path = tones.utterances[0].path
    plain = recognizer.probabilities(path)
    soft = changed(recognizer, temperature=2.5, abstain_below=0.5)
    assert torch.allclose(soft.probabilities(path), (plain.log() / 2.5).softmax(0), atol=1e-6)
    samples = load_audio(path)
    assert torch.allclose(soft.logits_of([samples])[0], plain.log() / 2.5, atol=1e-5)
    assert [score["label"] for score in soft(path)] == [score["label"] for score in recognizer(path)]
    assert soft.sure([{"label": "sad", "score": 0.5}, {"label": "angry", "score": 0.5}])
    assert not soft.sure([{"label": "sad", "score": 0.49}])
    assert changed(recognizer, abstain_below=0.0).sure([{"label": "sad", "score": 0.26}])


def test_a_probability_that_float32_cannot_hold_has_a_logit(recognizer, tones):
    bold = changed(recognizer)
    bold.classifier = deepcopy(recognizer.classifier)
    with torch.no_grad():
        bold.classifier.output.bias += torch.tensor([1000.0, 0.0, 0.0, 0.0])
    path = tones.utterances[0].path
    logits = bold.logits_of([load_audio(path)])
    assert logits.isfinite().all()
    plain = recognizer.logits_of([load_audio(path)])
    assert torch.allclose(logits[0, 1:].diff(), plain[0, 1:].diff(), atol=1e-3)
    assert logits.diff().min() < -950


def test_frames_that_float16_cannot_hold_are_an_error_of_the_recording(recognizer, tones):
    sound = load_audio(tones.utterances[0].path)
    absurd = 1e30 * sound
    with pytest.raises(AudioError, match=r"^frames reach (inf|nan), and float16 ends at 65504"):
        recognizer.probabilities_of([absurd])
    with pytest.raises(AudioError, match=r"^recording 1: frames reach (inf|nan)"):
        recognizer.probabilities_of([sound, absurd, sound])
    with pytest.raises(AudioError, match=r"^frames reach (inf|nan)"):
        recognizer.judge([sound, absurd, sound])


def test_a_window_that_the_encoder_cannot_take_leaves_the_rest_of_the_timeline(recognizer, tones):
    sound = np.concatenate([load_audio(utterance.path) for utterance in tones.utterances[:4]])
    expected = recognizer.timeline(Recording(sound, 16_000), 0.25, 0.25)
    bad = sound.copy()
    bad[8_000:12_000] *= 1e30
    found = recognizer.stream(0.25, 0.25).follow([bad])
    for number, (window, other) in enumerate(zip(found.windows, expected.windows, strict=True)):
        if number == 2:
            assert window == replace(other, scores=(0.25,) * 4, silent=True)
        else:
            assert window.scores == pytest.approx(other.scores, abs=1e-5)
            assert window.silent == other.silent


def test_a_judge_of_windows_may_stand_between_and_the_answer_stays_the_same(recognizer):
    model = changed(recognizer, max_frames=60, speeds=(1.0, 0.9), temperature=1.7)
    random = np.random.default_rng(1)
    sounds = [(0.1 * random.standard_normal(length)).astype(np.float32) for length in (90_000, 400, 30_000)]
    asked = []

    def one_by_one(windows):
        asked.append([len(window) for window in windows])
        return torch.cat([model.judge([window]) for window in windows])

    found = model.logits_of(sounds, judge=one_by_one)
    assert torch.allclose(found, model.logits_of(sounds), atol=1e-4)
    assert max(asked[0]) <= model.longest_window
    assert len(asked) == 1
    assert len(asked[0]) == 10


def test_what_an_encoder_pads_counts_in_a_group(recognizer, tones, monkeypatch):
    groups = []
    encode = recognizer.encoder.encode
    monkeypatch.setattr(recognizer.encoder, "encode", lambda given: groups.append(len(given)) or encode(given))
    monkeypatch.setattr(recognizer.encoder, "padded_to", 30 * 16_000)
    clips = [load_audio(utterance.path) for utterance in tones.utterances[:9]]
    found = recognizer.probabilities_of(clips)
    assert groups == [2, 2, 2, 2, 1]
    monkeypatch.undo()
    assert torch.allclose(found, recognizer.probabilities_of(clips), atol=1e-5)


@pytest.mark.parametrize("top_k", [0, -1])
def test_less_than_one_label_is_refused(recognizer, tones, top_k):
    path = tones.utterances[0].path
    with pytest.raises(UsageError, match=f"top_k {top_k}: ask for one label or more"):
        recognizer(path, top_k=top_k)
    with pytest.raises(UsageError, match=f"top_k {top_k}"):
        recognizer([path], top_k=top_k)


def test_a_device_that_is_none_is_said(model_folder):
    with pytest.raises(UsageError, match="device 'cud': cannot be used here"):
        EmotionRecognizer.from_pretrained(model_folder, device="cud")


def test_a_model_without_a_card_leaves_no_other_models_card(recognizer, model_folder, tmp_path):
    folder = copied(model_folder, tmp_path)
    assert recognizer.card == ""
    recognizer.save_pretrained(folder)
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    EmotionRecognizer.from_pretrained(model_folder).save_pretrained(folder)
    assert (folder / "README.md").read_bytes() == (model_folder / "README.md").read_bytes()


def test_a_recording_between_one_and_two_frames_has_an_answer_at_one_frame_a_window(recognizer):
    short = changed(
        recognizer,
        max_frames=1,
        encoder=recognizer.config.encoder.model_copy(update={"pool": 1}),
    )
    assert short.longest_window == 719
    noise = np.random.default_rng(0).standard_normal(750).astype(np.float32)
    assert short.probabilities_of([noise]).shape == (1, 4)
