import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from torch.nn.functional import cosine_similarity

from serein.arguments import open_encoder
from serein.errors import ModelError, TooShort, UsageError
from serein.frames.encoder import SpeechEncoder, load_encoder, num_layers
from serein.frames.packed import PackedBlock

KINDS = [
    "hubert",
    "hubert-stable",
    "hubert-batch-norm",
    "wav2vec2",
    "wav2vec2-stable",
    "wavlm",
    "wavlm-stable",
    "data2vec-audio",
    "unispeech-sat",
    "unispeech-sat-stable",
]


@pytest.fixture
def copy_of(tiny_checkpoint, tmp_path):
    return lambda kind, *head: Path(shutil.copytree(tiny_checkpoint(kind, *head), tmp_path / "copy"))


def edit_weights(folder: Path, edit) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def edit_json(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def assert_same_frames(ours, theirs) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 1e-4
    assert cosine_similarity(ours, theirs, dim=-1).min() > 0.9999


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_those_of_transformers(kind, tiny_checkpoint, waveforms):
    folder = tiny_checkpoint(kind)
    encoder = load_encoder(str(folder), layers=[0, 1, 2, 3])
    assert isinstance(encoder, SpeechEncoder)
    model = transformers.AutoModel.from_pretrained(folder)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    for waveform in waveforms:
        values = extractor(waveform, sampling_rate=16_000, return_tensors="pt").input_values
        with torch.no_grad():
            output = model(values, output_hidden_states=True)
        expected = torch.cat([*output.hidden_states[:-1], output.last_hidden_state]).transpose(0, 1)
        (frames,) = encoder.encode([waveform])
        assert_same_frames(frames, expected)
        between = (frames[:, 1:] - frames[:, :-1]).abs().amax(dim=(0, 2))
        assert between.min() > 0.1, "layers too alike for this test to tell them apart"


@pytest.mark.parametrize(
    ("kind", "whisper_padding"), [*((kind, True) for kind in [*KINDS, "whisper"]), ("whisper", False)]
)
def test_frames_do_not_depend_on_the_company(kind, whisper_padding, tiny_checkpoint, waveforms):
    encoder = load_encoder(str(tiny_checkpoint(kind)), layers=[1, -1], whisper_padding=whisper_padding)
    alone = [encoder.encode([waveform])[0] for waveform in waveforms]
    order = [3, 1, 4, 0, 2]
    permuted = encoder.encode([waveforms[index] for index in order])
    for index, frames in zip(order, permuted, strict=True):
        assert_same_frames(frames, alone[index])
    for frames, expected in zip(encoder.encode(waveforms), alone, strict=True):
        assert_same_frames(frames, expected)


@pytest.mark.parametrize("kind", ["hubert", "hubert-stable", "wavlm", "whisper"])
def test_asking_for_fewer_layers_changes_none_of_them(kind, tiny_checkpoint, waveforms):
    name = str(tiny_checkpoint(kind))
    every = load_encoder(name, layers=range(4)).encode(waveforms)
    for layers in [(0,), (2, 1), (-1,), (-2, 0)]:
        some = load_encoder(name, layers=layers).encode(waveforms)
        for frames, all_frames in zip(some, every, strict=True):
            torch.testing.assert_close(frames, all_frames[:, list(layers)], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["hubert", "wavlm"])
def test_no_block_above_the_highest_layer_is_computed(kind, tiny_checkpoint, waveforms, monkeypatch):
    calls = []
    for block in (PackedBlock, transformers.models.wavlm.modeling_wavlm.WavLMEncoderLayer):
        called = "__call__" if block is PackedBlock else "forward"
        original = getattr(block, called)
        counted = lambda self, *a, _original=original, **k: calls.append(self) or _original(self, *a, **k)  # noqa: E731
        monkeypatch.setattr(block, called, counted)
    load_encoder(str(tiny_checkpoint(kind)), layers=[0, 2]).encode(waveforms[:1])
    assert len(calls) == 2


@pytest.mark.parametrize("kind", ["hubert", "data2vec-audio", "whisper"])
def test_frames_are_counted_without_encoding(kind, tiny_checkpoint):
    encoder = load_encoder(str(tiny_checkpoint(kind)), layers=[0])
    random = np.random.default_rng(1)
    assert encoder.num_frames(0) == 0
    for samples in (400, 719, 720, 721, 16_000, *random.integers(400, 70_000, 12)):
        waveform = random.standard_normal(samples).astype(np.float32)
        (frames,) = encoder.encode([waveform])
        assert frames.shape == (encoder.num_frames(int(samples)), 1, encoder.width)
        assert abs(len(frames) - samples / 16_000 * encoder.frame_rate) <= 1.5


def test_frames_of_hubert_by_hand(tiny_checkpoint):
    encoder = load_encoder(str(tiny_checkpoint("hubert")))
    assert [encoder.num_frames(n) for n in (0, 9, 399, 400, 719, 720, 16_000)] == [0, 0, 0, 1, 1, 2, 49]
    assert encoder.frame_rate == 50


def test_what_an_encoder_says_of_itself(tiny_checkpoint):
    name = str(tiny_checkpoint("hubert-stable"))
    encoder = load_encoder(name, layers=[-1, 0])
    assert (encoder.name, encoder.revision, encoder.layers, encoder.width) == (name, "", (3, 0), 32)
    assert encoder.settings == {"dtype": "float32", "do_normalize": True}
    assert num_layers(name) == 3


@pytest.mark.parametrize("kind", ["hubert", "whisper"])
def test_too_short_a_waveform_is_an_error(kind, tiny_checkpoint, waveforms):
    encoder = load_encoder(str(tiny_checkpoint(kind)))
    with pytest.raises(TooShort, match="99 samples"):
        encoder.encode([*waveforms, np.zeros(99, dtype=np.float32)])
    assert encoder.encode([]) == []


@pytest.mark.parametrize("kind", ["hubert", "whisper"])
def test_frames_may_enter_a_network_that_learns(kind, tiny_checkpoint, waveforms):
    frames = load_encoder(str(tiny_checkpoint(kind))).encode(waveforms[:1])[0]
    weight = torch.ones(32, requires_grad=True)
    (frames * weight).sum().backward()
    assert weight.grad is not None
    assert not frames.requires_grad


@pytest.mark.parametrize("kind", ["hubert", "whisper", "logmel"])
def test_a_waveform_may_be_read_only_and_is_not_changed(kind, tiny_checkpoint, waveforms):
    encoder = load_encoder(kind if kind == "logmel" else str(tiny_checkpoint(kind)))
    locked = waveforms[0].copy()
    locked.flags.writeable = False
    torch.testing.assert_close(encoder.encode([locked]), encoder.encode([waveforms[0]]), atol=0, rtol=0)
    np.testing.assert_array_equal(locked, waveforms[0])


def test_input_is_normalised_exactly_if_the_checkpoint_says_so(copy_of, waveforms):
    folder = copy_of("hubert-stable")
    louder = 2.5 * waveforms[0] + np.float32(0.1)
    quiet, loud = load_encoder(str(folder)).encode([waveforms[0], louder])
    assert_same_frames(loud, quiet)
    edit_json(folder / "preprocessor_config.json", do_normalize=False)
    raw = load_encoder(str(folder))
    quiet, loud = raw.encode([waveforms[0], louder])
    assert (loud - quiet).abs().max() > 0.01
    assert raw.settings["do_normalize"] is False


def test_bfloat16_is_close_and_comes_out_as_float32(tiny_checkpoint, waveforms):
    for kind in ("hubert-stable", "wavlm", "whisper"):
        exact = load_encoder(str(tiny_checkpoint(kind)))
        half = load_encoder(str(tiny_checkpoint(kind)), dtype="bfloat16")
        for frames, expected in zip(half.encode(waveforms), exact.encode(waveforms), strict=True):
            assert frames.dtype == torch.float32
            assert (frames - expected).abs().max() > 1e-4
            assert cosine_similarity(frames, expected, dim=-1).mean() > 0.99
        assert half.settings["dtype"] == "bfloat16"
        assert half.fingerprint != exact.fingerprint


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("hubert", "ForCTC"),
        ("hubert", "ForSequenceClassification"),
        ("wav2vec2", "ForPreTraining"),
        ("wav2vec2", "ForXVector"),
        ("wavlm", "ForAudioFrameClassification"),
        ("data2vec-audio", "ForCTC"),
        ("unispeech-sat", "ForPreTraining"),
        ("unispeech-sat", "ForXVector"),
    ],
)
def test_a_head_is_left_out(kind, head, tiny_checkpoint, waveforms):
    family = transformers.AutoModel.from_pretrained(tiny_checkpoint(kind, head))
    encoder = load_encoder(str(tiny_checkpoint(kind, head)))
    with torch.no_grad():
        values = torch.from_numpy((waveforms[0] - waveforms[0].mean()) / waveforms[0].std())[None]
        expected = family(values).last_hidden_state[0]
    assert_same_frames(encoder.encode(waveforms[:1])[0][:, 0], expected)


