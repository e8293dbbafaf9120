import numpy as np
import pytest
import torch

from serein.errors import ModelError
from serein.frames.encoder import load_encoder
from serein.frames.extract import as_stored
from serein.frames.waveform_graph import check_longest, waveform_graph

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
    "whisper",
]
SECOND = 16_000
LENGTHS = (400, 479, 480, 500, 9000, 25_600, 31_700, 31_999, 32_000)


def noise(samples):
    return (0.1 * np.random.default_rng(samples).standard_normal(samples)).astype(np.float32)


def assert_same_frames(encoder, lengths=LENGTHS, pool=3):
    """Before rounding to float16 to 1e-4, after it to one step."""
    graph = waveform_graph(encoder, pool)
    unrounded = waveform_graph(encoder, 1)[0]
    for samples in lengths:
        waveform = noise(samples)
        (frames,) = encoder.encode([waveform])
        with torch.inference_mode():
            exact, (rounded,) = unrounded(torch.tensor(waveform)[None])[0], graph(torch.tensor(waveform)[None])
        torch.testing.assert_close(exact, frames, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(rounded, as_stored(frames, pool).float(), atol=1e-4, rtol=2**-10)
        assert rounded.half().float().equal(rounded)
        assert frames.std() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_the_encoders(kind, tiny_checkpoint):
    assert_same_frames(load_encoder(str(tiny_checkpoint(kind)), layers=[0, 1, 3]))


@pytest.mark.parametrize("kind", ["hubert", "hubert-stable", "whisper"])
def test_frames_of_a_cut_encoder_are_the_encoders(kind, tiny_checkpoint):
    assert_same_frames(load_encoder(str(tiny_checkpoint(kind)), layers=[2]), pool=1)


def test_whispers_frames_without_padding_are_the_encoders(tiny_checkpoint):
    encoder = load_encoder(str(tiny_checkpoint("whisper")), layers=[1, 3], whisper_padding=False)
    assert_same_frames(encoder, (*LENGTHS, 32_159))


def test_log_mel_frames_are_the_encoders():
    assert_same_frames(load_encoder("logmel"))


def test_spectrograms_of_speech_are_the_extractors(shared):
    from transformers import WhisperFeatureExtractor

    from serein.frames.audio import load_audio

    encoder = load_encoder(str(shared / "models" / "whisper-base-encoder"), layers=[0])
    graph = waveform_graph(encoder, 1)[0]
    extractor = WhisperFeatureExtractor.from_pretrained(shared / "models" / "whisper-base-encoder")
    for path in sorted((shared / "data" / "ravdess" / "Actor_01").glob("*.flac"))[:3]:
        waveform = load_audio(path)
        expected = extractor(waveform, sampling_rate=SECOND, return_tensors="pt").input_features
        torch.testing.assert_close(graph._spectrogram(torch.tensor(waveform)[None]), expected, atol=1e-4, rtol=0)


def test_silence_gives_frames_too(tiny_checkpoint):
    silence = np.zeros(2000, dtype=np.float32)
    for kind in ("hubert", "whisper"):
        encoder = load_encoder(str(tiny_checkpoint(kind)))
        graph = waveform_graph(encoder, 1)
        with torch.inference_mode():
            (frames,) = graph(torch.tensor(silence)[None])
        torch.testing.assert_close(frames, as_stored(encoder.encode([silence])[0], 1).float(), atol=1e-3, rtol=2**-10)


def test_frames_of_another_precision_are_refused(tiny_checkpoint):
    encoder = load_encoder(str(tiny_checkpoint("hubert")), dtype="bfloat16")
    with pytest.raises(ModelError, match=r"trained on frames of bfloat16, a graph makes them in float32"):
        waveform_graph(encoder, 1)


def test_more_than_whisper_hears_at_once_is_refused(tiny_checkpoint):
    encoder = load_encoder(str(tiny_checkpoint("whisper")))
    most = 2 * SECOND + 159  # less than a hop beyond the piece has no frame
    check_longest(encoder, most)
    for longest, said in ((most + 1, "2.010"), (2 * SECOND + 799, "2.050"), (3 * SECOND, "3.000")):
        with pytest.raises(ModelError, match=rf"hears 2 seconds at once, .* windows of up to {said} seconds"):
            check_longest(encoder, longest)
    check_longest(load_encoder("logmel"), 90 * SECOND)
