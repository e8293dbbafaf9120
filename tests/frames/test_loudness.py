import numpy as np
import pytest

from serein.frames import loudness
from serein.frames.loudness import frame_energy_and_voicing

TIME = np.arange(16_000) / 16_000
INSIDE = slice(2, 48)  # frames whose 50 ms lie inside one second


@pytest.mark.parametrize("pitch", [62.0, 100.0, 217.3, 395.0])
@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_a_sine_of_any_pitch_of_a_voice_is_voiced_and_has_its_energy(pitch, offset):
    decibels, voiced = frame_energy_and_voicing(0.1 * np.sin(2 * np.pi * pitch * TIME) + 0.0, 50, 50.0)
    assert voiced[INSIDE].all()
    np.testing.assert_allclose(decibels[INSIDE], -23.01, atol=1.0)  # not a whole number of periods
    shifted = frame_energy_and_voicing(0.1 * np.sin(2 * np.pi * pitch * TIME) + offset, 50, 50.0)[1]
    assert shifted[INSIDE].all()


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_not_voiced(seed):
    noise = 0.1 * np.random.default_rng(seed).standard_normal(160_000)
    decibels, voiced = frame_energy_and_voicing(noise, 500, 50.0)
    assert voiced.mean() < 0.01
    assert decibels[INSIDE].mean() == pytest.approx(-20.0, abs=0.3)


def test_silence_is_not_voiced_and_has_the_lowest_energy():
    decibels, voiced = frame_energy_and_voicing(np.zeros(16_000, dtype=np.float32), 49, 50.0)
    assert not voiced.any()
    assert (decibels == -100.0).all()


def test_a_hum_below_every_voice_is_not_voiced():
    voiced = frame_energy_and_voicing(np.sin(2 * np.pi * 20 * TIME), 50, 50.0)[1]
    assert not voiced[INSIDE].any()


def test_a_pulse_is_seen_by_the_frames_that_are_near_it():
    samples = np.zeros(16_000)
    samples[8_000] = 1.0  # 0.5 s: the end of frame 24 and the start of frame 25
    loud = np.flatnonzero(frame_energy_and_voicing(samples, 50, 50.0)[0] > -100.0)
    assert loud.tolist() == [24, 25]  # their middles lie 10 ms from it, the next ones 30 ms
    assert np.flatnonzero(frame_energy_and_voicing(samples, 25, 25.0)[0] > -100.0).tolist() == [12]


def test_frames_may_reach_beyond_the_recording_and_there_may_be_none():
    decibels, voiced = frame_energy_and_voicing(np.ones(400, dtype=np.float32), 3, 50.0)
    assert decibels[0] > decibels[1] > decibels[2] == -100.0
    assert voiced.shape == (3,)
    assert frame_energy_and_voicing(np.ones(400), 0, 50.0)[0].shape == (0,)


def test_long_recordings_are_worked_on_in_blocks_without_a_seam(monkeypatch):
    noise = np.random.default_rng(0).standard_normal(16_000)
    whole = frame_energy_and_voicing(noise, 50, 50.0)
    monkeypatch.setattr(loudness, "_BLOCK", 7)
    blocks = frame_energy_and_voicing(noise, 50, 50.0)
    np.testing.assert_array_equal(whole[1], blocks[1])
    np.testing.assert_allclose(whole[0], blocks[0], rtol=1e-12)
