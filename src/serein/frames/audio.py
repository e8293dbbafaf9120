"""Any recording as mono float32 at 16 kHz, or an error that says what is wrong with the file."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32

from serein.errors import AudioError, CorruptAudio, NonFiniteAudio, TooShort, UnsupportedAudio
from serein.frames.containers import check_container
from serein.frames.mending import Levels, Verdict, mix

SAMPLE_RATE = 16_000  # Hz
MINIMUM_SAMPLES = 400  # 25 ms: what the encoders see for one frame
MOST_CHANNELS = 32
LOWEST_RATE, HIGHEST_RATE = 4_000, 384_000  # Hz
COMPLETE = 0.95  # of the promised length; MP3 encoders and decoders differ in how much they trim
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
    with open_audio(source, max_seconds=max_seconds) as recording:
        samples = np.concatenate([*recording.resampled()])
        verdict = recording.judge()
        if verdict.weights is not None:
            samples = np.concatenate([*recording.resampled(verdict.weights)])
        return Decoded(samples, verdict.warnings, recording.rate, recording.channels)


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


class OpenAudio:
    """A recording in a sound container, which can be decoded again and again; see :func:`open_audio`.

    Attributes:
        rate: the file's sample rate in Hz.
        channels: how many channels the file has.
    """

    def __init__(self, file: io.BufferedIOBase, name: str, max_seconds: float | None) -> None:
        self._name, self._max_seconds = name, max_seconds
        self._container = check_container(file, name)
        with self._decoder() as decoder:
            self.rate, self.channels = int(decoder.samplerate), int(decoder.channels)
            promised = decoder.frames if self._container.frames is None else self._container.frames
        self._promised = int(promised)
        if self.channels > MOST_CHANNELS or not LOWEST_RATE <= self.rate <= HIGHEST_RATE:
            raise CorruptAudio(
                f"{name}: its header claims {self.channels} channels at {self.rate} Hz; credible are "
                f"at most {MOST_CHANNELS}, at {LOWEST_RATE} to {HIGHEST_RATE} Hz"
            )

    def mixed(self, weights: Float32[np.ndarray, " channels"] | None = None) -> Iterator[Float32[np.ndarray, " _"]]:
        """Blocks of the recording at its own rate, the channels mixed with these weights (None: averaged)."""
        self._frames, self._levels = 0, Levels(self.channels)
        with self._decoder() as decoder:
            while len(block := self._read(decoder)):
                self._frames += len(block)
                if self._max_seconds is not None and self._frames > self._max_seconds * self.rate:
                    raise AudioError(
                        f"{self._name}: lasts more than {self._max_seconds:g} s, the most allowed here; cut it"
                    )
                if not np.isfinite(block).all():
                    raise NonFiniteAudio(
                        f"{self._name}: holds samples that are NaN or infinite; export it again from its source"
                    )
                averaged = self._levels.add(block)
                yield averaged if weights is None else mix(block, weights)

    def resampled(self, weights: Float32[np.ndarray, " channels"] | None = None) -> Iterator[Float32[np.ndarray, " _"]]:
        """The same at 16 kHz; some pieces are empty."""
        resampler = soxr.ResampleStream(self.rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        for block in self.mixed(weights):
            yield resampler.resample_chunk(block)
        yield resampler.resample_chunk(np.empty(0, dtype=np.float32), last=True)

    def judge(self) -> Verdict:
        """Hold what the last pass decoded, which must have been a whole one, against what the file promised.

        Raises:
            CorruptAudio: much of the promised length did not come.
            TooShort: less than 25 ms.
        """
        if self._promised < LENGTH_UNKNOWN and self._frames < COMPLETE * self._promised:
            raise CorruptAudio(
                f"{self._name}: only {self._frames} of {self._promised} samples could be decoded; "
                "copy it again, or convert it with `ffmpeg -i INPUT OUTPUT.wav`"
            )
        if round(self._frames * SAMPLE_RATE / self.rate) < MINIMUM_SAMPLES:
            milliseconds = 1000 * self._frames / self.rate
            raise TooShort(
                f"{self._name}: lasts {milliseconds:.3g} ms; one frame of the encoders needs 25 ms; leave it out"
            )
        found = self._levels.judge()
        return Verdict(found.weights, (*self._container.warnings, *found.warnings))

    def _decoder(self) -> "_ForwardReader":
        with _refusals(self._name):
            self._container.stream.seek(0)
            return _ForwardReader(self._container.stream)

    def _read(self, decoder: "_ForwardReader") -> Float32[np.ndarray, "samples channels"]:
        with _refusals(self._name):
            block: np.ndarray = decoder.read(BLOCK, dtype="float32", always_2d=True)
            return block


@contextmanager
def open_audio(source: str | Path | bytes, *, max_seconds: float | None = None) -> Iterator[OpenAudio]:
    """Open a recording to decode it block by block; what libsndfile and the system refuse of it is an AudioError.

    A first whole pass is needed to :meth:`OpenAudio.judge` it; :func:`decode` and
    :func:`serein.frames.streaming.stream_audio` are the ways to its samples.

    Args:
        source: a path, or the bytes of a file.
        max_seconds: refuse a longer recording.

    Raises:
        AudioError: as :func:`decode` raises.
    """
    name = "these bytes" if isinstance(source, bytes) else str(source)
    with ExitStack() as stack:
        with _refusals(name):
            recording = OpenAudio(stack.enter_context(_open(source, name)), name, max_seconds)
        yield recording


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """Say of this recording what libsndfile or the system has against it."""
    try:
        yield
    except soundfile.LibsndfileError as error:
        if error.code in UNSUPPORTED_CODES:
            raise UnsupportedAudio(
                f"{name}: libsndfile cannot decode what is in it ({error.error_string}); "
                "convert it with `ffmpeg -i INPUT OUTPUT.wav`"
            ) from error
        raise CorruptAudio(f"{name}: is damaged ({error.error_string}); copy it again or leave it out") from error
    except OSError as error:
        raise AudioError(f"{name}: cannot be read ({error.strerror or error})") from error


def _open(source: str | Path | bytes, name: str) -> _Stream:
    if isinstance(source, bytes):
        return _Stream(io.BytesIO(source))
    path = Path(source)
    if not path.is_file():  # nor a named pipe: it would keep us waiting for ever
        fault = "is not a file" if path.exists() else "does not exist"
        raise AudioError(f"{name}: {fault}; give the path of one recording")
    return _Stream(io.FileIO(path))
