"""The picture of a study."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from serein.evaluate.plots import ACCENT, LINE, QUIET, _as_svg
from serein.evaluate.statistics import Interval

Dot = tuple[float, Interval]
"""A value and its interval."""


@_as_svg
def dots(names: Sequence[str], scores: Sequence[Dot], differences: Sequence[Dot | None]) -> Figure:
    """UA of each variant, and its paired difference to the first, from top to bottom as given.

    The intervals on the left are wide because talkers differ; those on the right are of the same talkers under both
    variants, and say whether a difference stands.

    Args:
        names: of the variants.
        scores: UA and its interval.
        differences: UA minus the first's; None where there is none, as for the first itself.
    """
    figure = Figure(figsize=(8.6, 1.2 + 0.36 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _draw(left, scores, scores[0][0], "UA (%), 95 % interval")
    _draw(right, differences, 0.0, "UA minus the first's, points, paired")
    left.set_yticks(np.arange(len(names)), names)
    left.set_ylim(len(names) - 0.5, -0.5)
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
