"""The demo corpus: five sessions of a woman and a man, four acted emotions, spoken by eSpeak NG.

Angry, happy, neutral and sad differ in mean pitch, pitch range, rate, loudness and pauses. Each utterance is drawn
around its emotion's mean, each talker has habits of their own, and every sentence comes in every emotion: classes
overlap, and neither the words nor one cue alone tell them apart. It is for trying serein out and for tests, and says
nothing about people.
"""

import hashlib
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from serein.corpus import espeak
from serein.corpus.about import SYNTHETIC
from serein.corpus.corpus import Corpus, Utterance
from serein.corpus.espeak import Prosody, Speak, Voice
from serein.errors import CorpusError, UsageError
from serein.files import write_atomically
from serein.progress import Report, quiet

SAMPLE_RATE = 16_000

VOICES = {
    "1F": Voice("en-us", pitch_hz=(160, 220), formants=114, brightness=85, breath=2),
    "1M": Voice("en-gb-x-rp", pitch_hz=(84, 122), formants=100),
    "2F": Voice("en", pitch_hz=(178, 240), formants=119, brightness=75),
    "2M": Voice("en-us-nyc", pitch_hz=(96, 140), formants=104, brightness=90),
    "3F": Voice("en-gb-x-gbclan", pitch_hz=(148, 206), formants=110, brightness=95, breath=1),
    "3M": Voice("en-us", pitch_hz=(72, 106), formants=94, brightness=110),
    "4F": Voice("en-029", pitch_hz=(188, 262), formants=121, brightness=90, breath=3),
    "4M": Voice("en", pitch_hz=(106, 150), formants=102, brightness=80, breath=2),
    "5F": Voice("en-us-nyc", pitch_hz=(168, 236), formants=116, brightness=70),
    "5M": Voice("en-gb-x-gbcwmd", pitch_hz=(88, 132), formants=97, brightness=100, breath=1),
}

# How an emotion differs from the talker's own voice at 175 words a minute, on average: pitch (semitones), pitch range
# and rate (both as log2 of a factor), loudness (dB); the last is the gap between words (steps).
MANNERS = {
    "angry": (1.0, 0.1, 0.2, 4.0, 1.5),
    "happy": (4.5, 0.7, 0.1, 2.0, 3.5),
    "neutral": (0.0, -0.1, 0.0, 0.0, 2.5),
    "sad": (-1.5, -0.5, -0.14, -3.0, 5.0),
}
SPREAD = np.array([1.3, 0.22, 0.08, 2.0, 1.4])  # standard deviation of utterances around their talker's habit
HABIT = 0.25  # standard deviation of talkers' habits around the emotion's mean, in spreads
LEVEL_DB = -6.0  # the loudest angry utterance of the loudest voice stays below full scale

SENTENCES = (
    "The blue cup stands on the kitchen table.",
    "The bus to the station leaves at seven.",
    "She put the letters in the top drawer.",
    "There are nine chairs in the other room.",
    "He walked around the lake before lunch.",
    "The shop on the corner sells paper.",
    "We painted the garden fence last week.",
    "The window faces the street.",
    "My brother lives in the house over there.",
    "The train stops here every hour.",
    "They moved the piano to the back wall.",
    "The coat is hanging behind the door.",
    "I bought some bread and a bottle of milk.",
    "The meeting will be held in the library.",
    "Her bag is under the long bench.",
    "The river runs along the old road.",
    "He wrote the number on a piece of paper.",
    "The children are playing in the yard.",
    "We turned left at the second bridge.",
    "The cat is asleep on the stairs.",
    "You can leave the keys with the neighbour.",
    "The film begins at a quarter to nine.",
    "She is reading the paper by the window.",
    "There is some soup in the large pot.",
    "The boxes go on the lower shelf.",
    "He opened the gate and went inside.",
    "The lamp next to the bed is on.",
    "They will come back in the evening.",
    "The road turns north after the mill.",
    "I saw your uncle at the market.",
    "The tall glass belongs to my sister.",
    "We have tickets for the second row.",
    "The dog is waiting near the car.",
    "She folded the map and put it away.",
    "The office is on the third floor.",
    "He has worn that jacket all winter.",
    "The plates are stacked beside the sink.",
    "It has rained since the early morning.",
    "The boat is tied to the wooden pier.",
    "They planted apple trees behind the barn.",
    "The clock in the hall shows ten.",
    "I will call the driver after dinner.",
    "The pencil is lying on the floor.",
    "She carried the basket up the hill.",
    "We heard the band from the balcony.",
    "The baker closes at noon on Monday.",
    "He poured the water into a bowl.",
    "The ladder leans on the garage wall.",
)


@dataclass(frozen=True, slots=True)
class _Take:
    """One recording before it is spoken: everything that decides its samples."""

    talker: str
    emotion: str
    number: int
    sentence: int
    prosody: Prosody
    gain_db: float
    breath_seed: int

    @property
    def text(self) -> str:
        return f"s{self.sentence + 1:02d}"

    @property
    def id(self) -> str:
        return f"S{self.talker}_{self.emotion}_{self.number:02d}_{self.text}"


