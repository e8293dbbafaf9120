"""One reader a corpus: from the folder as released to a ``Corpus``, by file names and annotations alone."""

from collections.abc import Callable, Mapping
from pathlib import Path

from serein.corpus.corpus import Corpus
from serein.corpus.readers import emodb, iemocap, ravdess, urdu
from serein.corpus.readers.release import count_gaps

READERS: dict[str, Callable[[Path], Corpus]] = {
    "emodb": emodb.read_emodb,
    "iemocap": iemocap.read_iemocap,
    "ravdess": ravdess.read_ravdess,
    "urdu": urdu.read_urdu,
}

PUBLISHED: dict[str, Mapping[str, int]] = {
    "emodb": emodb.PUBLISHED,
    "iemocap": iemocap.PUBLISHED,
    "ravdess": ravdess.PUBLISHED,
    "urdu": urdu.PUBLISHED,
}

# of each release; a part of it need not have them all
EMOTIONS: dict[str, frozenset[str]] = {
    "emodb": frozenset(emodb.EMOTIONS.values()),
    "iemocap": frozenset(iemocap.EMOTIONS),
    "ravdess": frozenset(ravdess.EMOTIONS.values()),
    "urdu": frozenset(urdu.EMOTIONS.values()),
}


def release_gaps(name: str, corpus: Corpus) -> list[str]:
    """Say where a corpus, as its reader ``name`` gave it, differs from its release.

    Returns:
        Sentences such as ``"talker 07: 58 of 60 utterances"``; none where nothing is missing.
    """
    return count_gaps(corpus, PUBLISHED.get(name, {}))
