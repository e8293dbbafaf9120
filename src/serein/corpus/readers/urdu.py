"""URDU-Dataset (Latif et al., 2018): spontaneous speech from television talk shows in four emotions."""

import re
from pathlib import Path

from serein.corpus.corpus import Corpus, Utterance
from serein.corpus.readers.release import recordings

LAYOUT = "Angry/SM1_F1_A01.wav"

EMOTIONS = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad"}

PUBLISHED = dict.fromkeys(EMOTIONS.values(), 100)

_NAME = re.compile(r"(?P<talker>S(?P<gender>[MF])\d+)_F\d+_(?P<emotion>[AHNS])\d+")


def read_urdu(root: str | Path) -> Corpus:
    """Read URDU-Dataset, wherever its recordings lie below ``root``.

    Everything is in the file name: ``SM1_F12_A012`` is talker SM1 (male), his 12th file, angry. The folder
    says the emotion once more and is not asked.

    Returns:
        Talkers such as ``"SM1"`` and ``"SF3"``, and the further column ``gender``; no words are released.

    Raises:
        CorpusError: no such file is found, or one stands there twice.
    """
    return Corpus("urdu", tuple(_utterance(path, name) for path, name in recordings(root, _NAME, LAYOUT)))


def _utterance(path: Path, name: re.Match[str]) -> Utterance:
    return Utterance(
        id=path.stem,
        path=path,
        talker=name["talker"],
        emotion=EMOTIONS[name["emotion"]],
        release="urdu",
        extra={"gender": {"M": "male", "F": "female"}[name["gender"]]},
    )
