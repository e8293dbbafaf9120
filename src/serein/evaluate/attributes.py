"""What local attributes carry: how many are used, and what they share with all that is known of the frames."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from serein.corpus.corpus import Utterance

SILENT = 30.0  # dB below the loudest frame of the utterance (a thirtieth of its amplitude)
PARTS = 5  # of an utterance, and of the corpus's frames by loudness

_Codes = Int[np.ndarray, " total"]
_Shuffle = Callable[[np.random.Generator], _Codes]


@dataclass(frozen=True)
class KnownFrames:
    """The frames of a corpus, utterance after utterance, and what is known of each.

    Attributes:
        utterances: whose frames they are.
        lengths: frames of each utterance.
        frame_rate: frames a second.
        attributes: K, how many attributes there are.
        assignments: the nearest attribute of each frame.
        distances: squared distance to it.
        decibels: energy.
        voiced: whether a voice sounds in it.
    """

    utterances: tuple[Utterance, ...]
    lengths: Int[np.ndarray, " utterances"]
    frame_rate: float
    attributes: int
    assignments: Int[np.ndarray, " total"]
    distances: Float[np.ndarray, " total"]
    decibels: Float[np.ndarray, " total"]
    voiced: Bool[np.ndarray, " total"]

    @property
    def counts(self) -> Int[np.ndarray, " attributes"]:
        """Frames of each attribute."""
        return np.bincount(self.assignments, minlength=self.attributes)


class Usage(NamedTuple):
    """How evenly the attributes share the frames; as training says it (`serein.nn.attributes.AttributeHealth`).

    Attributes:
        usage: share of the attributes that get at least a tenth of their even share, in [0, 1].
        perplexity: exp of the entropy of the assignments, over K, in [1/K, 1]; 1 = all are used alike.
    """

    usage: float
    perplexity: float


class Information(NamedTuple):
    """What attributes tell of one property of the frames.

    Attributes:
        name: of the property.
        values: how many values it takes.
        frames: frames for which it is known.
        nmi: normalised mutual information of attribute and property.
        ceiling: the highest value that two such distributions allow.
        shuffled_mean: mean of ``nmi`` where the property is put on other frames by chance.
        shuffled_high: its 95 % quantile.
    """

    name: str
    values: int
    frames: int
    nmi: float
    ceiling: float
    shuffled_mean: float
    shuffled_high: float


class NearestFrame(NamedTuple):
    """A frame that is close to an attribute.

    Attributes:
        utterance: where it is.
        seconds: its middle.
        distance: squared, to the attribute.
    """

    utterance: Utterance
    seconds: float
    distance: float


def usage(counts: Int[np.ndarray, " attributes"]) -> Usage:
    """Usage and perplexity, of the frames that each attribute gets.

    Example:
        >>> usage(np.array([9, 0]))
        Usage(usage=0.5, perplexity=0.5)
    """
    shares = counts / counts.sum()
    return Usage(float((shares * len(counts) >= 0.1).mean()), float(np.exp(_entropy(counts))) / len(counts))


def normalised_mutual_information(first: Int[np.ndarray, " total"], second: Int[np.ndarray, " total"]) -> float:
    """I(first; second) / ((H(first) + H(second)) / 2), in [0, 1]; nan where neither ever varies.

    Args:
        first: one code a frame, from 0 up.
        second: likewise.

    Example:
        >>> normalised_mutual_information(np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]))
        1.0
        >>> normalised_mutual_information(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
        0.0
    """
    one, other = _entropy(np.bincount(first)), _entropy(np.bincount(second))
    if not one + other:
        return float("nan")
    both = _entropy(np.bincount(first * (int(second.max()) + 1) + second))
    return max(0.0, 2 * (one + other - both) / (one + other))


def information(frames: KnownFrames, *, shuffles: int = 100, seed: int = 0) -> list[Information]:
    """What the attributes share with emotion, talker, gender, text, loudness, voicing and position.

    Many attributes tell something of any label by chance, so each number has its baseline. Emotion, talker, gender and
    text are shuffled over utterances: the frames of one utterance stay together. What is the same in all utterances of
    a talker, as gender is, is shuffled over talkers: attributes that know voices tell any two groups of them apart.
    Loudness, voicing and position are taken from other utterances, in their order in time, from a random frame on.

    A property that takes one value only, or another one in every utterance, says nothing and is left out.

    Args:
        frames: all frames.
        shuffles: how often to shuffle.
        seed: of the shuffles.
    """
    return [_against_chance(*known, shuffles, seed) for known in _properties(frames)]


def shuffled(
    codes: Int[np.ndarray, " utterances"], lengths: Int[np.ndarray, " utterances"], random: np.random.Generator
) -> Int[np.ndarray, " total"]:
    """The code of another utterance, drawn by chance, for all frames of each utterance.

    Example:
        >>> shuffled(np.array([7, 8]), np.array([3, 2]), np.random.default_rng(3))
        array([8, 8, 8, 7, 7])
    """
    return np.repeat(random.permutation(codes), lengths)


def shuffled_over_talkers(
    codes: Int[np.ndarray, " utterances"],
    talkers: Int[np.ndarray, " utterances"],
    lengths: Int[np.ndarray, " utterances"],
    random: np.random.Generator,
) -> Int[np.ndarray, " total"]:
    """The code of another talker, drawn by chance, for all frames of each talker.

    Args:
        codes: of each utterance, the same in all of a talker's.
        talkers: a number for each talker, from 0 up.
        lengths: frames of each utterance.
        random: draws.

    Example:
        >>> codes, talkers = np.array([7, 8, 7]), np.array([0, 1, 0])
        >>> shuffled_over_talkers(codes, talkers, np.array([1, 2, 1]), np.random.default_rng(3))
        array([8, 7, 7, 8])
    """
    of_talker = codes[np.unique(talkers, return_index=True)[1]]
    return np.repeat(random.permutation(of_talker)[talkers], lengths)


def displaced(
    codes: Int[np.ndarray, " total"], lengths: Int[np.ndarray, " utterances"], random: np.random.Generator
) -> Int[np.ndarray, " total"]:
    """The codes of the utterances in random order, each begun at a random frame and followed by what came before it.

    Neighbours stay neighbours, so that a code that changes slowly still does.

    Example:
        >>> displaced(np.array([0, 1, 2, 3, 10, 11]), np.array([4, 2]), np.random.default_rng(0))
        array([ 2,  3,  0,  1, 11, 10])
    """
    order = random.permutation(len(lengths))
    starts, lengths = (np.cumsum(lengths) - lengths)[order], lengths[order]
    begun = random.integers(lengths)
    position = np.arange(len(codes)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    rows = np.repeat(starts, lengths) + (position + np.repeat(begun, lengths)) % np.repeat(lengths, lengths)
    return np.asarray(codes[rows])


def most_used(counts: Int[np.ndarray, " attributes"], most: int) -> list[int]:
    """The attributes with the most frames, those first; none without any.

    Example:
        >>> most_used(np.array([3, 0, 9]), 3)
        [2, 0]
    """
    order = np.argsort(-counts, kind="stable")[:most]
    return [int(attribute) for attribute in order if counts[attribute]]


def nearest(frames: KnownFrames, attribute: int, most: int) -> list[NearestFrame]:
    """The frames closest to an attribute among those that it gets, at most one a talker, the closest first."""
    mine = np.flatnonzero(frames.assignments == attribute)
    mine = mine[np.argsort(frames.distances[mine], kind="stable")]
    ends = np.cumsum(frames.lengths)
    owners = np.searchsorted(ends, mine, side="right")
    talkers = np.array([utterance.talker for utterance in frames.utterances])[owners]
    chosen = np.sort(np.unique(talkers, return_index=True)[1])[:most]
    return [
        NearestFrame(
            frames.utterances[owner],
            (float(frame - ends[owner] + frames.lengths[owner]) + 0.5) / frames.frame_rate,
            float(frames.distances[frame]),
        )
        for frame, owner in zip(mine[chosen].tolist(), owners[chosen].tolist(), strict=True)
    ]


def _properties(frames: KnownFrames) -> Iterator[tuple[str, _Codes, _Codes, _Shuffle]]:
    """Name, attributes and codes of the frames for which it is known, and how to put the codes on other frames."""
    every_talker = np.array([utterance.talker for utterance in frames.utterances])
    for name, values in (
        ("emotion", [utterance.emotion for utterance in frames.utterances]),
        ("talker", [utterance.talker for utterance in frames.utterances]),
        ("gender", [utterance.extra.get("gender", "") for utterance in frames.utterances]),
        ("text", [utterance.text for utterance in frames.utterances]),
    ):
        known = np.array([value != "" for value in values])
        different, codes = np.unique(np.array(values)[known], return_inverse=True)
        if 1 < len(different) < len(codes):
            lengths = frames.lengths[known]
            assignments = frames.assignments[np.repeat(known, frames.lengths)]
            talkers = np.unique(every_talker[known], return_inverse=True)[1]
            pairs = len(np.unique(np.stack([talkers, codes]), axis=1).T)
            shuffle = partial(shuffled, codes, lengths)
            if len(different) < pairs == talkers.max() + 1:  # a talker has one value, and several talkers share it
                shuffle = partial(shuffled_over_talkers, codes, talkers, lengths)
            yield name, assignments, np.repeat(codes, lengths), shuffle
    for name, codes in _of_frames(frames).items():
        if len(np.unique(codes)) > 1:
            yield name, frames.assignments, codes, partial(displaced, codes, frames.lengths)


def _of_frames(frames: KnownFrames) -> dict[str, Int[np.ndarray, " total"]]:
    lengths = frames.lengths
    starts = np.cumsum(lengths) - lengths
    loudest = np.maximum.reduceat(frames.decibels, starts)
    silent = frames.decibels < np.repeat(loudest, lengths) - SILENT
    edges = np.quantile(frames.decibels, np.arange(1, PARTS) / PARTS)
    position = np.arange(len(frames.decibels)) - np.repeat(starts, lengths)
    return {
        "loudness": np.searchsorted(edges, frames.decibels, side="right"),
        "voicing": np.where(silent, 0, np.where(frames.voiced, 2, 1)),
        "position": position * PARTS // np.repeat(lengths, lengths),
    }


def _against_chance(
    name: str, assignments: _Codes, codes: _Codes, shuffle: _Shuffle, shuffles: int, seed: int
) -> Information:
    random = np.random.default_rng(seed)
    by_chance = [normalised_mutual_information(assignments, shuffle(random)) for _ in range(shuffles)]
    one, other = _entropy(np.bincount(assignments)), _entropy(np.bincount(codes))
    return Information(
        name=name,
        values=len(np.unique(codes)),
        frames=len(codes),
        nmi=normalised_mutual_information(assignments, codes),
        ceiling=2 * min(one, other) / (one + other),
        shuffled_mean=float(np.mean(by_chance)),
        shuffled_high=float(np.quantile(by_chance, 0.95)),
    )


def _entropy(counts: Int[np.ndarray, " codes"]) -> float:
    """In nats."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())
