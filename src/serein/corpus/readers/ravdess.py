"""RAVDESS (Livingstone and Russo, 2018): 24 actors speak two sentences in eight emotions, English."""

import re
from pathlib import Path

from serein.corpus.corpus import Corpus, Utterance
from serein.corpus.readers.release import recordings

LAYOUT = "Actor_01/03-01-01-01-01-01-01.wav"

EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}

# Neutral was recorded in one intensity, the others in two.
PUBLISHED = {emotion: 96 if emotion == "neutral" else 192 for emotion in EMOTIONS.values()} | {
    f"talker {actor:02}": 60 for actor in range(1, 25)
}

_NAME = re.compile(
    r"03-01-(?P<emotion>0[1-8])-(?P<intensity>0[12])-(?P<statement>0[12])-(?P<repetition>0[12])"
    r"-(?P<actor>0[1-9]|1\d|2[0-4])"
)


def read_ravdess(root: str | Path) -> Corpus:
    """Read the audio-only speech of RAVDESS, wherever it lies below ``root``.

    Everything is in the file name: modality (03, audio only), channel (01, speech), emotion, intensity,
    statement, repetition, actor. Song (channel 02) and video (modality 01 and 02) are passed over.

    Returns:
        Talkers ``"01"`` to ``"24"``, ``text`` ``"kids"`` or ``"dogs"`` (the statement), and the further
        columns ``intensity``, ``repetition``, ``gender`` and ``actor``.

    Raises:
        CorpusError: no such file is found, or one stands there twice (a widespread copy of the release
            holds itself a second time in a folder of its own).
    """
    return Corpus("ravdess", tuple(_utterance(path, name) for path, name in recordings(root, _NAME, LAYOUT)))


def _utterance(path: Path, name: re.Match[str]) -> Utterance:
    return Utterance(
        id=path.stem,
        path=path,
        talker=name["actor"],
        emotion=EMOTIONS[name["emotion"]],
        text={"01": "kids", "02": "dogs"}[name["statement"]],
        release="ravdess",
        extra={
            "intensity": {"01": "normal", "02": "strong"}[name["intensity"]],
            "repetition": name["repetition"].lstrip("0"),
            "gender": "male" if int(name["actor"]) % 2 else "female",
            "actor": name["actor"],
        },
    )
