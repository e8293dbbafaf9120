"""IEMOCAP (Busso et al., 2008): ten actors in five sessions of dialogue, improvised and scripted, English."""

import re
from pathlib import Path

from serein.corpus.corpus import Corpus, Utterance
from serein.corpus.readers.release import nothing_found
from serein.errors import CorpusError

LAYOUT = "IEMOCAP_full_release/Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"

FOUR_CLASSES = {"ang": "angry", "hap": "happy", "exc": "happy", "neu": "neutral", "sad": "sad"}
"""The label map of nearly all published results, excitement merged into happiness: for ``Corpus.relabel``."""

_TURNS_BY_SESSION = (1819, 1811, 2136, 2103, 2170)
_LABELS_BY_SESSION = {
    "ang": (229, 137, 240, 327, 170),
    "hap": (135, 117, 135, 65, 143),
    "exc": (143, 210, 151, 238, 299),
    "neu": (384, 362, 320, 258, 384),
    "sad": (194, 197, 305, 143, 245),
}
EMOTIONS = ("ang", "dis", "exc", "fea", "fru", "hap", "neu", "oth", "sad", "sur", "xxx")

PUBLISHED = (
    {f"session {session}": count for session, count in enumerate(_TURNS_BY_SESSION, start=1)}
    | {
        f"session {session}, {label}": count
        for label, counts in _LABELS_BY_SESSION.items()
        for session, count in enumerate(counts, start=1)
    }
    | {"fru": 1849, "sur": 107, "fea": 40, "xxx": 2507}
)

_TURN = re.compile(
    r"""
    \[(?P<start>\d+(?:\.\d+)?)\s*-\s*(?P<end>\d+(?:\.\d+)?)\]\s+
    (?P<id>
        (?P<dialogue>Ses0(?P<session>[1-5])[FM]_(?:impro\d{2}[a-z]?|script\d{2}_\d[a-z]?))
        _(?P<talker>[FM])\w{3}
    )\s+
    (?P<emotion>"""
    + "|".join(EMOTIONS)
    + r""")\s+
    \[(?P<valence>\d+(?:\.\d+)?),\s*(?P<activation>\d+(?:\.\d+)?),\s*(?P<dominance>\d+(?:\.\d+)?)\]
    """,
    re.VERBOSE,
)

# E1, E2, ... are raters; F1 and M1 are the actors' own reports, which are no votes.
_VOTE = re.compile(r"C-E\d+:(?P<labels>[^(]*)")


def read_iemocap(root: str | Path) -> Corpus:
    """Read every labelled turn of IEMOCAP from the annotations in ``Session*/dialog/EmoEvaluation/Ses*.txt``.

    A turn such as ``Ses03M_impro05a_F012`` is named by its dialogue, in which ``03M`` says which of the two
    actors wore the motion-capture markers, and by who speaks, ``F``. The talker is who speaks: ``"03F"``.

    Args:
        root: ``IEMOCAP_full_release``, or the folder that holds it.

    Returns:
        All turns. Emotions are the released codes: ang dis exc fea fru hap neu oth sad sur, and xxx where the
        raters had no majority. Talkers are ``"01F"`` to ``"05M"``, sessions ``"1"`` to ``"5"``. The further
        columns are ``dialogue``, ``part`` (``"improvised"`` or ``"scripted"``), ``gender``, ``valence``,
        ``activation`` and ``dominance`` (means over raters, on a scale of 1 to 5), ``raters`` (their labels:
        ``"Anger;Anger/Frustration"`` is two raters, the second of two minds), ``start`` and ``end`` (seconds
        into the dialogue). A turn whose recording is missing is read nonetheless.

    Raises:
        CorpusError: no annotation is found, or a line begins like a turn and is none (its file and number are
            named).
    """
    root = Path(root)
    utterances = tuple(
        _utterance(annotation.parents[2], turn, votes)
        for release in (root, root / "IEMOCAP_full_release")
        for annotation in sorted(release.glob("Session[1-5]/dialog/EmoEvaluation/Ses*.txt"))
        for turn, votes in _turns(annotation)
    )
    if not utterances:
        raise nothing_found(root, LAYOUT)
    return Corpus("iemocap", utterances)


def _turns(annotation: Path) -> list[tuple[re.Match[str], list[str]]]:
    turns: list[tuple[re.Match[str], list[str]]] = []
    # The raters' comments are not all in one encoding, and are not used.
    with annotation.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(map(str.strip, lines), start=1):
            if line.startswith("["):
                turn = _TURN.fullmatch(line)
                if turn is None:
                    raise CorpusError(
                        f"{annotation}, line {number}: {line!r} is not a labelled turn; "
                        "expected [start - end], name, label, [valence, activation, dominance]"
                    )
                turns.append((turn, []))
            elif turns and (vote := _VOTE.match(line)):
                labels = (label.strip() for label in vote["labels"].split(";"))
                turns[-1][1].append("/".join(filter(None, labels)))
    return turns


def _utterance(session: Path, turn: re.Match[str], votes: list[str]) -> Utterance:
    wav = session / "sentences" / "wav" / turn["dialogue"] / f"{turn['id']}.wav"
    flac = wav.with_suffix(".flac")
    return Utterance(
        id=turn["id"],
        path=flac if flac.exists() else wav,
        talker=f"0{turn['session']}{turn['talker']}",
        emotion=turn["emotion"],
        session=turn["session"],
        release="iemocap",
        extra={
            "dialogue": turn["dialogue"],
            "part": "improvised" if "_impro" in turn["dialogue"] else "scripted",
            "gender": {"F": "female", "M": "male"}[turn["talker"]],
            "valence": turn["valence"],
            "activation": turn["activation"],
            "dominance": turn["dominance"],
            "raters": ";".join(filter(None, votes)),
            "start": turn["start"],
            "end": turn["end"],
        },
    )
