import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib import rcParams

from serein.evaluate import plots

LABELS = ["angry", "happy", "sad"]


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def random_history(epochs: int, steps: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(epochs)
    names = ("loss", "reconstruction", "pseudo_cross_entropy", "teacher_spread", "usage", "perplexity", "agreement")
    scores = np.where(np.arange(epochs * steps) % steps == steps - 1, 0.5, np.nan)
    columns = {"epoch": np.repeat(np.arange(epochs), steps).astype(float), "validation_ua": scores}
    return columns | {name: rng.random(epochs * steps) for name in names}


def clusters(size: int) -> tuple[np.ndarray, list[str]]:
    truth = [LABELS[index % 3] for index in range(size)]
    points = np.eye(3)[np.arange(size) % 3] + 0.05 * np.random.default_rng(0).normal(size=(size, 3))
    return points.astype(np.float32), truth


def test_the_confusion_matrix_says_percent_of_the_row_and_counts():
    svg = plots.confusion(np.array([[1500, 500, 0], [1, 2, 1], [0, 0, 0]]), LABELS)
    found = texts(svg)
    assert {"75", "1,500", "25", "50", *LABELS, "true", "predicted"} <= set(found)
    assert found.count("0") == 2 + 2 * 3 + 2 - 2  # percent and count of five empty cells, none of them undefined


def test_labels_are_shown_as_they_are_written():
    assert "a$b$ <c>" in texts(plots.confusion(np.eye(2, dtype=int), ["a$b$ <c>", "d"]))


def test_curves_of_folds_that_stop_at_different_epochs():
    svg = plots.learning_curves([random_history(2), random_history(6)])
    assert {"Training loss", "Validation UA (%)", "epochs done"} <= set(texts(svg))


def drawn_by(monkeypatch, draw, *arguments):
    """The lines of each part of a picture, as (x, y) by the part's title."""
    figures = []
    monkeypatch.setattr(plots.Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    draw(*arguments)
    (figure,) = figures
    return {
        axes.get_title(loc="left"): [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in axes.lines]
        for axes in figure.axes
    }


def test_curves_are_means_of_each_epochs_steps_and_the_validation_score_of_its_last(monkeypatch):
    history = random_history(2, steps=3)
    history["validation_ua"] = np.array([np.nan, np.nan, 0.25, np.nan, np.nan, 0.75])
    lines = drawn_by(monkeypatch, plots.learning_curves, [history])
    x, losses = lines["Training loss"][0]
    assert x == [1, 2]
    assert losses == pytest.approx([history["loss"][:3].mean(), history["loss"][3:].mean()])
    assert lines["Validation UA (%)"][0] == ([1, 2], [25.0, 75.0])


def test_a_single_epoch_is_a_point():
    assert "<use" in plots.learning_curves([random_history(1)])


def test_health_shows_every_sign_of_a_collapse():
    found = texts(plots.adapter_health([random_history(4), random_history(4)]))
    assert {"Reconstruction loss", "Teacher spread", "Share of attributes in use"} <= set(found)


def test_pictures_are_the_same_every_time_and_leave_matplotlib_as_it_was():
    before = dict(rcParams)
    points, truth = clusters(30)
    once, again = (plots.embedding_maps({"a": points, "b": points[:, :2]}, truth, LABELS, ["", ""]) for _ in range(2))
    assert once == again
    assert "<metadata>" not in once
    assert dict(rcParams) == before


def test_maps_name_spaces_remarks_and_labels():
    points, truth = clusters(30)
    spaces = {"Frozen encoder": points, "adapter $x$": points}
    found = texts(plots.embedding_maps(spaces, truth, LABELS, ["one", "two"]))
    assert {"Frozen encoder", "one", "adapter $x$", "two"} <= set(found)
    assert set(LABELS) <= set(found)


@pytest.mark.parametrize("spaces", [1, 2, 3, 4])
def test_all_maps_have_the_scale_of_the_widest(monkeypatch, spaces):
    drawn = []
    monkeypatch.setattr(plots, "_tsne", lambda points: points)  # the maps' places are those given
    monkeypatch.setattr(plots.Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    truth = ["angry", "happy", "sad", "sad"]
    square = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    widths = [2.0, 10.0, 1.0, 3.0][:spaces]
    maps = {str(number): 50 * number + width * square for number, width in enumerate(widths)}
    plots.embedding_maps(maps, truth, LABELS, [""] * spaces)
    (figure,) = drawn
    assert len(figure.axes) == spaces
    for axes, width in zip(figure.axes, widths, strict=True):
        places = np.concatenate([group.get_offsets() for group in axes.collections])
        np.testing.assert_allclose([places.min(), places.max()], [-width / 2, width / 2])
        assert axes.get_aspect() == 1
        assert axes.get_xlim() == axes.get_ylim() == pytest.approx((-0.53 * max(widths), 0.53 * max(widths)))


def test_a_map_of_very_many_utterances_shows_some_of_them(monkeypatch):
    monkeypatch.setattr(plots, "MOST_POINTS", 12)
    points, truth = clusters(40)
    svg = plots.embedding_maps({"a": points}, truth, LABELS, [""])
    assert svg.count("<use") == 12 + len(LABELS)  # and the legend


def test_more_labels_than_colours_still_differ_in_marker():
    looks = {(plots.PALETTE[i % 8], plots.MARKERS[(i + i // 8) % 8]) for i in range(40)}
    assert len(looks) == 40


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_fold_of_very_few_test_utterances_has_a_map_too(size):
    points, truth = clusters(size)
    assert "of few" in texts(plots.embedding_maps({"a": points}, truth, LABELS, ["of few"]))


@pytest.mark.parametrize("size", [3, 4, 12])
def test_a_space_of_one_point_is_drawn(size):
    svg = plots.embedding_maps({"dead": np.zeros((size, 5), np.float32)}, ["sad"] * size, LABELS, [""])
    assert svg.count("<use") >= size


def test_labels_in_any_letters_are_drawn_and_named():
    points, truth = clusters(9)
    labels = ["_angry", "怒り", "sad"]
    found = texts(plots.embedding_maps({"a": points}, [labels[LABELS.index(label)] for label in truth], labels, [""]))
    assert set(labels) < set(found)


def test_bars_name_every_property_and_the_baseline():
    found = texts(plots.information_bars(["talker", "a$b$"], [0.2, 0.1], [0.05, 0.1]))
    assert {"talker", "a$b$", "with the attributes", "shuffled (95 % quantile)"} <= set(found)


def test_usage_is_drawn_beside_an_even_share_also_where_attributes_are_never_used():
    found = texts(plots.usage_curve(np.array([0, 5, 95])))
    assert {"even share", "% of the frames", "10"} <= set(found)


@pytest.mark.parametrize("counts", [[1, 10, 5_000], [40, 50, 60], [7, 7, 7]])
def test_shares_of_any_range_have_numbers_at_their_axis_and_no_formulas(counts):
    axis = texts(plots.usage_curve(np.array(counts)))
    assert not [text for text in axis if "$" in text]
    shares = [100 * count / sum(counts) for count in counts]
    numbers = [float(text) for text in axis if text.replace(".", "", 1).isdigit()]
    assert any(min(shares) / 3 <= number <= max(shares) * 3 for number in numbers)