def make_corpus(folder: Path, *, utterances_per_talker: int = 64, seed: int = 0, report: Report = quiet) -> Corpus:
    """Speak the demo corpus into ``folder``: ``wav/*.wav`` (16 kHz, mono), ``corpus.csv``, ``corpus.json`` (settings).

    Each recording depends on the seed, the talker and its number alone: fewer utterances a talker give a subset, byte
    for byte. Called again, it goes on where it was stopped; with other settings it starts afresh.

    Args:
        folder: where to; made where it is missing.
        utterances_per_talker: a multiple of four, so that emotions are balanced.
        seed: of talkers' habits, sentences and prosody.
        report: called after each recording.

    Raises:
        UsageError: ``utterances_per_talker`` is not a positive multiple of four.
        CorpusError: eSpeak NG is not installed, or the folder holds another corpus.
    """
    if utterances_per_talker < 1 or utterances_per_talker % len(MANNERS):
        raise UsageError(
            f"utterances_per_talker is {utterances_per_talker}; balanced emotions need a multiple of {len(MANNERS)}"
        )
    takes = [take for talker in VOICES for take in _takes(talker, utterances_per_talker, seed)]
    _claim(folder, _settings(takes, utterances_per_talker, seed))
    utterances = []
    with espeak.speaker(VOICES) as speak:
        for done, take in enumerate(takes, start=1):
            path = folder / "wav" / f"{take.id}.wav"
            if not path.exists():
                _record(take, speak, path)
            utterances.append(_utterance(take, path))
            report("corpus", done, len(takes), {"id": take.id})
    corpus = Corpus(SYNTHETIC, tuple(utterances))
    corpus.to_csv(folder / "corpus.csv")
    return corpus


def _takes(talker: str, count: int, seed: int) -> Iterator[_Take]:
    index = list(VOICES).index(talker)
    own = np.random.default_rng([seed, index, 0])
    habits = {emotion: HABIT * SPREAD * own.standard_normal(len(SPREAD)).clip(-2, 2) for emotion in MANNERS}
    order = own.permutation(len(SENTENCES))
    for position in range(count):
        number, which = divmod(position, len(MANNERS))
        emotion = list(MANNERS)[which]
        chance = np.random.default_rng([seed, index, 1 + position])
        drawn = SPREAD * chance.standard_normal(len(SPREAD)).clip(-2, 2)
        pitch, pitch_range, rate, gain_db, gap = (MANNERS[emotion] + habits[emotion] + drawn).tolist()
        yield _Take(
            talker=talker,
            emotion=emotion,
            number=number,
            sentence=int(order[number % len(SENTENCES)]),
            prosody=Prosody(pitch, 2**pitch_range, 175 * 2**rate, max(gap, 0.0)),
            gain_db=gain_db,
            breath_seed=int(chance.integers(2**31)),
        )


def _record(take: _Take, speak: Speak, path: Path) -> None:
    spoken = speak(SENTENCES[take.sentence], take.talker, take.prosody, take.breath_seed) / np.float32(32768)
    samples = soxr.resample(spoken, espeak.SAMPLE_RATE, SAMPLE_RATE, quality="HQ")
    wav = io.BytesIO()
    soundfile.write(wav, samples * 10 ** ((LEVEL_DB + take.gain_db) / 20), SAMPLE_RATE, "PCM_16", format="WAV")
    write_atomically(path, wav.getvalue())


def _utterance(take: _Take, path: Path) -> Utterance:
    return Utterance(
        id=take.id,
        path=path,
        talker=take.talker,
        emotion=take.emotion,
        session=take.talker[0],
        text=take.text,
        seconds=soundfile.info(path).frames / SAMPLE_RATE,
        release=SYNTHETIC,
        extra={"gender": {"F": "female", "M": "male"}[take.talker[1]]},
    )


def _settings(takes: list[_Take], utterances_per_talker: int, seed: int) -> str:
    decisive = [SENTENCES, LEVEL_DB, {name: asdict(v) for name, v in VOICES.items()}, [asdict(t) for t in takes]]
    return json.dumps(
        {
            "seed": seed,
            "utterances_per_talker": utterances_per_talker,
            "espeak": espeak.version(),
            "soxr": soxr.__version__,
            "script": hashlib.sha256(json.dumps(decisive).encode()).hexdigest(),
        },
        indent=2,
    )


def _is_record(text: str | None, *, like: str) -> bool:
    """Whether a ``corpus.json`` is one that this module wrote, with whatever settings."""
    try:
        known = json.loads(text or "")
    except ValueError:
        return False
    return isinstance(known, dict) and known.keys() == json.loads(like).keys()


def _claim(folder: Path, settings: str) -> None:
    """Keep the recordings made with these settings, and remove those that this module made with others.

    The record of the settings marks the folder as this module's own: it is written before the first recording, and
    replaced only when the recordings of the old settings are gone.
    """
    record, wavs, table = folder / "corpus.json", folder / "wav", folder / "corpus.csv"
    known = record.read_text(encoding="utf-8") if record.exists() else None
    if not _is_record(known, like=settings) and (known is not None or wavs.exists() or table.exists()):
        raise CorpusError(f"{folder} holds a corpus that serein did not make; name another folder")
    if known != settings:
        table.unlink(missing_ok=True)
        if wavs.exists():
            shutil.rmtree(wavs)
        write_atomically(record, settings.encode())
    wavs.mkdir(exist_ok=True)
