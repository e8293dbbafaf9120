"""Any recording as mono float32 at 16 kHz, or an error that says what is wrong with the file."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32, Float64

from serein.errors import AudioError, CorruptAudio, NonFiniteAudio, TooShort, UnsupportedAudio
from serein.frames.containers import check_container

SAMPLE_RATE = 16_000  # Hz
MINIMUM_SAMPLES = 400  # 25 ms: what the encoders see for one frame
MOST_CHANNELS = 32
LOWEST_RATE, HIGHEST_RATE = 4_000, 384_000  # Hz
LARGEST_PEAK = 8.0  # full scale is 1; float files beyond this hold integers, or nobody ever listened to them
QUIETEST_PEAK = 2.0**-15  # one step of 16-bit samples
COMPLETE = 0.95  # of the promised length; MP3 encoders and decoders differ in how much they trim
CANCELLED = 0.1  # power of the channels' average, over what unrelated channels would leave of theirs
LENGTH_UNKNOWN = 2**63 - 1  # libsndfile's word for it, in samples
UNSUPPORTED_CODES = (1, 4, 18)  # libsndfile: format not recognised, encoding not supported, not implemented
BLOCK = 65_536  # sample frames decoded at once: memory grows with the result, not with channels and rate


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A decoded recording.

    Attributes:
        samples: mono, 16 kHz, full scale is 1.
        warnings: what was wrong with the file and could be mended, in plain words; empty for a sound file.
        original_rate: the file's sample rate in Hz.
        channels: how many channels the file has.
    """

    samples: Float32[np.ndarray, " samples"]
    warnings: tuple[str, ...]
    original_rate: int
    channels: int

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return len(self.samples) / SAMPLE_RATE


def load_audio(source: str | Path | bytes, *, max_seconds: float | None = None) -> Float32[np.ndarray, " samples"]:
    """Decode a recording to mono float32 at 16 kHz; ``decode`` also tells what had to be mended.

    Example:
        >>> file = io.BytesIO()
        >>> soundfile.write(file, np.full((44_100, 2), 0.5), 44_100, format="WAV")
        >>> load_audio(file.getvalue()).shape
        (16000,)
    """
    return decode(source, max_seconds=max_seconds).samples


def decode(source: str | Path | bytes, *, max_seconds: float | None = None) -> Decoded:
    """Decode a recording and say what had to be mended.

    Channels are averaged. Where they cancel each other (the average has less than a tenth of the power that
    unrelated channels would leave), the loudest one is taken instead. A peak beyond 8 is scaled to 1.

    MP3 decoding may print notes of libmpg123 on stderr; they cannot be switched off from here.

    Args:
        source: a path, or the bytes of a file; both give the same samples.
        max_seconds: refuse a longer recording without decoding the rest of it; None takes any length.

    Raises:
        UnsupportedAudio: not WAV, AIFF, CAF, FLAC, Ogg or MP3, or a codec within them that libsndfile lacks.
        CorruptAudio: cut, damaged, or with a header that cannot be true.
        TooShort: less than 25 ms.
        NonFiniteAudio: samples that are NaN or infinite.
        AudioError: the file cannot be read, or lasts more than ``max_seconds``.
    """
    name = "these bytes" if isinstance(source, bytes) else str(source)
    try:
        with _open(source, name) as file:
            return _decode(file, name, max_seconds)
    except soundfile.LibsndfileError as error:
        if error.code in UNSUPPORTED_CODES:
            raise UnsupportedAudio(
                f"{name}: libsndfile cannot decode what is in it ({error.error_string}); "
                "convert it with `ffmpeg -i INPUT OUTPUT.wav`"
            ) from error
        raise CorruptAudio(f"{name}: is damaged ({error.error_string}); copy it again or leave it out") from error
    except OSError as error:
        raise AudioError(f"{name}: cannot be read ({error.strerror or error})") from error


def change_speed(samples: Float32[np.ndarray, " samples"], speed: float) -> Float32[np.ndarray, " changed"]:
    """Play samples faster (above 1) or slower: pitch and formants move by the same factor.

    Example:
        >>> len(change_speed(np.zeros(16000, np.float32), 1.25))
        12800
    """
    if speed == 1:
        return samples
    changed: np.ndarray = soxr.resample(samples, SAMPLE_RATE, SAMPLE_RATE / speed)
    return changed.astype(np.float32, copy=False)


def audio_hash(samples: Float32[np.ndarray, " samples"]) -> str:
    """SHA-256 of the samples in hexadecimal; the same for the same sound in a WAV and in a FLAC.

    Example:
        >>> audio_hash(np.zeros(400, dtype=np.float32))[:12]
        'e61f41d57db2'
    """
    return hashlib.sha256(np.ascontiguousarray(samples, dtype="<f4").data).hexdigest()


