import json
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import soundfile
import soxr
import torch
import transformers

from serein.corpus.corpus import Corpus
from serein.errors import AudioError, CorpusError, ModelError, NonFiniteAudio, StoreError, TooShort
from serein.frames.audio import load_audio
from serein.frames.encoder import load_encoder
from serein.frames.extract import extract
from serein.frames.store import FrameStore
from serein.model import build_adapter, load_config, load_model, save_model
from serein.nn.classifier import EmotionClassifier
from serein.nn.committee import Committee
from serein.nn.transformer import WAPTransformer
from serein.recipe import Recipe
from serein.recognizer import EmotionRecognizer, Recording
from serein.train.ship import adapt_store, train_model


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
    return EmotionRecognizer.from_pretrained(model_folder)


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
    assert "96 utterances, 6 talkers" in card
    assert "not a test score" in card
    assert Recipe.from_toml(card.partition("```toml\n")[2].partition("```")[0]) == tiny_recipe


def test_a_committee_is_shipped_as_one_model(tone_store, tiny_recipe, tones, tmp_path):
    recipe = Recipe.from_toml(tiny_recipe.to_toml(), ["model.members=2", "finetune.epochs=2"])
    train_model(tone_store, tone_store.corpus(), tmp_path, recipe)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    module, config = load_model(tmp_path)
    assert isinstance(module, Committee)
    assert config.model.members == 2
    recognizer = EmotionRecognizer.from_pretrained(tmp_path)
    path = tones.utterances[0].path
    members = [EmotionRecognizer(member, config, recognizer.encoder) for member in module.members]
    mean = (members[0].probabilities(path) + members[1].probabilities(path)) / 2
    assert torch.allclose(recognizer.probabilities(path), mean, atol=1e-6)
    assert not torch.allclose(members[0].probabilities(path), members[1].probabilities(path), atol=1e-4)


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
    pieces = [load_audio(utterance.path) for utterance in tones.utterances[:60]]
    samples = np.concatenate(pieces)
    assert len(samples) > 31 * 16_000
    whole = recognizer.probabilities(Recording(samples, 16_000))
    assert float(whole.sum()) == pytest.approx(1, abs=1e-5)

    (windows,) = recognizer._windows(Recording(samples, 16_000))
    lengths = [frames.shape[1] for frames, _ in windows]
    assert len(lengths) == 2
    assert max(lengths) - min(lengths) <= 1
    assert max(lengths) <= recognizer.config.max_frames == 750

    short = EmotionRecognizer(
        recognizer.classifier, recognizer.config.model_copy(update={"max_frames": 5}), recognizer.encoder
    )
    cut = short.probabilities(tones.utterances[0].path)
    (windows,), (uncut,) = ([*model._windows(tones.utterances[0].path)] for model in (short, recognizer))
    assert torch.equal(torch.cat([frames for frames, _ in windows], dim=1), uncut[0][0])
    assert not torch.allclose(cut, recognizer.probabilities(tones.utterances[0].path), atol=1e-4)


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
    assert "may have heard those talkers" in (tmp_path / "README.md").read_text(encoding="utf-8")
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
        ("transductive", "on all talkers, so it heard that fifth too"),
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
        expected = recognizer.classifier(batch.frames, batch.padding_mask).softmax(1)[0]
    path = tones.by_id()[store.ids[7]].path
    assert torch.allclose(recognizer.probabilities(path), expected, atol=1e-3)

    moved = paths[0].rename(tmp_path / "moved")
    with pytest.raises(ModelError, match="encoder-0"):
        EmotionRecognizer.from_pretrained(tmp_path / "model")
    again = EmotionRecognizer.from_pretrained(tmp_path / "model", encoder=str(moved))
    assert again.probabilities(path).equal(recognizer.probabilities(path))
    with pytest.raises(ModelError, match=r"encoder-1: its weights are not those of the encoder that .*model"):
        EmotionRecognizer.from_pretrained(tmp_path / "model", encoder=str(paths[1]))


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


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:100], lambda b: b"\xff" * 8 + b[8:]])
def test_damaged_weights_are_refused(model_folder, tmp_path, damage):
    broken = copied(model_folder, tmp_path)
    weights = broken / "model.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(ModelError, match=r"model\.safetensors: these weights do not fit"):
        load_model(broken)


def test_weights_under_labels_of_another_model_are_refused(model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "mixed")
    config = json.loads((tmp_path / "mixed" / "config.json").read_text())
    config["labels"] = list(reversed(config["labels"]))
    (tmp_path / "mixed" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="has logits for"):
        load_model(tmp_path / "mixed")


def test_integer_samples_are_refused(model_folder):
    recognizer = EmotionRecognizer.from_pretrained(model_folder)
    with pytest.raises(AudioError, match="divide them by full scale"):
        recognizer(Recording(np.zeros(16_000, dtype=np.int16), 16_000))


def test_a_model_of_several_speeds_averages_what_it_says_at_each(recognizer, tones):
    path = next(iter(tones)).path
    slow = EmotionRecognizer(
        recognizer.classifier, recognizer.config.model_copy(update={"speeds": (0.8,)}), recognizer.encoder
    )
    both = EmotionRecognizer(
        recognizer.classifier, recognizer.config.model_copy(update={"speeds": (1.0, 0.8)}), recognizer.encoder
    )
    mean = (recognizer.probabilities(path) + slow.probabilities(path)) / 2
    assert not torch.allclose(recognizer.probabilities(path), slow.probabilities(path))
    assert torch.allclose(both.probabilities(path), mean, atol=1e-6)


def test_every_speed_counts_alike_however_many_windows_it_has(recognizer, tones):
    samples = load_audio(next(iter(tones)).path)
    frames = next(recognizer._windows(Recording(samples, 16_000)))[0][0].shape[1]

    def at(*speeds: float) -> EmotionRecognizer:
        config = recognizer.config.model_copy(update={"speeds": speeds, "max_frames": frames})
        return EmotionRecognizer(recognizer.classifier, config, recognizer.encoder)

    recording = Recording(samples, 16_000)
    assert [len(windows) for windows in at(1.0, 0.8)._windows(recording)] == [1, 2]
    for judge in (EmotionRecognizer.probabilities, EmotionRecognizer.embed):
        mean = (judge(at(1.0), recording) + judge(at(0.8), recording)) / 2
        assert torch.allclose(judge(at(1.0, 0.8), recording), mean, atol=1e-6)


def test_a_recording_too_short_for_a_speed_is_judged_at_its_own(recognizer):
    fast = EmotionRecognizer(
        recognizer.classifier, recognizer.config.model_copy(update={"speeds": (1.0, 1.5)}), recognizer.encoder
    )
    clip = Recording(np.random.default_rng(0).normal(size=450).astype(np.float32) * 0.1, 16_000)
    assert torch.equal(fast.probabilities(clip), recognizer.probabilities(clip))
