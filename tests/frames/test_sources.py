import io

import jaxtyping
import numpy as np
import pytest
import soundfile

from serein.errors import AudioError, NonFiniteAudio, UsageError
from serein.frames.audio import load_audio
from serein.frames.sources import Recording, as_channels, load_source

NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 150_000).astype(np.float32)
CHANNELS = {
    "mono": NOISE,
    "stereo": np.stack([NOISE, 0.5 * NOISE[::-1]], axis=1),
    "channels that cancel": np.stack([-0.9 * NOISE, NOISE], axis=1),
    "cancelling at the end only": np.concatenate([np.stack([NOISE, NOISE], 1) / 100, np.stack([NOISE, -NOISE], 1)]),
    "a peak beyond eight": NOISE * np.float32(32_768),
    "both": np.stack([-NOISE, NOISE], axis=1) * np.float32(1e30),
    "a peak of eight": np.full(8_000, 8.0, dtype=np.float32),
}


@pytest.mark.parametrize("name", CHANNELS)
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_samples_in_memory_are_mended_as_the_file_of_them_is(name, rate):
    file = io.BytesIO()
    soundfile.write(file, CHANNELS[name], rate, format="WAV", subtype="FLOAT")
    found = load_source(Recording(CHANNELS[name], rate))
    np.testing.assert_array_equal(found, load_audio(file.getvalue()))
    assert np.abs(found).max() > 0.004
    doubles = load_source(Recording(CHANNELS[name].astype(np.float64), rate))
    np.testing.assert_array_equal(doubles, found)


@pytest.mark.parametrize("rate", [0, -1, 1, 3_999, 384_001, 2**40, float("nan"), float("inf"), -float("inf")])
def test_a_rate_that_nobody_records_at_is_refused(rate):
    with pytest.raises(AudioError, match=f"^a rate of {rate} Hz; credible are 4000 to 384000 Hz: give"):
        load_source(Recording(NOISE, rate))


def test_channels_before_samples_are_refused_with_the_way_out():
    with pytest.raises(AudioError, match=r"\(2, 16000\), which is 16000 channels; transpose \(channels, samples\)"):
        load_source(Recording(np.zeros((2, 16_000)), 16_000))
    assert load_source(Recording(np.zeros((400, 32)), 16_000)).shape == (400,)


def test_a_recording_played_backwards_is_one_too():
    found = load_source(Recording(NOISE[::-1], 16_000))
    np.testing.assert_array_equal(found, NOISE[::-1])
    assert found.flags.c_contiguous


@pytest.mark.parametrize("source", [NOISE, ("a.wav", "b.wav"), (NOISE, 16_000), None])
def test_what_is_no_source_is_refused_with_the_way_out(source, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # types are not checked where people use it
    with pytest.raises(UsageError, match=rf"{type(source).__name__}: is no recording; .*Recording\(samples, rate\)"):
        load_source(source)


@pytest.mark.parametrize("samples", [[np.nan], [1e300], [[np.inf, -np.inf]]])
def test_what_is_no_number_in_float32_is_refused(samples):
    with pytest.raises(NonFiniteAudio):
        as_channels(np.array(samples))
