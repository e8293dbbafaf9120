import io
import os
import re
import struct

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serein.errors import AudioError, CorruptAudio, NonFiniteAudio, TooShort, UnsupportedAudio
from serein.frames import audio, containers
from serein.frames.audio import SAMPLE_RATE, audio_hash, change_speed, decode, load_audio

WAV_HEADER = 44  # bytes of the header that libsndfile writes for 16-bit mono


def encode(samples, rate=SAMPLE_RATE, **options):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **{"format": "WAV", **options})
    return file.getvalue()


def tone(hertz, rate, seconds=1.0, peak=0.5):
    return (peak * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def decibels(samples):
    return 10 * np.log10(np.mean(np.square(samples, dtype=np.float64)))


def voice(seconds=3.0):
    noise = 0.02 * np.random.default_rng(0).standard_normal(round(seconds * SAMPLE_RATE))
    return (tone(220, SAMPLE_RATE, seconds, 0.3) + noise).astype(np.float32)


VOICE = voice()
FORMATS = {
    "wav": {"format": "WAV", "subtype": "PCM_16"},
    "float": {"format": "WAV", "subtype": "FLOAT"},
    "alaw": {"format": "WAV", "subtype": "ALAW"},
    "rifx": {"format": "WAV", "subtype": "PCM_16", "endian": "BIG"},
    "rf64": {"format": "RF64", "subtype": "PCM_16"},
    "aiff": {"format": "AIFF", "subtype": "PCM_16"},
    "caf": {"format": "CAF", "subtype": "PCM_16"},
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
    "vorbis": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3", "subtype": "MPEG_LAYER_III"},
}
PCM = (VOICE * 2**15).astype(np.int16)
FILES = {name: encode(VOICE if name == "float" else PCM, **options) for name, options in FORMATS.items()}
CONSTANT_RATE = {**FORMATS["mp3"], "bitrate_mode": "CONSTANT", "compression_level": 0.5}
WAV, FLAC, OGG, MP3 = FILES["wav"], FILES["flac"], FILES["vorbis"], FILES["mp3"]


def patched(data, *changes):
    data = bytearray(data)
    for position, packing, value in changes:
        struct.pack_into(packing, data, position, *np.atleast_1d(value).tolist())
    return bytes(data)


def without_xing(mp3):
    length, _ = containers._mp3_frame(mp3[:4])
    assert re.search(b"Xing|Info", mp3[:length])
    return mp3[length:]


def bitwise_ogg_checksum(page):
    register = 0
    for byte in page:
        register ^= byte << 24
        for _ in range(8):
            register = (register << 1 ^ (0x04C11DB7 if register >> 31 else 0)) & 0xFFFFFFFF
    return register


def test_audio_at_16_khz_comes_out_as_it_went_in():
    np.testing.assert_array_equal(load_audio(FILES["float"]), VOICE)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_decodes_without_a_warning_to_the_same_sound(name):
    decoded = decode(FILES[name])
    assert decoded.warnings == ()
    assert (decoded.original_rate, decoded.channels, decoded.seconds) == (SAMPLE_RATE, 1, 3.0)
    assert decoded.samples.dtype == np.float32
    if name != "opus":  # which keeps the sound, not the waveform
        assert np.corrcoef(decoded.samples, VOICE)[0, 1] > 0.99


@pytest.mark.parametrize("name", FORMATS)
def test_a_path_and_its_bytes_give_the_same_samples(name, tmp_path):
    path = tmp_path / "recording.raw"  # the name must not matter
    path.write_bytes(FILES[name])
    expected = load_audio(FILES[name])
    np.testing.assert_array_equal(load_audio(path), expected)
    np.testing.assert_array_equal(load_audio(str(path)), expected)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_block_by_block_equals_soxr_on_the_whole(rate):
    stereo = np.random.default_rng(1).uniform(-0.5, 0.5, (3 * audio.BLOCK // 2, 2)).astype(np.float32)
    expected = soxr.resample(stereo.mean(axis=1), rate, SAMPLE_RATE, quality="HQ")
    np.testing.assert_array_equal(load_audio(encode(stereo, rate, subtype="FLOAT")), expected)


@pytest.mark.parametrize("name", ["flac", "vorbis", "opus", "mp3"])
def test_the_block_size_changes_no_bit(name, monkeypatch):
    expected = load_audio(FILES[name])
    monkeypatch.setattr(audio, "BLOCK", 1_000)
    np.testing.assert_array_equal(load_audio(FILES[name]), expected)


def test_a_tone_keeps_its_pitch_and_its_level():
    samples = load_audio(encode(tone(440, 44_100), 44_100, subtype="FLOAT"))
    assert len(samples) == SAMPLE_RATE
    assert np.abs(np.fft.rfft(samples)).argmax() == 440
    assert decibels(samples[800:-800]) == pytest.approx(decibels(tone(440, 44_100)), abs=0.1)


def test_a_tone_above_8_khz_vanishes():
    samples = load_audio(encode(tone(10_000, 44_100), 44_100, subtype="FLOAT"))
    assert decibels(samples[800:-800]) < decibels(tone(10_000, 44_100)) - 80


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 44_100, 47_999, 96_000, 384_000])
def test_resampling_keeps_the_duration(rate):
    decoded = decode(encode(tone(100, rate, seconds=1.37), rate))
    assert decoded.original_rate == rate
    assert decoded.seconds == pytest.approx(1.37, abs=1 / SAMPLE_RATE + 1 / rate)


def test_channels_are_averaged():
    left, right = tone(300, SAMPLE_RATE), tone(700, SAMPLE_RATE, peak=0.25)
    decoded = decode(encode(np.stack([left, right], axis=1), subtype="FLOAT"))
    assert (decoded.channels, decoded.warnings) == (2, ())
    np.testing.assert_allclose(decoded.samples, (left + right) / 2, atol=1e-7)


def test_eight_channels_at_192_khz():
    channels = np.stack([tone(440, 192_000, peak=0.1 * number) for number in range(1, 9)], axis=1)
    decoded = decode(encode(channels, 192_000, format="FLAC", subtype="PCM_24"))
    assert (decoded.channels, decoded.original_rate, decoded.warnings) == (8, 192_000, ())
    assert decibels(decoded.samples[800:-800]) == pytest.approx(decibels(tone(440, 16_000, peak=0.45)), abs=0.01)


def test_channels_that_cancel_leave_the_loudest_with_a_warning():
    loud = tone(300, SAMPLE_RATE)
    decoded = decode(encode(np.stack([-0.98 * loud, loud], axis=1), subtype="FLOAT"))
    assert decoded.warnings == ("the channels cancel each other; only channel 2 was taken",)
    np.testing.assert_array_equal(decoded.samples, loud)


def test_one_live_channel_among_thirty_two_is_no_cancellation():
    channels = np.zeros((8_000, 32), np.float32)
    channels[:, 5] = tone(300, SAMPLE_RATE, 0.5)
    decoded = decode(encode(channels, subtype="FLOAT"))
    assert decoded.warnings == ()
    np.testing.assert_array_equal(decoded.samples, channels[:, 5] / 32)


@pytest.mark.parametrize("scale", [32_767.0, 1e30, 3e38])
def test_a_peak_beyond_eight_is_scaled_to_one_with_a_warning(scale):
    sound = tone(300, 48_000, peak=1.0)
    decoded = decode(encode(sound * np.float32(scale), 48_000, subtype="FLOAT"))
    assert len(decoded.warnings) == 1
    assert "scaled to 1" in decoded.warnings[0]
    np.testing.assert_allclose(decoded.samples, soxr.resample(sound, 48_000, SAMPLE_RATE), atol=1e-5)


def test_a_peak_of_eight_is_left_alone():
    assert np.abs(load_audio(encode(np.full(800, 8.0), subtype="FLOAT"))).max() == 8


def test_silence_is_accepted_with_a_warning():
    decoded = decode(encode(np.zeros(800)))
    assert decoded.warnings == ("silence: no sample reaches one step of 16-bit audio",)
    assert not decoded.samples.any()
    assert decode(encode(np.full(800, 2.0**-15))).warnings == ()


def test_equal_samples_have_equal_hashes_whatever_the_container():
    hashes = {audio_hash(load_audio(FILES[name])) for name in ("wav", "flac", "aiff", "caf", "rf64", "rifx")}
    assert len(hashes) == 1
    assert audio_hash(load_audio(FILES["float"])) not in hashes  # not rounded to 16 bits
    assert audio_hash(VOICE[::2]) == audio_hash(VOICE[::2].copy())


def test_max_seconds_refuses_what_is_longer_and_nothing_else():
    assert len(load_audio(WAV, max_seconds=3.0)) == 48_000
    with pytest.raises(AudioError, match=r"these bytes: lasts more than 2\.99 s"):
        load_audio(WAV, max_seconds=2.99)


def test_a_long_recording_is_refused_before_it_is_decoded(monkeypatch):
    blocks = []
    monkeypatch.setattr(audio, "BLOCK", 1_000)
    read = soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *a, **k: blocks.append(1) or read(*a, **k))
    with pytest.raises(AudioError, match="lasts more"):
        load_audio(WAV, max_seconds=0.1)
    assert len(blocks) == 2