class _Stream(io.BufferedReader):
    """Stays where it is when asked to seek to nowhere.

    libsndfile does ask for that in damaged files, from a callback where an exception could only be printed.
    """

    name = ""  # soundfile would take everything whose name ends in .raw for samples without a header

    def seek(self, target: int, whence: int = io.SEEK_SET) -> int:
        try:
            return super().seek(target, whence)
        except (OSError, ValueError, OverflowError):
            return self.tell()


class _ForwardReader(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """Never seeks.

    soundfile seeks after each read to where it is already. MP3 decoders start afresh there, and the last bits
    of the samples would depend on the size of the blocks.
    """

    def seekable(self) -> bool:
        return False


@dataclass(frozen=True, slots=True, eq=False)
class _Sound:
    samples: Float32[np.ndarray, " samples"]  # mixed and resampled
    rate: int  # of the file, in Hz
    frames: int  # decoded, at that rate
    promised: int  # frames by libsndfile's reading of the header
    peak: float  # over all channels
    powers: Float64[np.ndarray, " channels"]  # summed squares
    average_power: float  # of the average of the channels


def _open(source: str | Path | bytes, name: str) -> _Stream:
    if isinstance(source, bytes):
        return _Stream(io.BytesIO(source))
    path = Path(source)
    if not path.is_file():  # nor a named pipe: it would keep us waiting for ever
        fault = "is not a file" if path.exists() else "does not exist"
        raise AudioError(f"{name}: {fault}; give the path of one recording")
    return _Stream(io.FileIO(path))


def _decode(file: io.BufferedIOBase, name: str, max_seconds: float | None) -> Decoded:
    container = check_container(file, name)
    sound = _read(container.stream, name, max_seconds)
    promised = sound.promised if container.frames is None else container.frames
    if promised < LENGTH_UNKNOWN and sound.frames < COMPLETE * promised:
        raise CorruptAudio(
            f"{name}: only {sound.frames} of {promised} samples could be decoded; "
            "copy it again, or convert it with `ffmpeg -i INPUT OUTPUT.wav`"
        )
    if len(sound.samples) < MINIMUM_SAMPLES:
        milliseconds = 1000 * sound.frames / sound.rate
        raise TooShort(f"{name}: lasts {milliseconds:.3g} ms; one frame of the encoders needs 25 ms; leave it out")

    mended = []
    channels = len(sound.powers)
    weights = _average(channels)
    if sound.average_power < CANCELLED * sound.powers.sum() / channels**2:
        loudest = int(sound.powers.argmax())
        weights = np.eye(channels, dtype=np.float32)[loudest]
        mended.append(f"the channels cancel each other; only channel {loudest + 1} was taken")
    if sound.peak > LARGEST_PEAK:
        weights = weights / np.float32(sound.peak)
        mended.append(f"the peak is {sound.peak:.3g} where full scale is 1; scaled to 1")
    samples = _read(container.stream, name, max_seconds, weights).samples if mended else sound.samples
    if sound.peak < QUIETEST_PEAK:
        mended.append("silence: no sample reaches one step of 16-bit audio")
    return Decoded(samples, (*container.warnings, *mended), sound.rate, channels)


def _read(
    stream: io.BufferedIOBase,
    name: str,
    max_seconds: float | None,
    weights: Float32[np.ndarray, " channels"] | None = None,
) -> _Sound:
    """Decode, mix with the given weights (None: average) and resample, block by block."""
    stream.seek(0)
    with _ForwardReader(stream) as file:
        rate, channels = file.samplerate, file.channels
        if channels > MOST_CHANNELS or not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise CorruptAudio(
                f"{name}: its header claims {channels} channels at {rate} Hz; credible are "
                f"at most {MOST_CHANNELS}, at {LOWEST_RATE} to {HIGHEST_RATE} Hz"
            )
        average = _average(channels)
        resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        frames, peak, powers, average_power = 0, 0.0, np.zeros(channels), 0.0
        pieces = []
        while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
            frames += len(block)
            if max_seconds is not None and frames > max_seconds * rate:
                raise AudioError(f"{name}: lasts more than {max_seconds:g} s, the most allowed here; cut it")
            if not np.isfinite(block).all():
                raise NonFiniteAudio(f"{name}: holds samples that are NaN or infinite; export it again from its source")
            mixed = (block * average).sum(axis=1)
            peak = max(peak, float(np.abs(block).max()))
            powers += np.square(block, dtype=np.float64).sum(axis=0)
            average_power += float(np.square(mixed, dtype=np.float64).sum())
            pieces.append(resampler.resample_chunk(mixed if weights is None else (block * weights).sum(axis=1)))
        pieces.append(resampler.resample_chunk(np.empty(0, dtype=np.float32), last=True))
        return _Sound(np.concatenate(pieces), rate, frames, file.frames, peak, powers, average_power)


def _average(channels: int) -> Float32[np.ndarray, " channels"]:
    return np.full(channels, 1 / channels, dtype=np.float32)
