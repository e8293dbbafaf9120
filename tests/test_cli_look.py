import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
import typer
from typer.testing import CliRunner, Result

from serein.cli_look import look
from serein.corpus.corpus import Corpus
from serein.frames.store import FrameStore


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A HuBERT of two blocks with random weights, 50 frames a second."""
    folder = tmp_path_factory.mktemp("encoder")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    convolutions = {
        "conv_dim": (8, 8, 8), "conv_kernel": (10, 8, 8), "conv_stride": (5, 8, 8),
        "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.HubertModel(transformers.HubertConfig(**sizes, **convolutions)).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def serein(*arguments: object) -> Result:
    """The commands as `serein` joins them to its own: without a name."""
    app = typer.Typer()
    app.callback()(lambda: None)
    app.add_typer(look)
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_all_layers_of_an_encoder_are_probed_and_their_frames_are_kept(tones, encoder, tmp_path):
    tones.to_csv(tmp_path / "tones.csv")
    command = ["layers", tmp_path / "tones.csv", "--encoder", encoder, "--protocol", "sessions", "-o", tmp_path / "out"]
    shown = serein(*command)
    assert shown.exit_code == 0, shown.output
    store = FrameStore(tmp_path / "out" / "frames")
    assert store.settings["encoder"]["layers"] == [0, 1, 2]
    assert store.settings["pool"] == 8
    numbers = json.loads((tmp_path / "out" / "layers.json").read_text(encoding="utf-8"))
    assert [layer["layer"] for layer in numbers["layers"]] == [0, 1, 2]
    best = max(numbers["layers"], key=lambda layer: layer["scores"]["ua"])
    assert f"Layer {best['layer']} is read best" in shown.stderr
    assert numbers["protocol"].startswith("sessions (")
    assert (numbers["utterances"], numbers["talkers"], numbers["pool"]) == (96, 6, 8)
    assert (numbers["frames"], numbers["encoder"]) == (store.digest, store.settings["encoder"])
    assert f"{100 * best['scores']['ua']:.1f} [" in shown.stdout
    assert (tmp_path / "out" / "layers.html").exists()
    before = (tmp_path / "out" / "layers.json").read_bytes()
    assert serein(*command).exit_code == 0
    assert (tmp_path / "out" / "layers.json").read_bytes() == before


def test_a_broken_file_is_named_and_the_others_are_probed(tones, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    first, *others = tones.utterances
    Corpus("tones", (replace(first, path=tmp_path / "broken.wav"), *others)).to_csv(tmp_path / "tones.csv")
    shown = serein(
        "layers", tmp_path / "tones.csv", "--encoder", "logmel", "--map", "angry=angry,sad=sad",
        "--protocol", "sessions", "-o", tmp_path / "out",
    )  # fmt: skip
    assert shown.exit_code == 3, shown.output
    assert f"without frames: {first.id}: " in shown.stderr
    assert "Layer 0 is read best, being the only one." in shown.stderr
    numbers = json.loads((tmp_path / "out" / "layers.json").read_text(encoding="utf-8"))
    assert (numbers["labels"], numbers["utterances"], [*numbers["without frames"]]) == (
        ["angry", "sad"],
        47,
        [first.id],
    )