def test_fingerprint_is_of_the_weights_used(copy_of):
    folder = copy_of("hubert-stable")

    def fingerprint(layers):
        return load_encoder(str(folder), layers=layers).fingerprint

    before, cut = fingerprint([3]), fingerprint([2])
    assert len(before) == 64
    assert before == fingerprint([0, 3])
    assert before != cut

    edit_weights(folder, lambda weights: weights.pop("masked_spec_embed"))
    assert (fingerprint([3]), fingerprint([2])) == (before, cut)
    edit_weights(folder, lambda weights: weights["encoder.layer_norm.bias"].add_(1e-6))
    assert fingerprint([3]) != before
    assert fingerprint([2]) == cut
    edit_weights(folder, lambda weights: weights["encoder.layers.0.layer_norm.bias"].add_(1e-6))
    assert fingerprint([2]) != cut


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            lambda weights: weights.pop("encoder.layers.1.layer_norm.bias"),
            "encoder.layers.1.layer_norm.bias is missing",
        ),
        (
            lambda weights: weights.update({"encoder.layers.9.gate": torch.ones(1)}),
            "encoder.layers.9.gate is unknown",
        ),
        (lambda weights: weights.update({"extra.gate": torch.ones(1)}), "extra.gate is unknown"),
        (
            lambda weights: weights.update({"encoder.layer_norm.bias": torch.ones(5)}),
            r"layer_norm.bias is \(5,\), not \(32,\)",
        ),
        (lambda weights: weights.clear(), "is missing.* and [0-9]+ more"),
    ],
)
def test_weights_that_do_not_fit_are_an_error(edit, said, copy_of):
    folder = copy_of("hubert")
    edit_weights(folder, edit)
    with pytest.raises(ModelError, match=said):
        load_encoder(str(folder))


