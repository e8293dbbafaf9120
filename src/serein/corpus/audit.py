"""What a corpus holds, and what in it would make a score doubtful."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from serein.corpus.corpus import Corpus, Utterance

FEW = 10
"""Fewer utterances of a class than this are warned of: each moves its recall by more than ten points."""


@dataclass(frozen=True)
class Audit:
    """The findings of ``audit``.

    Attributes:
        corpus: its name.
        utterances: how many, labelled or not.
        unlabelled: how many have no emotion.
        labels: the emotions, sorted.
        talkers: sorted.
        sessions: sorted; empty where the corpus has none.
        counts: labelled utterances by talker and emotion, with every pair in it.
        seconds: length of the whole; None where the length of some utterance is unknown.
        seconds_by_emotion: likewise for each emotion.
        duplicates: groups of ids whose decoded audio is identical, as far as hashes are known.
        warnings: sentences about what weakens a score.
        errors: sentences about what makes the corpus unfit to judge a recognizer with; of one that has no label at
            all, which nobody means for that, a warning says so.
    """

    corpus: str
    utterances: int
    unlabelled: int
    labels: tuple[str, ...]
    talkers: tuple[str, ...]
    sessions: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    seconds: float | None
    seconds_by_emotion: dict[str, float | None]
    duplicates: tuple[tuple[str, ...], ...]
    warnings: tuple[str, ...]
    errors: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The findings as JSON can hold them."""
        return asdict(self)


def audit(corpus: Corpus) -> Audit:
    """Count a corpus and look for what would make a score doubtful.

    Example:
        >>> from pathlib import Path
        >>> found = audit(Corpus("toy", (Utterance("a", Path("a.wav"), "F1", "sad", seconds=2.0),)))
        >>> found.counts, found.seconds
        ({'F1': {'sad': 1}}, 2.0)
        >>> for error in found.errors:
        ...     print(error)
        Fewer than two labelled talkers (F1): nobody can be tested who did not also train.
        Fewer than two emotions (sad): there is nothing to tell apart.
    """
    counted = Counter((u.talker, u.emotion) for u in corpus)
    labels = corpus.labels
    counts = {talker: {label: counted[talker, label] for label in labels} for talker in corpus.talkers}
    labelled = {talker: row for talker, row in counts.items() if any(row.values())}
    copies = _copies(corpus)
    return Audit(
        corpus=corpus.name,
        utterances=len(corpus),
        unlabelled=sum(not u.emotion for u in corpus),
        labels=labels,
        talkers=corpus.talkers,
        sessions=tuple(sorted({u.session for u in corpus} - {""})),
        counts=counts,
        seconds=_seconds(corpus),
        seconds_by_emotion={label: _seconds(u for u in corpus if u.emotion == label) for label in labels},
        duplicates=tuple(tuple(u.id for u in group) for group in copies),
        warnings=(
            *_label_warnings(labels),
            *_session_warnings(corpus),
            *_count_warnings(labelled, labels),
            *_copy_warnings(copies),
        ),
        errors=tuple(_errors(labelled, labels)) if labels or not corpus.utterances else (),
    )


def _seconds(utterances: Iterable[Utterance]) -> float | None:
    total = 0.0
    for utterance in utterances:
        if utterance.seconds is None:
            return None
        total += utterance.seconds
    return total


def _copies(corpus: Corpus) -> list[list[Utterance]]:
    """Groups of utterances with the same audio."""
    by_hash = defaultdict(list)
    for utterance in corpus:
        if utterance.audio_hash:
            by_hash[utterance.audio_hash].append(utterance)
    return [group for group in by_hash.values() if len(group) > 1]


def _errors(talkers: Collection[str], labels: Collection[str]) -> Iterator[str]:
    if len(talkers) < 2:
        yield f"Fewer than two labelled talkers{_some(talkers)}: nobody can be tested who did not also train."
    if len(labels) < 2:
        yield f"Fewer than two emotions{_some(labels)}: there is nothing to tell apart."


def _label_warnings(labels: Collection[str]) -> Iterator[str]:
    if not labels:
        yield "No utterance has an emotion: for adapter training only (`serein adapt`, --unlabelled)."


def _session_warnings(corpus: Corpus) -> Iterator[str]:
    without = [u.id for u in corpus if not u.session]
    if len(without) == len(corpus):
        yield "No sessions: the protocols that leave a session out cannot be made; use talkers or talkers-5."
    elif without:
        yield f"No session is given for {len(without)} of {len(corpus)} utterances{_some(without)}."


def _count_warnings(counts: Mapping[str, Mapping[str, int]], labels: Collection[str]) -> Iterator[str]:
    """``counts`` are those of the labelled talkers."""
    if len(counts) == 2:
        yield "Two labelled talkers: while one trains and one is tested, nobody is left to validate."
    for label in labels:
        total = sum(row[label] for row in counts.values())
        if total < FEW:
            yield f"Emotion {label}: fewer than {FEW} utterances ({total}), so its recall is coarse."
        lacking = [talker for talker, row in counts.items() if not row[label]]
        if lacking:
            yield (
                f"Emotion {label}: {len(lacking)} of {len(counts)} talkers never show it{_some(lacking)}; "
                "a fold that tests only them says nothing about it."
            )


def _copy_warnings(copies: Collection[Collection[Utterance]]) -> Iterator[str]:
    for group in copies:
        ids = _some([u.id for u in group])
        if len(labels := sorted({u.emotion for u in group} - {""})) > 1:
            yield f"The same audio{ids} stands under {len(labels)} emotions{_some(labels)}."
        if len(talkers := sorted({u.talker for u in group})) > 1:
            yield f"The same audio{ids} stands under {len(talkers)} talkers{_some(talkers)}, a leak."


def _some(names: Collection[str]) -> str:
    """The first names in brackets, after a space; nothing where there are none."""
    shown = [*names][:4] + ["..."] * (len(names) > 4)
    return f" ({', '.join(shown)})" if names else ""
