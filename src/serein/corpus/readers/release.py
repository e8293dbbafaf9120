"""A released corpus on disk: find its recordings, and compare them with the counts it was published with."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from serein.corpus.corpus import Corpus
from serein.errors import CorpusError

AUDIO_SUFFIXES = (".wav", ".flac")


def recordings(root: str | Path, name: re.Pattern[str], layout: str) -> list[tuple[Path, re.Match[str]]]:
    """Find the recordings below ``root``, at any depth, whose file stem ``name`` matches in full.

    Links to folders are followed. Hidden files and folders are passed over: copies made on a Mac carry a ``._`` shadow
    of every recording.

    Args:
        root: the folder of the corpus.
        name: the pattern of a stem.
        layout: where one recording lies in the release, for the message when nothing is found.

    Returns:
        Each file with the match of its stem, sorted by stem; paths begin with ``root`` as given.

    Raises:
        CorpusError: nothing matches, or two files have the same stem.
    """
    root = Path(root)
    found: dict[str, tuple[Path, re.Match[str]]] = {}
    for path in sorted(_files(root)):
        match = name.fullmatch(path.stem)
        if match is None or path.suffix.lower() not in AUDIO_SUFFIXES:
            continue
        if path.stem in found:
            raise CorpusError(f"{root}: {path.stem} is there twice, {found[path.stem][0]} and {path}; keep one copy")
        found[path.stem] = (path, match)
    if not found:
        raise nothing_found(root, layout)
    return [found[stem] for stem in sorted(found)]


def _files(root: Path) -> Iterator[Path]:
    """Every file below ``root`` that is not hidden; a folder that several links lead to is read once."""
    read: set[str] = set()
    for folder, inner, files in os.walk(root, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        if (real := os.path.realpath(folder)) in read:
            inner.clear()
            continue
        read.add(real)
        yield from (Path(folder, name) for name in files if not name.startswith("."))


def nothing_found(root: Path, layout: str) -> CorpusError:
    """The error for a folder that does not hold the corpus: what was looked for, and what is there."""
    if not root.is_dir():
        return CorpusError(f"{root}: is not a folder; give the folder that holds {layout}")
    entries = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    shown = ", ".join(entries[:5]) + (f" and {len(entries) - 5} more" if len(entries) > 5 else "")
    return CorpusError(
        f"{root}: nothing of this corpus found; looked for {layout}; the folder holds {shown or 'nothing'}"
    )


def count_gaps(corpus: Corpus, published: Mapping[str, int]) -> list[str]:
    """Say where a corpus, as read, differs from its published counts.

    Args:
        corpus: before any relabelling or selection.
        published: utterances by what they share: an emotion (``"angry"``), ``"talker 07"``, ``"session 3"``,
            or ``"session 3, ang"``.

    Returns:
        One sentence a difference, in the order of ``published``.

    Example:
        >>> from serein.corpus.corpus import Utterance
        >>> corpus = Corpus("one", (Utterance("a", Path("a.wav"), talker="07", emotion="angry"),))
        >>> count_gaps(corpus, {"angry": 1, "talker 07": 60})
        ['talker 07: 1 of 60 utterances']
    """
    found = Counter(
        shared
        for u in corpus
        for shared in (
            u.emotion,
            f"talker {u.talker}",
            f"session {u.session}",
            f"session {u.session}, {u.emotion}",
        )
    )
    return [
        f"{shared}: {found[shared]} of {count} utterances"
        for shared, count in published.items()
        if found[shared] != count
    ]
