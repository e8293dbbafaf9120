import importlib.util
import sys

import numpy as np
import pytest
import torch
import transformers

from serein.errors import SereinError, UsageError
from serein.frames.encoder import load_encoder
from serein.train.whole_encoder import (
    WholeEncoder,
    add_lora,
    load_whole,
    make_optimizer,
    shipped_numbers,
    train_all,
    train_epoch,
    train_step,
    trainable_parameters,
)

needs_peft = pytest.mark.skipif(
    importlib.util.find_spec("peft") is None, reason="peft is not installed: pip install 'serein[peft]'"
)
WIDTH, BLOCKS, CLASSES = 32, 3, 2
SMALL = {
    "hidden_size": WIDTH,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
WHISPER = {
    "d_model": WIDTH,
    "encoder_layers": BLOCKS,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_mel_bins": 80,
    "max_source_positions": 100,
    "vocab_size": 12,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0),
}
KINDS = {
    "hubert": ("Hubert", SMALL),
    "hubert-stable": ("Hubert", {**SMALL, **STABLE}),
    "wav2vec2": ("Wav2Vec2", SMALL),
    "wavlm": ("WavLM", SMALL),
    "whisper": ("Whisper", WHISPER),
}
LORA = [kind for kind in KINDS if kind != "wavlm"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    made = {}

    def make(kind: str) -> str:
        if kind not in made:
            family, settings = KINDS[kind]
            torch.manual_seed(0)
            model = getattr(transformers, f"{family}Model")(getattr(transformers, f"{family}Config")(**settings))
            for name, tensor in model.state_dict().items():  # large enough that clips differ at the end
                if tensor.is_floating_point() and "original0" not in name:
                    tensor.add_(torch.randn_like(tensor), alpha=0.15)
            made[kind] = tmp_path_factory.mktemp(kind)
            model.save_pretrained(made[kind])
            extractor = (
                transformers.WhisperFeatureExtractor(chunk_length=2)
                if kind == "whisper"
                else transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
            )
            extractor.save_pretrained(made[kind])
        return str(made[kind])

    return make


@pytest.fixture(scope="module")
def hums() -> tuple[list[np.ndarray], torch.Tensor]:
    """Eight clips of 0.3 to 0.6 seconds: four low hums, four hisses."""
    random = np.random.default_rng(0)
    clips = []
    for number in range(8):
        time = np.arange(random.integers(4_800, 9_600)) / 16_000
        hiss = random.standard_normal(len(time))
        clips.append((0.1 * hiss if number % 2 else np.sin(2 * np.pi * 150 * time) + 0.01 * hiss).astype(np.float32))
    return clips, torch.arange(8) % 2


def weights(model: WholeEncoder) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def moved(before: dict[str, torch.Tensor], model: WholeEncoder) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not parameter.equal(before[name])}


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_the_head_on_the_mean_of_the_frozen_encoders_frames(kind, checkpoint, hums):
    model = load_whole(checkpoint(kind), CLASSES).eval()
    encoder = load_encoder(checkpoint(kind), whisper_padding=False)
    means = torch.stack([frames[:, 0].mean(0) for frames in encoder.encode(hums[0])])
    with torch.no_grad():
        torch.testing.assert_close(model(hums[0]), model.output(means), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_full_fine_tuning_moves_every_part_of_the_encoder(kind, checkpoint, hums):
    model = train_all(load_whole(checkpoint(kind), CLASSES))
    before = weights(model)
    train_step(model, make_optimizer(model, learning_rate=1e-3), *hums)
    changed = moved(before, model)
    still = set(before) - changed
    # sines; and what a softmax cannot see
    assert all(name == "front.positions.weight" or "k_proj.bias" in name for name in still), still
    assert {name.split(".")[0] for name in changed} >= {"front", "blocks", "output"}
    assert model.training


def test_the_head_and_the_encoder_have_their_own_rates(checkpoint):
    model = train_all(load_whole(checkpoint("whisper"), CLASSES))
    rates = {id(p): group["lr"] for group in make_optimizer(model, 1e-5, 1e-3).param_groups for p in group["params"]}
    said = {name: rates[id(p)] for name, p in model.named_parameters() if p.requires_grad}
    assert said == {name: 1e-3 if name.startswith("output.") else 1e-5 for name in said}


@needs_peft
@pytest.mark.parametrize("kind", LORA)
def test_lora_moves_its_own_weights_and_the_head_alone(kind, checkpoint, hums):
    model = add_lora(load_whole(checkpoint(kind), CLASSES))
    before = weights(model)
    optimizer = make_optimizer(model, learning_rate=1e-3)
    train_step(model, optimizer, *hums)
    train_step(model, optimizer, *hums)  # lora_A has no gradient while lora_B is zero
    changed = moved(before, model)
    assert changed == {name for name in before if "lora_" in name or name.startswith("output.")}
    assert sum("lora_" in name for name in changed) == BLOCKS * 2 * 2  # q and v, A and B
    assert model.training


@needs_peft
def test_lora_starts_as_the_pretrained_encoder(checkpoint, hums):
    model = load_whole(checkpoint("hubert"), CLASSES).eval()
    with torch.no_grad():
        before = model(hums[0])
        torch.testing.assert_close(add_lora(model).eval()(hums[0]), before, atol=0, rtol=0)


@needs_peft
def test_lora_keeps_no_graph_of_what_stands_before_the_blocks(checkpoint, hums):
    model = load_whole(checkpoint("hubert"), CLASSES)
    seen = []
    model.front.register_forward_hook(lambda module, args, frames: seen.append(frames.requires_grad))
    train_all(model)(hums[0][:1])
    add_lora(model)(hums[0][:1])
    assert seen == [True, False]


@needs_peft
def test_parameters_counted_by_hand(checkpoint):
    head = WIDTH * CLASSES + CLASSES
    lora = BLOCKS * 2 * 8 * (WIDTH + WIDTH)
    model = add_lora(load_whole(checkpoint("whisper"), CLASSES))
    assert trainable_parameters(model) == shipped_numbers(model) == lora + head

    attention = 4 * WIDTH * WIDTH + 3 * WIDTH  # the key projection has no bias
    block = attention + WIDTH * 48 + 48 + 48 * WIDTH + WIDTH + 2 * 2 * WIDTH
    convolutions = 80 * WIDTH * 3 + WIDTH + WIDTH * WIDTH * 3 + WIDTH
    positions = 100 * WIDTH
    model = train_all(load_whole(checkpoint("whisper"), CLASSES))
    assert trainable_parameters(model) == convolutions + BLOCKS * block + 2 * WIDTH + head
    assert shipped_numbers(model) == trainable_parameters(model) + positions


def test_what_hides_frames_in_pretraining_is_not_counted(checkpoint):
    model = train_all(load_whole(checkpoint("hubert-stable"), CLASSES))
    bare = transformers.HubertModel.from_pretrained(checkpoint("hubert-stable"))
    assert trainable_parameters(model) == bare.num_parameters() - WIDTH + WIDTH * CLASSES + CLASSES


@needs_peft
@pytest.mark.parametrize("learn", [train_all, add_lora])
def test_the_loss_falls(learn, checkpoint, hums):
    torch.manual_seed(0)
    model = learn(load_whole(checkpoint("whisper"), CLASSES))
    optimizer = make_optimizer(model, learning_rate=3e-3, head_learning_rate=1e-2)
    losses = [np.mean(train_epoch(model, optimizer, *hums, batch_size=4, epoch=epoch)) for epoch in range(10)]
    assert losses[-1] < 0.5 * losses[0]


def test_an_epoch_shows_every_utterance_once_and_reports_each_step(checkpoint, hums, monkeypatch):
    model = train_all(load_whole(checkpoint("whisper"), CLASSES))
    shown, told = [], []
    monkeypatch.setattr(
        "serein.train.whole_encoder.train_step",
        lambda model, optimizer, waveforms, labels: shown.extend(waveforms) or torch.tensor(1.5),
    )
    report = lambda stage, done, total, facts: told.append((done, total))  # noqa: E731
    losses = train_epoch(model, make_optimizer(model), *hums, batch_size=3, report=report)
    assert sorted(map(len, shown)) == sorted(map(len, hums[0]))
    assert losses == [1.5] * len(told)
    assert told == [(step + 1, len(told)) for step in range(len(told))]
    assert len(told) >= 3


def test_training_that_diverges_is_stopped(checkpoint, hums):
    model = train_all(load_whole(checkpoint("whisper"), CLASSES))
    with torch.no_grad():
        model.output.weight.fill_(float("nan"))
    with pytest.raises(SereinError, match="diverged"):
        train_epoch(model, make_optimizer(model), *hums, batch_size=4)


def test_missing_peft_is_named_with_its_extra(checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match=r"serein\[peft\]"):
        add_lora(load_whole(checkpoint("hubert"), CLASSES))


@needs_peft
def test_lora_on_wavlm_would_train_nothing_and_is_refused(checkpoint):
    with pytest.raises(UsageError, match="WavLM"):
        add_lora(load_whole(checkpoint("wavlm"), CLASSES))
