import json
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers
from typer.testing import CliRunner

import serein.export
from serein.baselines.linear_probe import fit_linear_probes
from serein.cli_export import exporting
from serein.errors import ModelError, UsageError
from serein.export import export_model
from serein.frames.encoder import load_encoder
from serein.model import EncoderDescription, ModelConfig, build_adapter, build_classifier, load_model, save_model
from serein.nn.committee import Committee
from serein.onnx_recognizer import GraphDescription, OnnxRecognizer
from serein.recipe import Model
from serein.recognizer import EmotionRecognizer

LABELS = ("angry", "happy", "sad")
WAV2VEC2 = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 8,
}
WHISPER = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "num_mel_bins": 80,
    "max_source_positions": 100,
    "vocab_size": 8,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0),
}


def save_checkpoint(family: str, folder: Path) -> Path:
    """A tiny random encoder."""
    settings = WHISPER if family == "Whisper" else WAV2VEC2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, f"{family}Model")(getattr(transformers, f"{family}Config")(**settings))
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter), alpha=0.15)
    model.save_pretrained(folder)
    if family == "Whisper":
        transformers.WhisperFeatureExtractor(chunk_length=2).save_pretrained(folder)
    else:
        transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def save_random_model(folder: Path, encoder, *, pool=2, seconds=2, **settings) -> Path:
    """A model folder whose random weights give answers far from even, and different for different sounds."""
    members = settings.pop("members", 1)
    config = ModelConfig(
        architecture="classifier",
        model=Model(**{"width": 16, "blocks": 2, "heads": 2, "members": members} | settings.pop("model", {})),
        encoder=EncoderDescription(
            name=encoder.name, revision=encoder.revision, fingerprint=encoder.fingerprint, layers=encoder.layers,
            width=encoder.width, settings=encoder.settings, pool=pool, frame_rate=encoder.frame_rate / pool,
        ),
        max_frames=math.ceil(seconds * encoder.frame_rate / pool),
        labels=LABELS,
        **settings,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        networks = [build_classifier(config, build_adapter(config)) for _ in range(members)]
        for network in networks:
            network.adapter.positions.data.normal_(std=0.5)
            network.output.weight.data.mul_(20)
            if encoder.name == "logmel":
                network.adapter.front_end.mean.fill_(-6)
                network.adapter.front_end.deviation.fill_(3)
    save_model(folder, networks[0] if members == 1 else Committee(networks), config)
    return folder


@pytest.fixture(scope="module")
def committee(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("committee")
    return save_random_model(folder, load_encoder("logmel"), members=2, model={"blocks": 1, "pooled_norm": "batch"})


@pytest.fixture(scope="module")
def head(committee, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("head") / "model.onnx"
    assert 0 < export_model(committee, path) < 1e-4
    return path


def run(path: Path, **inputs: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    return torch.from_numpy(answer)


@torch.inference_mode()
def expected(folder: Path, frames: torch.Tensor, padding_mask: torch.Tensor) -> torch.Tensor:
    module, _ = load_model(folder)
    return module(frames, padding_mask).log_softmax(1)


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 50), (2, 1), (4, 7), (9, 50), (33, 23)])
def test_answers_from_frames_are_torchs_at_any_batch_and_length(head, committee, batch, length):
    torch.manual_seed(batch)
    frames = torch.randn(batch, length, 1, 80) * 3 - 6
    padding_mask = torch.arange(length) >= torch.randint(1, length + 1, (batch, 1))
    answer = run(head, frames=frames, padding_mask=padding_mask)
    torch.testing.assert_close(answer, expected(committee, frames, padding_mask), atol=1e-4, rtol=0)
    torch.testing.assert_close(answer.exp().sum(1), torch.ones(batch))
    assert answer.exp().min() < 0.25 or batch < 4


def test_what_stands_at_padding_positions_changes_nothing(head):
    frames = torch.randn(3, 30, 1, 80) * 3 - 6
    padding_mask = torch.arange(30) >= torch.tensor([[30], [20], [5]])
    whole = run(head, frames=frames, padding_mask=padding_mask)
    frames[padding_mask] = 1000.0
    torch.testing.assert_close(run(head, frames=frames, padding_mask=padding_mask), whole, atol=1e-6, rtol=0)
    for row, length in enumerate((30, 20, 5)):
        alone = run(head, frames=frames[row : row + 1, :length], padding_mask=padding_mask[row : row + 1, :length])
        torch.testing.assert_close(alone[0], whole[row], atol=1e-5, rtol=0)


def test_the_file_says_what_goes_in_and_what_comes_out(head, committee):
    model = onnx.load(head)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version >= 18

    def shapes(values):
        return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}

    assert shapes(model.graph.input) == {"frames": ["batch", "frames", 1, 80], "padding_mask": ["batch", "frames"]}
    assert shapes(model.graph.output) == {"log_probabilities": ["batch", 3]}
    (metadata,) = model.metadata_props
    said = json.loads(metadata.value)
    assert metadata.key == "serein"
    assert (said["labels"], said["speeds"], said["temperature"], said["abstain_below"]) == (list(LABELS), [1.0], 1, 0)
    assert (said["longest_window"], said["max_frames"], said["sample_rate"]) == (None, 50, 16_000)
    assert (said["encoder"]["name"], said["encoder"]["pool"], said["encoder"]["layers"]) == ("logmel", 2, [0])
    assert b".py" not in head.read_bytes()  # nor where on this machine it was made
    assert [path.name for path in head.parent.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize(
    ("family", "layers", "settings"),
    [
        ("Whisper", (0, 1), {"whisper_padding": False}),
        ("Hubert", (1,), {}),
    ],
)
def test_answers_with_the_encoder_inside_are_torchs_at_any_length(family, layers, settings, tmp_path):
    checkpoint = save_checkpoint(family, tmp_path / "encoder")
    encoder = load_encoder(str(checkpoint), layers=layers, **settings)
    folder = save_random_model(tmp_path / "model", encoder, model={"layer_mix": "joined"})
    assert export_model(folder, tmp_path / "model.onnx", with_encoder=True) < 1e-3
    recognizer, graph = EmotionRecognizer.from_pretrained(folder), OnnxRecognizer(tmp_path / "model.onnx")
    assert graph.longest_window == recognizer.longest_window
    assert graph.description.encoder["name"] == "encoder"  # without the path
    random = np.random.default_rng(0)
    recordings = [
        (loudness * random.standard_normal(samples)).astype(np.float32)
        for loudness, samples in (
            *((0.1, 400), (0.5, 1000), (0.01, 9999), (0.2, 16_000), (0.1, 31_999), (0.1, 70_000)),
            *((0.1, recognizer.longest_window), (0.1, recognizer.longest_window + 1)),
        )
    ]
    answers = graph.probabilities_of(recordings)
    np.testing.assert_allclose(answers, recognizer.probabilities_of(recordings).numpy(), atol=1e-4)
    assert answers.std(0).max() > 0.01


def test_a_linear_probe_is_exported_from_frames_and_with_its_encoder(tmp_path):
    encoder = load_encoder("logmel")
    _, config = load_model(save_random_model(tmp_path / "model", encoder, members=3))
    config = config.model_copy(update={"architecture": "linear"})
    torch.manual_seed(0)
    frames = torch.randn(60, 5, 160) + torch.tensor([-6.0, 3.0]).repeat_interleave(80)
    (probe,) = fit_linear_probes(frames.flatten(0, 1), torch.arange(300) % 3, 3, 0.003)
    save_model(tmp_path / "model", probe, config)
    for with_encoder in (False, True):
        assert export_model(tmp_path / "model", tmp_path / "model.onnx", with_encoder=with_encoder) < 1e-3
    recognizer, graph = EmotionRecognizer.from_pretrained(tmp_path / "model"), OnnxRecognizer(tmp_path / "model.onnx")
    recordings = [np.random.default_rng(n).standard_normal(n).astype(np.float32) / 10 for n in (400, 16_000, 70_000)]
    answers = graph.probabilities_of(recordings)
    np.testing.assert_allclose(answers, recognizer.probabilities_of(recordings).numpy(), atol=1e-4)
    assert answers.std(0).max() > 0.01


def test_a_graph_that_would_cut_a_recording_elsewhere_than_torch_is_not_written(tmp_path):
    """34 pooled frames of 3 are 102 frames: two more than Whisper has of what it hears at once."""
    encoder = load_encoder(str(save_checkpoint("Whisper", tmp_path / "encoder")), layers=(0,))
    folder = save_random_model(tmp_path / "model", encoder, pool=3)
    assert EmotionRecognizer.from_pretrained(folder).longest_window == 32_799
    with pytest.raises(ModelError, match=r"hears 2 seconds at once, .* windows of up to 2\.050 seconds"):
        export_model(folder, tmp_path / "model.onnx", with_encoder=True)
    assert not (tmp_path / "model.onnx").exists()


def test_a_graph_with_other_answers_than_torch_is_not_written(tmp_path, monkeypatch):
    folder = save_random_model(tmp_path / "model", load_encoder("logmel"), model={"blocks": 1})
    blind = serein.export._AnyPadding.forward
    monkeypatch.setattr(
        serein.export._AnyPadding,
        "forward",
        lambda self, frames, padding_mask, frame_mask=None: blind(self, frames, padding_mask & False),
    )
    path = tmp_path / "graphs" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(b"an older one")
    with pytest.raises(ModelError, match=r"model\.onnx: not written: .* differ from torch's by (0\.\d+|[1-9])"):
        export_model(folder, path)
    assert path.read_bytes() == b"an older one"
    assert len(list(path.parent.iterdir())) == 1


def test_what_torch_cannot_export_is_said(committee, tmp_path, monkeypatch):
    def branching(self, frames, padding_mask, frame_mask=None):
        return self.adapter(frames, padding_mask)

    monkeypatch.setattr(serein.export._AnyPadding, "forward", branching)
    with pytest.raises(ModelError, match=r"model\.onnx: not written: torch cannot export this network"):
        export_model(committee, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_what_no_file_can_hold_is_refused(committee, tmp_path, monkeypatch):
    monkeypatch.setattr(serein.export, "LARGEST", 1000)
    with pytest.raises(ModelError, match="an ONNX file holds at most 2 GiB"):
        export_model(committee, tmp_path / "model.onnx")


def test_an_adapter_is_no_model(committee, tmp_path):
    _, config = load_model(committee)
    config = config.model_copy(update={"architecture": "adapter", "labels": ()})
    save_model(tmp_path / "adapter", build_adapter(config), config)
    for with_encoder in (True, False):
        with pytest.raises(ModelError, match="is an adapter without a classifier"):
            export_model(tmp_path / "adapter", tmp_path / "model.onnx", with_encoder=with_encoder)


def test_missing_packages_are_named(committee, tmp_path, monkeypatch):
    monkeypatch.setattr(serein.export, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(UsageError, match=r"needs onnxscript: pip install 'serein\[onnx\]'"):
        export_model(committee, tmp_path / "model.onnx")


def test_a_graph_is_named_so_that_it_is_known_as_one(committee, tmp_path):
    with pytest.raises(UsageError, match=r"model\.pt: give it a name that ends in \.onnx"):
        export_model(committee, tmp_path / "model.pt")


def test_a_place_of_the_encoder_is_for_a_graph_with_the_encoder(tmp_path):
    done = CliRunner().invoke(exporting, [str(tmp_path), "-o", str(tmp_path / "model.onnx"), "--encoder", "logmel"])
    assert isinstance(done.exception, UsageError)
    assert "give both" in str(done.exception)


def test_a_description_is_read_as_it_was_written():
    description = GraphDescription(("a", "b"), (1.0, 0.9), 1.5, 0.25, None, 20, {"name": "logmel", "layers": [0]})
    assert GraphDescription.from_json(description.to_json()) == description
