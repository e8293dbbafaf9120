"""The pictures of a study."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from serein.evaluate.plots import ACCENT, LINE, MARKERS, PALETTE, QUIET, _as_svg
from serein.evaluate.statistics import Interval

Dot = tuple[float, Interval]
"""A value and its interval."""

Place = tuple[float, Dot]
"""A share of labels, above 0 and up to 1, and the value there."""

LINE_LENGTH = 32  # characters of a name; longer ones would leave the panels no room for their titles


@_as_svg
def dots(
    names: Sequence[str],
    scores: Sequence[Dot],
    differences: Sequence[Dot | None],
    *,
    against: int = 0,
    called: str = "the first",
) -> Figure:
    """UA of each variant, and its paired difference to one of them, from top to bottom as given.

    The intervals on the left are wide because talkers differ; those on the right are of the same talkers under both
    variants, and say whether a difference stands.

    Args:
        names: of the variants.
        scores: UA and its interval.
        differences: UA minus that one's; None where there is none, as for itself.
        against: its place.
        called: what it is called.
    """
    names = [textwrap.fill(name, LINE_LENGTH) for name in names]
    height = max(0.36, *(0.2 * len(name.splitlines()) for name in names))
    figure = Figure(figsize=(8.6, 1.2 + height * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _draw(left, scores, scores[against][0], "UA (%), 95 % interval")
    _draw(right, differences, 0.0, f"UA minus {called}'s, points, paired")
    left.set_yticks(np.arange(len(names)), names)
    left.set_ylim(len(names) - 0.5, -0.5)
    return figure


@_as_svg
def curves(scores: Mapping[str, Sequence[Place]], differences: Mapping[str, Sequence[Place]]) -> Figure:
    """UA of each series by its share of labels, and its paired difference to the first series with the same share.

    Args:
        scores: the places of each series by its name, from the smallest share to the largest.
        differences: the same series, each with the places where there is a difference; a panel of its own if any has.
    """
    is_compared = any(differences.values())
    figure = Figure(figsize=(8.6 if is_compared else 6.2, 3.5 + 0.2 * len(scores)), layout="constrained")
    figure.supxlabel("training labels that may be used (%)", size="medium", color=QUIET)
    left, *right = figure.subplots(1, 2 if is_compared else 1, squeeze=False, sharex=True).flat
    lines = _draw_curves(left, scores, "UA (%), 95 % interval")
    for axes in right:
        axes.axhline(0, color=QUIET, linewidth=0.9, linestyle="--")
        _draw_curves(axes, differences, "UA minus the first's, points, paired")
    shares = sorted({share for places in scores.values() for share, _ in places})
    left.set_xscale("log")
    left.set_xticks(shares, [f"{100 * share:g}" for share in shares])
    left.xaxis.set_minor_locator(NullLocator())
    # named here, since Matplotlib leaves out what begins with "_"
    figure.legend(lines, scores, loc="outside upper left", frameon=False)
    return figure


def _draw(axes: Axes, dots: Sequence[Dot | None], reference: float, title: str) -> None:
    axes.axvline(100 * reference, color=QUIET, linewidth=0.9, linestyle="--")
    for place, dot in enumerate(dots):
        if dot is not None:
            value, interval = dot
            axes.plot([100 * interval.low, 100 * interval.high], [place, place], color="#9fb3c8", linewidth=2.4)
            axes.plot([100 * value], [place], color=ACCENT, marker="o", markersize=6)
    axes.set_title(title)
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)


def _draw_curves(axes: Axes, series: Mapping[str, Sequence[Place]], title: str) -> list[Line2D]:
    lines = []
    for index, places in enumerate(series.values()):
        # side by side, or intervals would hide one another
        shift = 1.05 ** (index - (len(series) - 1) / 2)
        shares = [share * shift for share, _ in places]
        colour, marker = PALETTE[index % 8], MARKERS[(index + index // 8) % 8]
        for share, (_, (_, interval)) in zip(shares, places, strict=True):
            axes.plot([share, share], [100 * interval.low, 100 * interval.high], color=colour, linewidth=1.2, alpha=0.6)
        values = [100 * value for _, (value, _) in places]
        lines += axes.plot(shares, values, color=colour, marker=marker, markersize=6, linewidth=1.8)
    axes.set_title(title)
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    return lines
