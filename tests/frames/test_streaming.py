import io
import tracemalloc

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from serein.errors import AudioError, CorruptAudio, NonFiniteAudio, TooShort, UnsupportedAudio
from serein.frames import audio, streaming
from serein.frames.audio import decode

NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, (150_000, 2)).astype(np.float32)


def encoded(samples, rate=16_000, **options):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **{"format": "WAV", "subtype": "FLOAT", **options})
    return file.getvalue()


def stream_audio(source, **how):
    with streaming.stream_audio(source, **how) as (blocks, _):
        yield from blocks


SOURCES = {
    "mono": encoded(NOISE[:, 0]),
    "stereo at 48 kHz": encoded(NOISE, 48_000),
    "8 kHz": encoded(NOISE[:, 0], 8_000),
    "flac": encoded(NOISE, 44_100, format="FLAC", subtype="PCM_16"),
    "mp3": encoded(NOISE, 44_100, format="MP3", subtype="MPEG_LAYER_III"),
    "opus": encoded(NOISE, 48_000, format="OGG", subtype="OPUS"),
    "channels that cancel": encoded(np.stack([NOISE[:, 0], -0.9 * NOISE[:, 0]], axis=1), 22_050),
    "a peak beyond eight": encoded(NOISE * np.float32(32_768), 44_100),
    "cancelling at the end only": encoded(
        np.concatenate([NOISE[:70_000] / 100, np.stack([NOISE[:, 0], -NOISE[:, 0]], axis=1)])
    ),
    "silence": encoded(np.zeros(1000)),
    "one frame": encoded(NOISE[:400, 0]),
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("block", [1_000, 33_333, 10**9])
def test_the_blocks_are_the_very_samples_that_decode_gives(name, block, tmp_path):
    whole = decode(SOURCES[name])
    expected = whole.samples
    with streaming.stream_audio(SOURCES[name], block=block) as (given, warned):
        blocks = list(given)
    assert warned == whole.warnings
    np.testing.assert_array_equal(np.concatenate(blocks), expected)
    assert all(len(samples) == block for samples in blocks[:-1])
    assert 0 < len(blocks[-1]) <= block
    (tmp_path / "recording").write_bytes(SOURCES[name])
    np.testing.assert_array_equal(np.concatenate([*stream_audio(tmp_path / "recording", block=block)]), expected)


DAMAGED = SOURCES["flac"][: len(SOURCES["flac"]) // 2]
BAD = {
    "no audio": (b"no audio at all", UnsupportedAudio),
    "cut": (SOURCES["mono"][:300_000], CorruptAudio),
    "damaged further on": (DAMAGED, CorruptAudio),
    "half an mp3": (SOURCES["mp3"][: len(SOURCES["mp3"]) // 2], CorruptAudio),
    "not finite at its end": (encoded(np.append(NOISE[:, 0], np.nan)), NonFiniteAudio),
    "too short": (encoded(NOISE[:399, 0]), TooShort),
    "too many channels": (encoded(np.zeros((800, 33))), CorruptAudio),
    "absent": ("absent.wav", AudioError),
}


@pytest.mark.parametrize("name", BAD)
def test_nothing_is_given_of_what_decode_refuses(name):
    source, error = BAD[name]
    blocks = stream_audio(source, block=1000)
    with pytest.raises(error) as streamed:
        next(blocks)
    with pytest.raises(error) as whole:
        decode(source)
    assert str(streamed.value) == str(whole.value)
    assert type(streamed.value) is type(whole.value)


@settings(deadline=None, max_examples=60)
@given(st.integers(4_000, 384_000), st.data())
def test_how_short_is_too_short_does_not_depend_on_who_asks(rate, data):
    frames = data.draw(st.integers(max(1, rate // 40 - 5), rate // 40 + 5))
    file = encoded(np.zeros(frames), rate)
    try:
        samples = decode(file).samples
    except TooShort:
        assert round(frames * 16_000 / rate) < 400
        with pytest.raises(TooShort):
            next(stream_audio(file))
    else:
        assert len(samples) >= audio.MINIMUM_SAMPLES
        assert sum(map(len, stream_audio(file))) == len(samples)


def peak_memory(path, block):
    tracemalloc.start()
    longest = max(len(samples) for samples in stream_audio(path, block=block))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert longest == block
    return peak


def test_memory_does_not_grow_with_the_recording(tmp_path):
    for minutes in (1, 10):
        with soundfile.SoundFile(tmp_path / f"{minutes}.flac", "w", 16_000, 2) as file:
            for _ in range(minutes):
                file.write(np.tile(NOISE[:96_000] / 100, (10, 1)))
    short, long = (peak_memory(tmp_path / f"{minutes}.flac", 160_000) for minutes in (1, 10))
    assert long < 1.05 * short
    assert long < 10e6  # a tenth of its samples
