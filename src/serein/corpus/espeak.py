"""eSpeak NG as a pure function: the same words, voice and prosody give the same samples, whatever was said before."""

import ctypes
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int16

from serein.errors import CorpusError

SAMPLE_RATE = 22050
"""Samples a second of what eSpeak NG says."""

_DATA_FILES = ("phontab", "phonindex", "phondata", "intonations", "en_dict")
_SYNCHRONOUS, _DONT_EXIT, _UTF8 = 2, 0x8000, 1
_RATE, _VOLUME, _PITCH, _RANGE, _WORD_GAP = 1, 2, 3, 4, 7
_SAFE_VOLUME = 40  # volume, of 100: louder vowels can start eSpeak NG's limiter, which outlasts the utterance
_Keep = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True, slots=True)
class Voice:
    """Who speaks.

    Attributes:
        accent: an English accent of eSpeak NG, such as "en-us"; not "en-gb-scotland", whose tapped r remembers.
        pitch_hz: the bottom and the top of the voice's unmarked intonation.
        formants: position of the formants in percent of eSpeak's own; a shorter vocal tract has more.
        brightness: strength of the formants above the second, in percent.
        breath: strength of the breath noise, 0 (none) to about 6.
    """

    accent: str
    pitch_hz: tuple[int, int]
    formants: int = 100
    brightness: int = 100
    breath: int = 0


@dataclass(frozen=True, slots=True)
class Prosody:
    """How something is said.

    Attributes:
        pitch: semitones (nearly) above the voice's own pitch, -12 to 11.
        pitch_range: size of the pitch movements, 1 being the voice's own; 0 to 1.9.
        words_per_minute: 80 to 450.
        word_gap: silence put between words, in eSpeak NG's steps: about 15 ms each at 175 words a minute.
    """

    pitch: float = 0.0
    pitch_range: float = 1.0
    words_per_minute: float = 175.0
    word_gap: float = 0.0


Speak = Callable[[str, str, Prosody, int], Int16[np.ndarray, " samples"]]
"""``speak(text, voice name, prosody, seed of the breath noise)`` gives samples at 22,050 Hz."""


@contextmanager
def speaker(voices: Mapping[str, Voice]) -> Iterator[Speak]:
    """Start eSpeak NG with these voices; stop it when the block ends.

    eSpeak NG is one global machine a process: one block at a time.

    It also remembers: flutter and roughness run on from one utterance into the next. Voices here have neither, and
    the random numbers behind the breath noise are seeded for each utterance, so nothing is left to remember. As
    eSpeak NG takes voices only from its data folder, a temporary one is made with its English and these voices.

    Raises:
        CorpusError: eSpeak NG is not installed or does not start, or, when it speaks, has no such accent.
    """
    library, data = _load()
    with tempfile.TemporaryDirectory(prefix="serein-") as folder:
        own = Path(folder, "espeak-ng-data")
        _copy_english(data, own)
        for name, voice in voices.items():
            (own / "voices" / "!v" / _variant(name)).write_text(_voice_file(voice), encoding="ascii")
        _start(library, own)

        # Its own thread: Python drops what is raised in a C callback, so on the main thread a Ctrl-C would be lost
        # there, and a block of samples with it. Stopping comes after the last words, in the same thread.
        with ThreadPoolExecutor(max_workers=1) as thread:

            def speak(text: str, name: str, prosody: Prosody, seed: int) -> Int16[np.ndarray, " samples"]:
                voice = f"{voices[name].accent}+{_variant(name)}"
                return thread.submit(_speak, library, text, voice, prosody, seed).result()

            try:
                yield speak
            finally:
                thread.submit(library.espeak_Terminate)


def version() -> str:
    """Version of the installed eSpeak NG, such as "1.52.0".

    Raises:
        CorpusError: eSpeak NG is not installed.
    """
    library, _ = _load()
    return str(library.espeak_Info(None).decode())


def _load() -> tuple[ctypes.CDLL, Path]:
    try:
        import espeakng_loader

        library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = Path(espeakng_loader.get_data_path())
    except ImportError as error:
        raise CorpusError(
            "the demo corpus is spoken by eSpeak NG, which is not installed: pip install 'serein[demo]'"
        ) from error
    except (OSError, RuntimeError) as error:
        raise CorpusError(
            f"eSpeak NG is installed but cannot be loaded ({error}): pip install --force-reinstall espeakng-loader"
        ) from error
    library.espeak_Info.restype = ctypes.c_char_p
    return library, data


def _copy_english(data: Path, own: Path) -> None:
    (own / "voices" / "!v").mkdir(parents=True)
    shutil.copytree(data / "lang" / "gmw", own / "lang" / "gmw")
    for name in _DATA_FILES:
        shutil.copyfile(data / name, own / name)


def _start(library: ctypes.CDLL, data: Path) -> None:
    status = library.espeak_Initialize(_SYNCHRONOUS, 0, os.fsencode(data), _DONT_EXIT)
    used = ctypes.c_char_p()
    library.espeak_Info(ctypes.byref(used))
    # Where it cannot use the folder it takes one of the system, which has none of these voices, and says nothing.
    if status != SAMPLE_RATE or used.value != os.fsencode(data):
        raise CorpusError(
            f"eSpeak NG does not start with its data in {data} (status {status}); "
            "the path must be under 160 characters: set TMPDIR to a shorter folder"
        )


def _variant(name: str) -> str:
    return f"voice-{name.lower()}"  # eSpeak NG lowers names itself, and takes one that starts with a digit for a number


def _voice_file(voice: Voice) -> str:
    lines = ["language variant", f"pitch {voice.pitch_hz[0]} {voice.pitch_hz[1]}", "flutter 0", "roughness 0"]
    for formant in range(9):
        strength = voice.brightness if formant > 2 else 100
        lines.append(f"formant {formant} {voice.formants} {strength} 100")
    if voice.breath:
        lines.append("breath 0" + 7 * f" {voice.breath}")
    return "\n".join(lines) + "\n"


def _speak(library: ctypes.CDLL, text: str, voice: str, prosody: Prosody, seed: int) -> Int16[np.ndarray, " samples"]:
    blocks: list[bytes] = []

    def keep(samples: int | None, count: int, _events: int | None) -> int:
        if samples and count > 0:
            blocks.append(ctypes.string_at(samples, 2 * count))
        return 0

    callback = _Keep(keep)  # named: it must live until eSpeak NG is done
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise CorpusError(f"eSpeak NG has no voice {voice!r}: its data has no such English accent")
    for parameter, value in {
        _RATE: prosody.words_per_minute,
        _VOLUME: _SAFE_VOLUME,
        _PITCH: np.clip(50 + 50 / 12 * prosody.pitch, 0, 99),
        _RANGE: np.clip(50 * prosody.pitch_range, 0, 99),
        _WORD_GAP: prosody.word_gap,
    }.items():
        library.espeak_SetParameter(parameter, round(float(value)), 0)
    library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
    utf8 = text.encode() + b"\0"
    status = library.espeak_Synth(utf8, ctypes.c_size_t(len(utf8)), 0, 1, 0, _UTF8, None, None)
    if status != 0:
        raise CorpusError(f"eSpeak NG could not say {text!r} (status {status})")
    return np.frombuffer(b"".join(blocks), dtype=np.int16)
