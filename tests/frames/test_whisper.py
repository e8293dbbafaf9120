import shutil

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.nn.functional import gelu

from serein.errors import ModelError
from serein.frames.encoder import load_encoder, num_layers

PIECE = 2 * 16_000  # samples that the tiny checkpoint sees at once; 100 frames


def transformers_frames(folder, waveform):
    encoder = transformers.WhisperModel.from_pretrained(folder, dtype=torch.float32).encoder
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    features = extractor(waveform, sampling_rate=16_000, return_tensors="pt").input_features
    with torch.no_grad():
        output = encoder(features, output_hidden_states=True)
    return torch.cat(output.hidden_states).transpose(0, 1)


@pytest.mark.parametrize("head", ["Model", "ForConditionalGeneration", "ForAudioClassification"])
def test_layers_are_those_of_transformers(head, tiny_checkpoint, waveforms):
    folder = tiny_checkpoint("whisper", head)
    encoder = load_encoder(str(folder), layers=range(4))
    for waveform in waveforms:
        (frames,) = encoder.encode([waveform])
        expected = transformers_frames(folder, waveform)
        torch.testing.assert_close(frames, expected[: len(frames)], atol=1e-5, rtol=1e-5)
        assert (frames[:, 1:] - frames[:, :-1]).abs().amax(dim=(0, 2)).min() > 0.1


def test_layers_of_the_real_encoder_are_those_of_transformers(shared):
    folder = shared / "models" / "whisper-base-encoder"
    waveform = np.random.default_rng(0).standard_normal(24_000).astype(np.float32) / 10
    encoder = load_encoder(str(folder), layers=(2, 6))
    (frames,) = encoder.encode([waveform])
    assert frames.shape == (75, 2, 512)
    expected = transformers_frames(folder, waveform)[:75, [2, 6]]
    torch.testing.assert_close(frames, expected, atol=1e-3, rtol=1e-5)
    assert num_layers(str(folder)) == 6


def test_without_padding_spectrogram_and_positions_end_with_the_clip(tiny_checkpoint, waveforms):
    folder = tiny_checkpoint("whisper")
    encoder = load_encoder(str(folder), layers=[1, 3], whisper_padding=False)
    assert encoder.settings == {"dtype": "float32", "whisper_padding": False}
    model = transformers.WhisperModel.from_pretrained(folder).encoder
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    waveform = waveforms[0]
    mel = extractor(waveform, sampling_rate=16_000, return_tensors="pt").input_features[:, :, : 9000 // 160]
    with torch.no_grad():
        hidden = gelu(model.conv2(gelu(model.conv1(mel)))).transpose(1, 2)
        hidden = hidden + model.embed_positions.weight[:28]
        first = model.layers[0](hidden, None)
        last = model.layer_norm(model.layers[2](model.layers[1](first, None), None))
    (frames,) = encoder.encode([waveform])
    torch.testing.assert_close(frames, torch.stack([first[0], last[0]], dim=1), atol=1e-5, rtol=1e-5)
    (padded,) = load_encoder(str(folder), layers=[1, 3]).encode([waveform])
    assert padded.shape == frames.shape
    assert (padded - frames).abs().max() > 0.01


def test_an_encoder_says_what_it_computes_at_least(tiny_checkpoint):
    folder = str(tiny_checkpoint("whisper"))
    assert load_encoder(folder).padded_to == 2 * 16_000
    assert load_encoder(folder, whisper_padding=False).padded_to == 0
    assert load_encoder(str(tiny_checkpoint("hubert"))).padded_to == load_encoder("logmel").padded_to == 0


@pytest.mark.parametrize("whisper_padding", [True, False])
def test_a_long_clip_is_encoded_piece_by_piece(whisper_padding, tiny_checkpoint):
    encoder = load_encoder(str(tiny_checkpoint("whisper")), whisper_padding=whisper_padding)
    waveform = np.random.default_rng(0).standard_normal(2 * PIECE + 1000).astype(np.float32) / 10
    (whole,) = encoder.encode([waveform])
    pieces = encoder.encode([waveform[:PIECE], waveform[PIECE : 2 * PIECE], waveform[2 * PIECE :]])
    assert [len(piece) for piece in pieces] == [100, 100, 3]
    torch.testing.assert_close(whole, torch.cat(pieces), atol=1e-4, rtol=1e-4)


def test_frames_by_hand(tiny_checkpoint):
    encoder = load_encoder(str(tiny_checkpoint("whisper")))
    samples = [0, 159, 160, 320, 479, 480, 16_000, PIECE - 1, PIECE, PIECE + 159, PIECE + 160, 2 * PIECE]
    assert [encoder.num_frames(n) for n in samples] == [0, 0, 1, 1, 1, 2, 50, 100, 100, 100, 101, 200]
    assert encoder.frame_rate == 50
    (frames,) = encoder.encode([np.zeros(PIECE + 159, dtype=np.float32)])
    assert len(frames) == 100


def test_decoder_and_final_norm_count_only_where_they_are_used(tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint("whisper"), tmp_path / "copy")

    def fingerprints():
        return [load_encoder(str(folder), layers=[layer]).fingerprint for layer in (2, 3)]

    def change(prefix):
        weights = load_file(folder / "model.safetensors")
        for name in weights:
            if name.startswith(prefix):
                weights[name] += 1
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    cut, whole = fingerprints()
    assert cut != whole
    change("decoder.")
    assert fingerprints() == [cut, whole]
    change("encoder.layer_norm.")
    assert fingerprints()[0] == cut
    assert fingerprints()[1] != whole


def test_decoder_blocks_are_never_built(tiny_checkpoint, monkeypatch):
    folder = tiny_checkpoint("whisper", "ForConditionalGeneration")
    decoder_block = transformers.models.whisper.modeling_whisper.WhisperDecoderLayer
    monkeypatch.setattr(decoder_block, "__init__", lambda *a, **k: pytest.fail("a decoder block"))
    assert load_encoder(str(folder)).layers == (3,)


def test_preprocessor_of_another_length_is_an_error(tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint("whisper"), tmp_path / "copy")
    transformers.WhisperFeatureExtractor(chunk_length=30).save_pretrained(folder)
    with pytest.raises(ModelError, match=r"100 positions.*1500 frames"):
        load_encoder(str(folder))
