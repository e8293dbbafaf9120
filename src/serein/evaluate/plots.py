"""The pictures of a report, each a function from plain values to an SVG that is the same every time."""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from textwrap import fill
from typing import Any, ParamSpec
from warnings import catch_warnings, filterwarnings

import numpy as np
from jaxtyping import Float, Int
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogFormatter, MaxNLocator

INK, QUIET, LINE, ACCENT = "#1f2933", "#66727f", "#d5dbe1", "#0072B2"
# Okabe and Ito's colours, which colour-blind people can tell apart; grey for black, yellow last (faint on white)
PALETTE = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7f7f7f", "#F0E442")
MARKERS = "os^DvPX*"
MOST_POINTS = 2_000

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, sharp, and found by a search
    "svg.hashsalt": "serein",
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # labels are the user's words, a $ in them is a $
    "axes.edgecolor": LINE,
    "axes.labelcolor": QUIET,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "xtick.color": QUIET,
    "ytick.color": QUIET,
}
_HEALTH = {
    "reconstruction": "Reconstruction loss",
    "pseudo_cross_entropy": "Pseudo-label cross-entropy",
    "teacher_spread": "Teacher spread",
    "usage": "Share of attributes in use",
    "perplexity": "Perplexity / attributes",
    "agreement": "Student agrees with teacher",
}

History = Mapping[str, np.ndarray]
_Arguments = ParamSpec("_Arguments")


def _as_svg(draw: Callable[_Arguments, Figure]) -> Callable[_Arguments, str]:
    @wraps(draw)
    def svg(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> str:
        text = io.StringIO()
        with rc_context(_STYLE), catch_warnings():
            # the letters stay text in the SVG, and whoever looks at it has the font
            filterwarnings("ignore", message="Glyph .* missing from font")
            draw(*args, **kwargs).savefig(
                text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
            )
        return text.getvalue()

    return svg


@_as_svg
def confusion(counts: Int[np.ndarray, "labels labels"], labels: Sequence[str]) -> Figure:
    """Each true label's row in percent of the row, with the counts below."""
    size = len(labels)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(2.2 + 0.72 * size, 1.3 + 0.6 * size), layout="constrained")
    axes = figure.subplots()
    blues = LinearSegmentedColormap.from_list("blues", ["#f4f7fa", ACCENT])
    axes.pcolormesh(shares, cmap=blues, vmin=0, vmax=1, edgecolors="white", linewidth=2)
    axes.invert_yaxis()
    for row, column in np.ndindex(size, size):
        colour = "white" if shares[row, column] > 0.7 else INK
        percent = f"{100 * shares[row, column]:.0f}"
        axes.text(column + 0.5, row + 0.4, percent, ha="center", va="center", color=colour, weight="bold")
        axes.text(
            column + 0.5, row + 0.74, f"{counts[row, column]:,}", ha="center", va="center", color=colour, size=7.5
        )
    middles = np.arange(size) + 0.5
    axes.set_xticks(middles, labels, rotation=35 if size > 5 else 0, ha="right" if size > 5 else "center")
    axes.set_yticks(middles, labels)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="predicted", ylabel="true")
    return figure


@_as_svg
def learning_curves(histories: Sequence[History]) -> Figure:
    """Training loss and validation UA by epoch: a thin line a fold and seed, a thick one for their mean."""
    figure = Figure(figsize=(8.6, 2.9), layout="constrained")
    figure.supxlabel("epochs done", size="medium", color=QUIET)
    left, right = figure.subplots(1, 2)
    _draw_epochs(left, [_by_epoch(history, "loss") for history in histories], "Training loss")
    scores = [_by_epoch(history, "validation_ua") for history in histories]
    _draw_epochs(right, [(epochs, 100 * ua) for epochs, ua in scores], "Validation UA (%)")
    return figure


@_as_svg
def adapter_health(histories: Sequence[History]) -> Figure:
    """Loss parts and signs of a collapse by epoch: a thin line a fold and seed, a thick one for the mean."""
    figure = Figure(figsize=(8.6, 4.9), layout=ConstrainedLayoutEngine(hspace=0.1))
    figure.supxlabel("epochs done", size="medium", color=QUIET)
    for axes, (column, title) in zip(figure.subplots(2, 3, sharex=True).flat, _HEALTH.items(), strict=True):
        _draw_epochs(axes, [_by_epoch(history, column) for history in histories], title)
        if column in ("usage", "perplexity", "agreement"):
            axes.set_ylim(0, 1.03)
    return figure


