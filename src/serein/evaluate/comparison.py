"""Which of several systems are better than others, and which cannot be told apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isnan, nan
from typing import Any

from serein.evaluate.remarks import remarks
from serein.evaluate.runs import Run, distinct_names
from serein.evaluate.significance import holm
from serein.evaluate.statistics import Interval
from serein.evaluate.summary import Difference, compare

THRESHOLD = 0.05
HEADER = ("System", "Against", "Verdict", "UA difference", "p", "p (Holm)", "p (McNemar)")
TEXT_COLUMNS = 3


@dataclass(frozen=True)
class Comparison:
    """One system against another.

    Attributes:
        system: the name of the one.
        against: the name of the other.
        difference: scores of the one minus those of the other; None where their protocols differ.
        holm_p: ``difference.p``, adjusted for all the comparisons that were made; nan where that is undefined.
        protocol: name and hash; of both where they differ.
        remarks: what makes a score of the two mean less (:func:`serein.evaluate.remarks.remarks`), after the
            name of the system.
    """

    system: str
    against: str
    difference: Difference | None
    holm_p: float
    protocol: str
    remarks: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """What may be said, in a sentence."""
        if self.difference is None:
            return "not comparable: another protocol"
        if isnan(self.holm_p):
            return "unknown: one talker tells nothing of others"
        if self.holm_p >= THRESHOLD:
            return f"{self.system} and {self.against} cannot be told apart"
        better, worse = (self.system, self.against)[:: 1 if self.difference.scores.ua > 0 else -1]
        return f"{better} is better than {worse}"


def compare_all(runs: Sequence[Run], *, all_pairs: bool = False) -> list[Comparison]:
    """Every later run against the first, or against every earlier one.

    Raises:
        CorpusError: see `serein.evaluate.summary.compare`.
    """
    names = distinct_names(runs)
    protocols = [f"{run.protocol.name} ({run.protocol.hash})" for run in runs]
    remarked = [[f"{name}: {remark}" for remark in remarks(run)] for name, run in zip(names, runs, strict=True)]
    pairs = [(after, before) for before, after in combinations(range(len(runs)), 2) if all_pairs or before == 0]
    differences = [compare(runs[system], runs[against]) for system, against in pairs]
    adjusted = holm([found.p if found else nan for found in differences])
    return [
        Comparison(
            names[system], names[against], difference, holm_p,
            protocol=" and ".join(dict.fromkeys(protocols[run] for run in (system, against))),
            remarks=(*remarked[system], *remarked[against]),
        )
        for (system, against), difference, holm_p in zip(pairs, differences, adjusted, strict=True)
    ]  # fmt: skip


def comparison_table(comparisons: Sequence[Comparison]) -> list[list[str]]:
    """A header, then a row a comparison; the first `TEXT_COLUMNS` are words, the others numbers."""
    return [list(HEADER)] + [_row(comparison) for comparison in comparisons]


def as_document(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON has it; what is undefined is null."""
    found = comparison.difference
    numbers = {
        "ua_difference": found.scores.ua if found else nan,
        "low": found.intervals.ua.low if found else nan,
        "high": found.intervals.ua.high if found else nan,
        "p": found.p if found else nan,
        "holm_p": comparison.holm_p,
        "mcnemar_p": found.mcnemar_p if found else nan,
    }
    return {
        "system": comparison.system,
        "against": comparison.against,
        **{name: None if isnan(number) else number for name, number in numbers.items()},
        "verdict": comparison.verdict,
        "protocol": comparison.protocol,
        "remarks": list(comparison.remarks),
    }


def title(comparisons: Sequence[Comparison]) -> str:
    """What stands above a table of comparisons: the protocols, and what to know beside the scores, a line each."""
    protocols = dict.fromkeys(f"protocol {found.protocol}" for found in comparisons)
    remarked = dict.fromkeys(said for found in comparisons for said in found.remarks)
    return "\n".join(["Differences in UA, in points [95 % interval]", *protocols, *remarked])


def in_points(difference: float, interval: Interval) -> str:
    """A difference of scores with its 95 % interval, in points of a percent."""
    return f"{100 * difference:+.1f} [{ends(interval, '+.1f', ', ')}]"


def ends(interval: Interval, form: str = ".1f", between: str = " to ") -> str:
    """Both ends in percent."""
    low, high = (f"{100 * end:{form}}" for end in (interval.low, interval.high))
    return "unknown" if isnan(interval.low) else f"{low}{between}{high}"


def in_thousandths(p: float) -> str:
    """Three decimals; smaller ones say nothing more, but are cut off where rounding would hide what p decides.

    Example:
        >>> in_thousandths(0.0123), in_thousandths(0.0004), in_thousandths(0.0497)
        ('0.012', '< 0.001', '0.049')
    """
    if isnan(p):
        return "unknown"
    rounded = round(p, 3)
    if p < THRESHOLD <= rounded:
        rounded = THRESHOLD - 0.001
    return "< 0.001" if p < 0.001 else f"{rounded:.3f}"


def _row(comparison: Comparison) -> list[str]:
    found = comparison.difference
    words = [comparison.system, comparison.against, comparison.verdict]
    if found is None:
        return [*words, "", "", "", ""]
    difference = in_points(found.scores.ua, found.intervals.ua)
    return [*words, difference, *map(in_thousandths, (found.p, comparison.holm_p, found.mcnemar_p))]