def test_what_is_not_a_readable_file_says_so(tmp_path):
    with pytest.raises(AudioError, match=r"missing\.wav: does not exist; give the path"):
        load_audio(tmp_path / "missing.wav")
    with pytest.raises(AudioError, match="does not exist"):
        load_audio("null\0byte")
    with pytest.raises(AudioError, match="is not a file"):
        load_audio(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AudioError, match="is not a file"):
        load_audio(tmp_path / "pipe")


def test_a_refusal_of_the_system_is_an_audio_error(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "locked.wav").write_bytes(WAV)
    monkeypatch.setattr(audio.io, "FileIO", refuse)
    with pytest.raises(AudioError, match=r"locked\.wav: cannot be read \(Permission denied\)"):
        load_audio(tmp_path / "locked.wav")


TAG = b"ID3\3\0\0\0\0\1\2" + bytes(130)
MP4 = b"\0\0\0\x20ftypM4A \0\0\0\0" + bytes(1_000)
UNSUPPORTED = {
    "empty": (b"", "is empty"),
    "random": (b"\x12" + np.random.default_rng(2).bytes(10_000), "does not start like an audio file"),
    "mp4": (MP4, "is MP4 or M4A.*ffmpeg"),
    "aac": (b"\xff\xf1\x50\x80" + bytes(1_000), "ffmpeg"),
    "junk before WAV": (b"junk" * 10 + WAV, "ffmpeg"),
    "junk before MP3": (b"junk" * 10 + MP3, "ffmpeg"),
    "a tag before junk": (b"ID3\3\0\0\0\0\0\0" + bytes(1_000), "libsndfile cannot decode"),
    "an ID3 tag before WAV": (TAG + WAV, "tags for MP3 stand in front.*first 140 bytes"),
    "two before half an AIFF": (2 * TAG + FILES["aiff"][:50_000], "first 280 bytes"),
    "a codec that libsndfile lacks": (patched(WAV, (34, "<H", 64)), "libsndfile cannot decode.*ffmpeg"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported(name, tmp_path):
    data, message = UNSUPPORTED[name]
    with pytest.raises(UnsupportedAudio, match=f"^these bytes: .*{message}"):
        load_audio(data)
    path = tmp_path / "named.wav"
    path.write_bytes(data)
    with pytest.raises(UnsupportedAudio, match=f"{re.escape(str(path))}: .*{message}"):
        load_audio(path)


AIFF_HEADER = FILES["aiff"][: FILES["aiff"].index(b"SSND") + 16]
CORRUPT = {
    "WAV cut in its header": (WAV[:40], "is damaged"),
    "WAV without a format": (WAV[:12], "is damaged"),
    "no channels": (patched(WAV, (22, "<H", 0)), "is damaged"),
    "rate 0": (patched(WAV, (24, "<I", 0)), "is damaged"),
    "1000 channels": (patched(WAV, (22, "<H", 1_000)), "1000 channels at 16000 Hz"),
    "33 channels": (encode(np.zeros((800, 33))), "33 channels"),
    "rate 2^31 - 1": (patched(WAV, (24, "<I", 2**31 - 1)), "at 2147483647 Hz"),
    "rate 3999": (patched(WAV, (24, "<I", 3_999)), "at 3999 Hz"),
    "rate 384001": (patched(WAV, (24, "<I", 384_001)), "at 384001 Hz"),
    "WAV half": (WAV[: len(WAV) // 2], "is cut: 47978 of the 96000 bytes"),
    "WAV without its last 100 bytes": (WAV[:-100], "is cut"),
    "a size that lies": (patched(WAV, (40, "<I", 1_000_000)), "is cut"),
    "big-endian WAV half": (FILES["rifx"][:50_000], "is cut"),
    "float WAV half": (FILES["float"][:50_000], "is cut"),
    "A-law WAV half": (FILES["alaw"][:20_000], "is cut"),
    "RF64 half": (FILES["rf64"][:50_000], "is cut"),
    "RF64 that promises 2 GiB": (
        patched(FILES["rf64"], (FILES["rf64"].index(b"ds64") + 16, "<Q", 2**31)),
        "96000 of the 2147483648 bytes",
    ),
    "AIFF half": (FILES["aiff"][:50_000], "is cut"),
    "CAF half": (FILES["caf"][:50_000], "is damaged"),
    "FLAC half": (FLAC[: len(FLAC) // 2], "is damaged"),
    "FLAC with a wrong byte": (
        patched(FLAC, (len(FLAC) // 2, "B", FLAC[len(FLAC) // 2] ^ 255)),
        "is damaged",
    ),
    "FLAC with a hole": (FLAC[:20_000] + FLAC[30_000:], "is damaged"),
    "Vorbis half": (OGG[: len(OGG) // 2], "is cut within an Ogg page"),
    "Vorbis cut in a page's head": (OGG[:20], "is cut within an Ogg page"),
    "Vorbis with a wrong byte": (patched(OGG, (9_000, "B", OGG[9_000] ^ 1)), "Ogg page at byte .* damaged"),
    "Vorbis with a hole": (OGG[:6_000] + OGG[7_000:], "Ogg page at byte .* damaged|no Ogg page"),
    "Vorbis without its second last page": (
        OGG[: OGG.rfind(b"OggS", 0, OGG.rfind(b"OggS"))] + OGG[OGG.rfind(b"OggS") :],
        "misplaced",
    ),
    "Vorbis that goes on as junk": (OGG[: OGG.rfind(b"OggS")] + bytes(1_000), "no Ogg page at byte"),
    "Opus half": (FILES["opus"][:5_000], "is cut within an Ogg page"),
    "Opus with a wrong byte": (patched(FILES["opus"], (9_000, "B", 0)), "damaged"),
    "MP3 half": (MP3[: len(MP3) // 2], "only .* of 48000 samples could be decoded"),
    "MP3 with a hole": (MP3[:4_000] + MP3[8_000:], "only .* of 48000 samples"),
    "MP3 with a third of zeros": (MP3[:4_000] + bytes(4_000) + MP3[8_000:], "is damaged|only"),
    "WAV header on MP3": (
        WAV[:WAV_HEADER] + MP3 + bytes(96_000 - len(MP3)),
        "in front of MP3.*first 44 bytes",
    ),
    "WAV header on tagged MP3": (WAV[:WAV_HEADER] + b"ID3\3" + bytes(95_996), "in front of MP3"),
    "WAV header on bare MP3": (WAV[:WAV_HEADER] + without_xing(MP3) + bytes(90_000), "in front of MP3"),
    "WAV header on FLAC": (WAV[:WAV_HEADER] + FLAC, "in front of FLAC"),
    "WAV header on Ogg": (WAV[:WAV_HEADER] + OGG, "in front of Ogg"),
    "AIFF header on MP3": (AIFF_HEADER + MP3 + bytes(96_000 - len(MP3)), f"in front of MP3.*first {len(AIFF_HEADER)} "),
    "AIFF header on FLAC": (AIFF_HEADER + FLAC, "in front of FLAC"),
}


@pytest.mark.parametrize("name", CORRUPT)
def test_corrupt(name):
    data, message = CORRUPT[name]
    with pytest.raises(CorruptAudio, match=f"^these bytes: .*({message})"):
        load_audio(data)


def test_too_short_means_less_than_25_ms():
    assert len(load_audio(encode(VOICE[:400]))) == audio.MINIMUM_SAMPLES
    with pytest.raises(TooShort, match=r"lasts 24\.9 ms; .* 25 ms"):
        load_audio(encode(VOICE[:399]))
    with pytest.raises(TooShort, match="lasts 0 ms"):
        load_audio(encode(VOICE[:0]))
    with pytest.raises(TooShort):
        load_audio(encode(VOICE[:1_000], 48_000))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers(value):
    samples = VOICE.copy()
    samples[30_000] = value
    with pytest.raises(NonFiniteAudio, match="NaN or infinite"):
        load_audio(encode(samples, subtype="FLOAT"))


OPEN_SIZES = [0xFFFFFFFF, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF - 36]


@pytest.mark.parametrize("outer", [0, 36, 0xFFFFFFFF])
@pytest.mark.parametrize("size", [0, *OPEN_SIZES])
def test_a_wav_of_open_length_is_taken_whole_with_a_warning(outer, size):
    decoded = decode(patched(WAV, (4, "<I", outer), (40, "<I", size)))
    assert decoded.warnings == (containers.OPEN_LENGTH,)
    np.testing.assert_array_equal(decoded.samples, load_audio(WAV))


def test_a_wav_of_open_length_is_not_copied():
    class Counted(io.BytesIO):
        taken = 0

        def read(self, size=-1):
            data = super().read(size)
            self.taken += len(data)
            return data

    file = Counted(patched(WAV, (4, "<I", 0), (40, "<I", 0)))
    container = containers.check_container(file, "")
    assert file.taken < 10_000
    container.stream.seek(0)
    np.testing.assert_array_equal(soundfile.read(container.stream, dtype="float32")[0], load_audio(WAV))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64])
def test_bytes_are_overlaid_wherever_a_read_begins_and_ends(size):
    stream = containers._Overlaid(io.BytesIO(bytes(20)), 9, b"\1\2\3\4")
    for start in range(20):
        assert stream.seek(start) == start
        found = b""
        buffer = bytearray(size)
        while count := stream.readinto(buffer):
            found += buffer[:count]
            assert stream.tell() == start + len(found)
        assert found == (bytes(9) + b"\1\2\3\4" + bytes(7))[start:]


def test_a_wrong_outer_size_alone_does_not_matter():
    assert decode(patched(WAV, (4, "<I", 0xFFFFFFF0))).warnings == ()


def test_a_wav_without_sound_but_with_other_chunks_is_too_short():
    notes = b"LIST" + struct.pack("<I", 2_000) + bytes(2_000)
    empty = patched(WAV[:WAV_HEADER] + notes, (4, "<I", WAV_HEADER + len(notes) - 8), (40, "<I", 0))
    with pytest.raises(TooShort):
        load_audio(empty)


def test_chunks_before_the_sound_are_stepped_over():
    notes = b"LIST" + struct.pack("<I", 5) + b"notes\0"
    longer = WAV[:12] + notes + WAV[12:]
    np.testing.assert_array_equal(load_audio(longer), load_audio(WAV))
    with pytest.raises(CorruptAudio, match="is cut"):
        load_audio(longer[:50_000])


def test_a_header_that_promises_a_few_bytes_too_many_is_a_warning():
    decoded = decode(patched(WAV, (40, "<I", len(WAV))))  # the writer counted its header
    assert decoded.warnings == ("the header promises 44 bytes more than there are",)
    np.testing.assert_array_equal(decoded.samples, load_audio(WAV))


def test_plain_samples_are_not_taken_for_mp3():
    looks_like_a_frame = patched(WAV, (WAV_HEADER, ">I", struct.unpack(">I", MP3[:4])[0]))
    assert decode(looks_like_a_frame).warnings == ()
    minus_one = encode(np.full(8_000, -(2.0**-15)))  # all bits set
    assert decode(minus_one).warnings == ()


def test_ogg_checksum_equals_the_definition_bit_by_bit():
    page = np.random.default_rng(3).bytes(300)
    assert containers._ogg_checksum(page) == bitwise_ogg_checksum(page)
    assert containers._ogg_checksum(b"\1") == 0x04C11DB7


def test_ogg_without_an_end_mark_is_a_warning():
    last = OGG.rfind(b"OggS")
    page = patched(OGG[last:], (5, "B", OGG[last + 5] & ~4), (22, "<I", 0))
    unmarked = OGG[:last] + patched(page, (22, "<I", bitwise_ogg_checksum(page)))
    decoded = decode(unmarked)
    assert decoded.warnings == ("the Ogg stream has no end mark; it may be cut",)
    np.testing.assert_array_equal(decoded.samples, load_audio(OGG))


def test_bytes_after_the_end_mark_do_not_matter():
    assert decode(OGG + b"TAG" + bytes(125)).warnings == ()


def test_two_ogg_streams_in_one_file_are_refused_rather_than_half_decoded():
    with pytest.raises(UnsupportedAudio, match="2 Ogg streams"):
        load_audio(OGG + FILES["opus"])


def test_flac_of_unknown_length_is_taken_whole():
    unknown = patched(FLAC, (21, "B", FLAC[21] & 0xF0), (22, ">I", 0))  # what an encoder into a pipe leaves
    np.testing.assert_array_equal(load_audio(unknown), load_audio(FLAC))


@pytest.mark.parametrize("rate", [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000])
def test_counted_mp3_frames_hold_as_many_samples_as_libmpg123_decodes(rate):
    bare = without_xing(encode(tone(300, rate), rate, **CONSTANT_RATE))
    assert containers._count_mp3(io.BytesIO(bare), 0)[1] == len(soundfile.read(io.BytesIO(bare))[0])


@pytest.mark.parametrize("header", ["fffb90", "ffeb9000", "fffbf000", "fffb0000", "fffb9c00", "fff99000", "fefb9000"])
def test_what_is_no_layer_3_header_opens_no_frame(header):
    assert containers._mp3_frame(bytes.fromhex("fffb9000")) == (417, 1152)
    assert containers._mp3_frame(bytes.fromhex(header)) is None


def test_mp3_without_a_length_is_accepted_as_long_as_it_is():
    whole = encode(PCM, **CONSTANT_RATE)
    bare = without_xing(whole)
    assert decode(bare).seconds == pytest.approx(3.0, abs=0.1)
    assert decode(bare[: len(bare) // 2]).seconds == pytest.approx(1.5, abs=0.1)


def test_mp3_whose_length_libsndfile_underestimates_is_refused_rather_than_cut():
    loud_then_silent = np.where(np.arange(48_000) < 8_000, VOICE, 0)
    whole = encode(loud_then_silent, **FORMATS["mp3"], bitrate_mode="VARIABLE", compression_level=0.5)
    assert decode(whole).seconds == 3.0
    with pytest.raises(CorruptAudio, match=r"could be decoded.*ffmpeg"):
        load_audio(without_xing(whole))
    with pytest.raises(CorruptAudio, match="could be decoded"):
        load_audio(TAG + without_xing(whole))


@pytest.mark.parametrize("flags", [0, 1])
def test_mp3_whose_length_libsndfile_overestimates_is_taken_whole(flags):
    silent_then_loud = np.where(np.arange(48_000) > 40_000, VOICE, 0)
    whole = encode(silent_then_loud, **FORMATS["mp3"], bitrate_mode="VARIABLE", compression_level=0.5)
    unfilled = patched(whole, (whole.index(b"Xing") + 4, ">II", (flags, 0)))  # by an encoder into a pipe
    assert soundfile.info(io.BytesIO(unfilled)).duration > 4
    assert decode(unfilled).seconds == pytest.approx(3.0, abs=0.1)


def test_mp3_with_a_vbri_header_is_held_to_it():
    bare = without_xing(encode(PCM, **CONSTANT_RATE))
    length, samples = containers._mp3_frame(bare)
    frames = containers._count_mp3(io.BytesIO(bare), 0)[0]
    facts = struct.pack(">4sHHHIIHHHH", b"VBRI", 1, 0, 50, length + len(bare), frames, 0, 1, 1, 1)
    whole = (bare[:4] + bytes(32) + facts).ljust(length, b"\0") + bare
    assert containers.check_container(io.BytesIO(whole), "").frames == frames * samples
    assert decode(whole).seconds == pytest.approx(3.1, abs=0.1)
    with pytest.raises(CorruptAudio, match="could be decoded"):
        load_audio(whole[: len(whole) // 2])


BETWEEN = {
    "nothing": b"",
    "ID3v2": TAG,
    "ID3v1": b"TAG" + bytes(125),
    "both": b"TAG" + bytes(125) + TAG,
    "APE": b"APETAGEX" + b"\xff" * 200,
    "padding": bytes(3_000),
}


@pytest.mark.parametrize("between", BETWEEN)
def test_mp3_files_that_were_joined_are_refused_rather_than_cut(between):
    with pytest.raises(CorruptAudio, match=r"several MP3 files.*ffmpeg"):
        load_audio(MP3 + BETWEEN[between] + MP3)


@pytest.mark.parametrize("between", sorted(set(BETWEEN) - {"nothing"}))  # without anything they are one row of frames
def test_so_are_those_without_a_length(between):
    with pytest.raises(CorruptAudio, match=r"several MP3 files.*ffmpeg"):
        load_audio(without_xing(MP3) + BETWEEN[between] + MP3)


def test_tags_around_mp3_do_not_matter():
    np.testing.assert_array_equal(load_audio(MP3 + b"APETAGEX" + bytes(200)), load_audio(MP3))
    for tags in (TAG, 2 * TAG):
        np.testing.assert_array_equal(load_audio(tags + MP3 + b"TAG" + bytes(125)), load_audio(MP3))
    assert decode(TAG + without_xing(encode(PCM, **CONSTANT_RATE))).warnings == ()


def test_a_thousand_tags_behind_an_mp3_are_looked_through_in_time(monkeypatch):
    walks = []
    monkeypatch.setattr(containers, "_behind_tag", lambda stream, start: walks.append(start) or start)
    tail = bytes(4) + 6_000 * (b"ID3\3" + bytes(6))
    containers.check_container(io.BytesIO(without_xing(MP3) + tail), "tagged")
    assert len(walks) < 6_100  # one step each, though one tag follows the other


def test_a_file_of_empty_chunks_is_given_up_in_time():
    stream = io.BytesIO(WAV[:12] + b"JUNK\0\0\0\0" * 5_000 + WAV[12:])
    assert containers.check_container(stream, "chunks").frames is None
    assert stream.tell() < 10_000


@pytest.mark.parametrize("speed", [0.9, 1.1, 1.25])
def test_another_speed_moves_the_pitch_and_the_length_by_the_same_factor(speed):
    changed = change_speed(tone(440, SAMPLE_RATE, 2.0), speed)
    assert len(changed) == round(2 * SAMPLE_RATE / speed)
    assert changed.dtype == np.float32
    spectrum = np.abs(np.fft.rfft(changed * np.hanning(len(changed))))
    assert spectrum.argmax() * SAMPLE_RATE / len(changed) == pytest.approx(440 * speed, abs=0.5)
    assert decibels(changed[2000:-2000]) == pytest.approx(decibels(tone(440, SAMPLE_RATE)), abs=0.05)


def test_speed_1_changes_no_sample():
    assert change_speed(VOICE, 1.0) is VOICE


SEEDS = [encode(VOICE[:4_800], **options) for options in FORMATS.values()]


def test_a_seek_to_nowhere_is_not_printed(capfd):
    with pytest.raises(CorruptAudio):
        load_audio(FILES["aiff"][:40])  # without its sound, libsndfile seeks to -1
    assert capfd.readouterr().err == ""


@st.composite
def damaged_files(draw):
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        # Headers are where a byte matters most.
        place = draw(st.integers(0, 100) | st.integers(0, len(data)))
        match draw(st.sampled_from(["cut", "flip", "insert", "delete"])):
            case "cut":
                del data[place:]
            case "flip":
                data[place : place + 1] = bytes([draw(st.integers(0, 255))])
            case "insert":
                data[place:place] = draw(st.binary(max_size=40))
            case "delete":
                del data[place : place + draw(st.integers(1, 400))]
    return bytes(data)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(damaged_files())
def test_a_damaged_file_gives_samples_or_an_audio_error(data):
    try:
        decoded = decode(data, max_seconds=60.0)
    except AudioError:
        return
    assert decoded.samples.dtype == np.float32
    assert decoded.samples.ndim == 1
    assert len(decoded.samples) >= audio.MINIMUM_SAMPLES
    assert np.isfinite(decoded.samples).all()


@pytest.mark.parametrize("corpus", ["ravdess", "urdu", "emodb_2s"])
def test_real_recordings_raise_no_false_alarm(shared, corpus):
    files = sorted((shared / "data" / corpus).rglob("*.flac"))[::20]
    assert len(files) >= 20
    assert [path.name for path in files if decode(path).warnings] == []