@_as_svg
def embedding_maps(
    embeddings: Mapping[str, Float[np.ndarray, "utterances _"]],
    truth: Sequence[str],
    labels: Sequence[str],
    remarks: Sequence[str],
) -> Figure:
    """t-SNE (cosine distance) of the same utterances in each space, coloured by their true labels.

    All panels have one scale. Of more than 2,000 utterances, 2,000 are drawn by chance (always the same ones).

    Args:
        embeddings: the points, by the space's name.
        truth: the true label of each utterance.
        labels: in the order of the legend.
        remarks: what stands below each space's name.
    """
    truths = np.array(truth)
    shown = np.arange(len(truths))
    if len(shown) > MOST_POINTS:
        shown = np.sort(np.random.default_rng(0).choice(len(shown), MOST_POINTS, replace=False))
    places = [_centred(_tsne(points[shown])) for points in embeddings.values()]
    reach = 1.06 * max(float(np.abs(of_space).max()) for of_space in places) or 1.0  # a single point has no extent
    rows = 2 if len(embeddings) == 4 else 1  # four side by side would be small on a page
    columns = len(embeddings) // rows
    figure = Figure(figsize=(4.3 * columns, 0.4 + 4.7 * rows), layout="compressed")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    dots: dict[str, PathCollection] = {}
    for axes, name, of_space, remark in zip(panels, embeddings, places, remarks, strict=True):
        for index, label in enumerate(labels):
            of_label = of_space[truths[shown] == label]
            style = {"color": PALETTE[index % 8], "marker": MARKERS[(index + index // 8) % 8]}
            dots[label] = axes.scatter(*of_label.T, s=24, linewidths=0.3, edgecolors="white", **style)
        axes.set_title(f"{fill(name, 52)}\n{remark}")
        axes.set(xticks=[], yticks=[], xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axes.spines[:].set_visible(True)
    # named here, since Matplotlib leaves out what begins with "_"
    figure.legend(dots.values(), dots, loc="outside lower center", ncols=min(len(labels), 4 * columns), frameon=False)
    return figure


@_as_svg
def information_bars(names: Sequence[str], nmi: Sequence[float], by_chance: Sequence[float]) -> Figure:
    """Normalised mutual information of each property, above its baseline."""
    figure = Figure(figsize=(7.2, 1.1 + 0.5 * len(names)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(names))
    axes.barh(places - 0.19, nmi, 0.36, color=ACCENT, label="with the attributes")
    axes.barh(places + 0.19, by_chance, 0.36, color="#9fb3c8", label="shuffled (95 % quantile)")
    axes.set_yticks(places, names)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set(xlabel="normalised mutual information")
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure


@_as_svg
def usage_curve(counts: Int[np.ndarray, " attributes"]) -> Figure:
    """Percent of the frames that each attribute gets, from the most used to the least, beside an even share."""
    shares = 100 * np.sort(counts)[::-1] / counts.sum()
    figure = Figure(figsize=(7.2, 2.9), layout="constrained")
    axes = figure.subplots()
    axes.step(np.arange(1, len(shares) + 1), np.where(shares > 0, shares, np.nan), where="mid", color=ACCENT)
    axes.axhline(100 / len(shares), color=QUIET, linewidth=0.9, linestyle="--", label="even share")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")  # the usual one writes powers as formulas, which the style forbids
    axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False))
    axes.set_xlim(0.5, len(shares) + 0.5)
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    axes.set(xlabel="attributes, the most used first", ylabel="% of the frames")
    axes.legend(frameon=False)
    return figure


def _tsne(points: Float[np.ndarray, "utterances width"]) -> Float[np.ndarray, "utterances 2"]:
    # too few for neighbours, or all in one place, on which scikit-learn's tree of points crashes the process
    if len(points) < 3 or not np.ptp(points, axis=0).any():
        return points[:, :2]
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    perplexity = min(30.0, max(1.0, (len(points) - 1) / 3))
    projection = TSNE(perplexity=perplexity, metric="cosine", init="pca", random_state=0)
    with threadpool_limits(1):  # sums over several threads differ in the last digit, and t-SNE makes that a new picture
        return np.asarray(projection.fit_transform(points))


def _centred(places: Float[np.ndarray, "utterances 2"]) -> Float[np.ndarray, "utterances 2"]:
    """Around the middle of their extent: where t-SNE puts the origin says nothing."""
    return np.asarray(places - (places.min(0) + places.max(0)) / 2)


def _by_epoch(history: History, column: str) -> tuple[np.ndarray, np.ndarray]:
    known = ~np.isnan(history[column])
    epochs, position = np.unique(history["epoch"][known], return_inverse=True)
    return epochs, np.bincount(position, history[column][known]) / np.bincount(position)


def _draw_epochs(axes: Axes, lines: Sequence[tuple[np.ndarray, np.ndarray]], title: str) -> None:
    for epochs, values in lines:
        axes.plot(epochs + 1, values, color="#9fb3c8", linewidth=0.8)
    # folds may stop at different epochs; a mean over those that are left would jump
    shared = min(len(epochs) for epochs, _ in lines)
    mean = np.mean([values[:shared] for _, values in lines], axis=0)
    axes.plot(lines[0][0][:shared] + 1, mean, color=ACCENT, linewidth=2, marker="o" if shared < 3 else None)
    axes.set_title(title)
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
