"""EmoDB, Berlin's emotional speech (Burkhardt et al., 2005): ten actors, seven emotions, German."""

import re
from pathlib import Path

from serein.corpus.corpus import Corpus, Utterance
from serein.corpus.readers.release import recordings

LAYOUT = "wav/03a01Fa.wav"

# The letters stand for the German words: Wut, Langeweile, Ekel, Angst, Freude, Trauer.
EMOTIONS = {
    "W": "angry",
    "L": "bored",
    "E": "disgusted",
    "A": "fearful",
    "F": "happy",
    "T": "sad",
    "N": "neutral",
}

MALE_TALKERS = frozenset({"03", "10", "11", "12", "15"})

PUBLISHED = {
    "angry": 127,
    "bored": 81,
    "disgusted": 46,
    "fearful": 69,
    "happy": 71,
    "sad": 62,
    "neutral": 79,
    "talker 03": 49,
    "talker 08": 58,
    "talker 09": 43,
    "talker 10": 38,
    "talker 11": 55,
    "talker 12": 35,
    "talker 13": 61,
    "talker 14": 69,
    "talker 15": 56,
    "talker 16": 71,
}

_NAME = re.compile(r"(?P<talker>03|08|09|1[0-6])(?P<text>[ab]\d{2})(?P<emotion>[WLEAFTN])(?P<version>[a-z])")


def read_emodb(root: str | Path) -> Corpus:
    """Read EmoDB, wherever its recordings lie below ``root``.

    Everything is in the file name: ``03a01Fa`` is talker 03, sentence a01, emotion F, version a.

    Returns:
        Talkers ``"03"`` to ``"16"`` (ten of them), ``text`` the sentence's id, and the further columns
        ``gender`` and ``version``.

    Raises:
        CorpusError: no such file is found, or one stands there twice.
    """
    return Corpus("emodb", tuple(_utterance(path, name) for path, name in recordings(root, _NAME, LAYOUT)))


def _utterance(path: Path, name: re.Match[str]) -> Utterance:
    return Utterance(
        id=path.stem,
        path=path,
        talker=name["talker"],
        emotion=EMOTIONS[name["emotion"]],
        text=name["text"],
        release="emodb",
        extra={
            "gender": "male" if name["talker"] in MALE_TALKERS else "female",
            "version": name["version"],
        },
    )
