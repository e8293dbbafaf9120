import numpy as np
import pytest
import torch
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from serein.errors import TooShort, UsageError
from serein.frames.encoder import SpeechEncoder, load_encoder


def test_energies_are_those_of_transformers_spectrogram(waveforms):
    filters = mel_filter_bank(201, 80, 0.0, 8000.0, 16_000, norm="slaney", mel_scale="slaney")
    for waveform, frames in zip(waveforms, load_encoder("logmel").encode(waveforms), strict=True):
        expected = spectrogram(
            waveform.astype(np.float64),
            window_function(400, "hann"),
            frame_length=400,
            hop_length=320,
            power=2.0,
            center=False,
            mel_filters=filters,
            mel_floor=1e-10,
            log_mel="log",
        )
        np.testing.assert_allclose(frames[:, 0].numpy(), expected.T, atol=2e-3)


def test_ten_times_the_amplitude_is_log_100_more():
    waveform = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    quiet, loud = load_encoder("logmel").encode([waveform, 10 * waveform])
    torch.testing.assert_close(loud - quiet, torch.full_like(quiet, np.log(100)), atol=1e-3, rtol=0)


def test_silence_lies_on_the_floor():
    (frames,) = load_encoder("logmel").encode([np.zeros(800, dtype=np.float32)])
    torch.testing.assert_close(frames, torch.full((2, 1, 80), np.log(1e-10), dtype=torch.float32))


def test_a_higher_tone_lies_in_a_higher_band():
    time = np.arange(8000) / 16_000
    tones = [np.sin(2 * np.pi * hertz * time).astype(np.float32) for hertz in (200, 500, 1500, 4000, 7000)]
    loudest = [int(frames.mean(dim=(0, 1)).argmax()) for frames in load_encoder("logmel").encode(tones)]
    assert loudest == sorted(set(loudest))


def test_frame_count_is_that_of_hubert(tiny_checkpoint):
    logmel, hubert = load_encoder("logmel"), load_encoder(str(tiny_checkpoint("hubert")))
    for samples in range(0, 5000, 7):
        assert logmel.num_frames(samples) == hubert.num_frames(samples)
    for samples in (400, 719, 720, 4999):
        (frames,) = logmel.encode([np.zeros(samples, dtype=np.float32)])
        assert frames.shape == (logmel.num_frames(samples), 1, 80)


def test_what_it_says_of_itself():
    encoder = load_encoder("logmel")
    assert isinstance(encoder, SpeechEncoder)
    assert (encoder.name, encoder.revision, encoder.layers) == ("logmel", "", (0,))
    assert (encoder.width, encoder.frame_rate) == (80, 50.0)
    assert len(encoder.fingerprint) == 64
    assert encoder.fingerprint == load_encoder("logmel", layers=[0]).fingerprint


def test_only_layer_0_and_no_empty_waveform():
    for layers in ([1], [], [0, -1]):
        with pytest.raises(UsageError, match="logmel has 0"):
            load_encoder("logmel", layers=layers)
    with pytest.raises(TooShort, match="399 samples"):
        load_encoder("logmel").encode([np.zeros(399, dtype=np.float32)])