def test_damaged_weights_are_an_error(copy_of):
    folder = copy_of("hubert")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot be read"):
        load_encoder(str(folder))


def test_sharded_weights_are_read(tiny_checkpoint, copy_of):
    folder = copy_of("hubert")
    model = transformers.AutoModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1
    assert load_encoder(str(folder)).fingerprint == load_encoder(str(tiny_checkpoint("hubert"))).fingerprint


def test_pickled_weights_are_never_opened(copy_of, monkeypatch):
    folder = copy_of("hubert")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("unpickled"))
    with pytest.raises(ModelError, match=r"may run code when it is loaded.*refs/pr/N.*save_pretrained"):
        load_encoder(str(folder))


def test_preprocessor_must_be_there_and_fit(copy_of):
    folder = copy_of("hubert")
    preprocessor = folder / "preprocessor_config.json"
    edit_json(preprocessor, sampling_rate=8000)
    with pytest.raises(ModelError, match="8000 Hz"):
        load_encoder(str(folder))
    edit_json(preprocessor, sampling_rate=16_000, feature_extractor_type="WhisperFeatureExtractor")
    with pytest.raises(ModelError, match="needs a Wav2Vec2FeatureExtractor"):
        load_encoder(str(folder))
    preprocessor.unlink()
    with pytest.raises(ModelError, match=r"no preprocessor_config\.json"):
        load_encoder(str(folder))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("preprocessor_config.json", "[]"),
        ("preprocessor_config.json", '{"feature_extractor_type": 5}'),
        ("model.safetensors.index.json", "[]"),
        ("model.safetensors.index.json", '{"weight_map": {}}'),
        ("config.json", '"hidden_act": "nonsense"'),
    ],
)
def test_a_file_of_another_form_is_a_line_not_a_traceback(copy_of, name, content):
    folder = copy_of("hubert")
    if name == "config.json":
        edit_json(folder / name, **json.loads(f"{{{content}}}"))
    else:
        (folder / name).write_text(content)
    if "index" in name:
        (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=re.escape(str(folder))):
        load_encoder(str(folder))


def test_an_adapter_beside_the_weights_is_refused(copy_of):
    folder = copy_of("hubert")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(ModelError, match=r"has an adapter_config\.json: merge that adapter"):
        load_encoder(str(folder))


def test_preprocessor_may_be_part_of_a_processor(copy_of, tiny_checkpoint):
    folder = copy_of("hubert")
    preprocessor = folder / "preprocessor_config.json"
    content = json.loads(preprocessor.read_text()) | {"do_normalize": False}
    preprocessor.unlink()
    (folder / "processor_config.json").write_text(json.dumps({"feature_extractor": content}))
    assert load_encoder(str(folder)).settings["do_normalize"] is False


