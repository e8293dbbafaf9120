"""One pass over a corpus's recordings: which are broken, how long the others last, and which are the same."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from serein.corpus.corpus import Corpus, Utterance
from serein.errors import AudioError, CorpusError
from serein.frames.audio import audio_hash, decode
from serein.progress import Report, quiet


@dataclass(frozen=True, slots=True)
class BrokenFile:
    """An utterance whose recording cannot be used, and why."""

    id: str
    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Scan:
    """What a pass over the recordings found.

    Attributes:
        corpus: the utterances that can be used, in their order, with ``seconds`` and ``audio_hash`` measured.
        broken: the others, in their order.
        warnings: by utterance id, what was mended in a usable recording; no entry where nothing was.
    """

    corpus: Corpus
    broken: tuple[BrokenFile, ...]
    warnings: Mapping[str, tuple[str, ...]]

    def as_dict(self) -> dict[str, Any]:
        """What was broken and what was mended, as JSON can hold it."""
        broken = [{"id": file.id, "path": str(file.path), "reason": file.reason} for file in self.broken]
        return {"broken": broken, "mended": dict(self.warnings)}


def scan_audio(corpus: Corpus, *, workers: int | None = None, report: Report = quiet) -> Scan:
    """Decode every recording once and keep what it says, not its samples.

    A broken file costs nothing but itself, unless all are broken. Memory holds one recording a worker.

    Args:
        corpus: what to scan; it is not changed.
        workers: threads (libsndfile decodes outside Python's lock); None: one a processor, 8 at most.
        report: called after each recording, with how many were ``broken`` so far.

    Raises:
        CorpusError: no recording can be used; the first is named, with what is wrong.
    """
    usable: list[Utterance] = []
    broken: list[BrokenFile] = []
    warnings: dict[str, tuple[str, ...]] = {}
    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        for done, (found, warned) in enumerate(pool.map(_scan, corpus), start=1):
            if isinstance(found, BrokenFile):
                broken.append(found)
            else:
                usable.append(found)
                if warned:
                    warnings[found.id] = warned
            report("scan", done, len(corpus), {"broken": len(broken)})
    if broken and not usable:
        first = broken[0]
        said = f"none of the {len(broken)} recordings can be used; the first is {first.id}: {first.reason}"
        raise CorpusError(f"corpus {corpus.name}: {said}")
    return Scan(replace(corpus, utterances=tuple(usable)), tuple(broken), warnings)


def _scan(utterance: Utterance) -> tuple[Utterance | BrokenFile, tuple[str, ...]]:
    try:
        sound = decode(utterance.path)
    except AudioError as error:
        return BrokenFile(utterance.id, utterance.path, str(error)), ()
    return replace(utterance, seconds=sound.seconds, audio_hash=audio_hash(sound.samples)), sound.warnings