def test_configurations_that_cannot_be_used(copy_of, tmp_path):
    folder = copy_of("hubert")
    config = folder / "config.json"
    edit_json(config, model_type="bert")
    with pytest.raises(ModelError, match="bert model; serein reads hubert, wav2vec2, wavlm"):
        num_layers(str(folder))
    edit_json(config, model_type="hubert", hidden_size="wide")
    with pytest.raises(ModelError, match="not a configuration"):
        num_layers(str(folder))
    for text in ("{", "[]"):
        config.write_text(text)
        with pytest.raises(ModelError, match="not a configuration"):
            num_layers(str(folder))
    config.unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        num_layers(str(folder))


@pytest.mark.parametrize("layers", [[], [4], [-5], [1, 1], [-1, 3]])
def test_layers_that_do_not_exist_or_repeat(layers, tiny_checkpoint):
    with pytest.raises(UsageError, match="has 0 to 3"):
        load_encoder(str(tiny_checkpoint("hubert")), layers=layers)


def test_dtypes_and_devices_that_do_not_exist(tiny_checkpoint):
    name = str(tiny_checkpoint("hubert"))
    with pytest.raises(UsageError, match="float32, bfloat16"):
        load_encoder(name, dtype="int8")
    with pytest.raises(UsageError, match="toaster"):
        load_encoder(name, device="toaster")
    with pytest.raises(UsageError, match="device 'toaster': cannot be used here"):
        load_encoder("logmel", device="toaster")


def test_what_would_be_ignored_is_refused(tiny_checkpoint):
    folder = str(tiny_checkpoint("hubert"))
    for find in (load_encoder, num_layers):
        with pytest.raises(UsageError, match="is a folder, of which there is no revision v2"):
            find(folder, revision="v2")
    with pytest.raises(
        UsageError, match="logmel: is built in, and knows nothing of revision and dtype and cut Whisper"
    ):
        load_encoder("logmel", revision="v2", dtype="bfloat16", whisper_padding=False)
    assert load_encoder("logmel", revision="", dtype="float32", whisper_padding=True).revision == ""


def test_padding_is_left_out_by_whisper_alone(tiny_checkpoint):
    for kind in ("hubert", "whisper"):
        assert open_encoder(str(tiny_checkpoint(kind)), [-1], None, "cpu", "float32", False).width
    assert open_encoder(str(tiny_checkpoint("whisper")), [-1], None, "cpu", "float32", True).padded_to == 0
    with pytest.raises(UsageError, match="is no Whisper, and pads nothing; leave it out"):
        open_encoder(str(tiny_checkpoint("hubert")), [-1], None, "cpu", "float32", True)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def offline(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_cached_model_is_found_offline_with_its_commit(offline, tiny_checkpoint, waveforms):
    folder = tiny_checkpoint("hubert")
    repository = offline / "models--somebody--tiny"
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    encoder = load_encoder("somebody/tiny")
    assert (encoder.name, encoder.revision) == ("somebody/tiny", COMMIT)
    assert encoder.fingerprint == load_encoder(str(folder)).fingerprint
    assert load_encoder("somebody/tiny", revision=COMMIT).revision == COMMIT
    assert num_layers("somebody/tiny") == 3
    with pytest.raises(ModelError, match="revision"):
        load_encoder("somebody/tiny", revision="other")


@pytest.mark.parametrize("lost", ["model.safetensors", "preprocessor_config.json"])
def test_an_interrupted_download_says_that_it_may_go_on(lost, offline, tiny_checkpoint, copy_of):
    repository = offline / "models--somebody--tiny"
    shutil.copytree(tiny_checkpoint("hubert"), repository / "snapshots" / COMMIT, ignore=lambda *_: [lost])
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    with pytest.raises(ModelError, match=rf"{lost}.*interrupted, run again with the network, HF_HUB_OFFLINE unset"):
        load_encoder("somebody/tiny")
    folder = copy_of("hubert")
    (folder / lost).unlink()
    with pytest.raises(ModelError, match=lost) as caught:
        load_encoder(str(folder))
    assert "HF_HUB_OFFLINE" not in str(caught.value)


@pytest.mark.parametrize("name", ["nobody/nothing", "no/such/folder", "../nothing"])
def test_a_model_out_of_reach_says_what_to_do(name, offline):
    with pytest.raises(ModelError, match=r"HF_HUB_OFFLINE.*name a folder") as caught:
        load_encoder(name)
    assert caught.value.exit_code == 5
