import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html import unescape
from math import nan
from pathlib import Path

import numpy as np
import pytest

from serein.errors import CorpusError
from serein.evaluate import study_plots
from serein.evaluate.runs import load_run
from serein.evaluate.significance import holm
from serein.evaluate.statistics import Interval
from serein.evaluate.study import load_study, save_study
from serein.evaluate.study_curves import curve_blocks, curve_picture, label_curves
from serein.evaluate.study_page import write_study
from serein.evaluate.summary import compare

RUNS = (
    ("fresh", 1.0, 0.9),
    ("trained", 1.0, 0.9),
    ("fresh", 0.05, 0.4),
    ("trained", 0.05, 0.7),
    ("head", 1.0, 0.8),
    ("trained", 0.2, 0.8),
)


@pytest.fixture
def make_share(make_run):
    def make(folder: str, name: str, share: float, accuracy: float = 0.8, **settings) -> Path:
        run = make_run(folder, accuracy=accuracy, random_seed=len(folder) + int(100 * share), **settings)
        facts = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps(facts | {"name": name}))
        (run / "recipe.toml").write_text(f"[finetune]\nepochs = 3\nlabel_share = {share}\n")
        return run

    return make


@pytest.fixture
def study(make_share, tmp_path) -> Path:
    runs = [(f"{name} {share}", make_share(f"{name}-{share}", name, share, chance)) for name, share, chance in RUNS]
    save_study(tmp_path / "study", "runs", "Fewer labels", runs)
    return tmp_path / "study"


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def table(curves) -> list[list[str]]:
    _, found, _ = curve_blocks(curves, curve_picture(curves))
    return [list(row) for row in found.rows]


def test_runs_of_one_share_are_no_curves(make_run, tmp_path):
    runs = [("a", make_run("a")), ("b", make_run("b", adapter=False))]  # recipes without the key have all labels
    save_study(tmp_path / "study", "runs", "t", runs)
    assert label_curves(load_study(tmp_path / "study")) is None
    paths = write_study(tmp_path / "study")
    assert [path.name for path in paths.figures] == ["study.svg"]
    assert json.loads(paths.scores.read_text())["curves"] == []


def test_series_are_systems_and_points_are_ordered_by_share(study):
    curves = label_curves(load_study(study))
    assert curves.series == ("fresh", "trained", "head")
    assert [(point.series, point.share) for point in curves.points] == [
        ("fresh", 0.05), ("trained", 0.05), ("trained", 0.2), ("fresh", 1.0), ("trained", 1.0), ("head", 1.0),
    ]  # fmt: skip
    assert [point.row.name for point in curves.points][:2] == ["fresh 0.05", "trained 0.05"]


def test_each_share_is_held_against_the_first_series_at_that_share(study):
    points = label_curves(load_study(study)).points
    first = {point.share: point.row.run for point in points if point.series == "fresh"}
    compared = [point for point in points if point.reference]
    assert [(point.series, point.share) for point in compared] == [("trained", 0.05), ("trained", 1.0), ("head", 1.0)]
    expected = [compare(point.row.run, first[point.share]) for point in compared]
    for point, found, holm_p in zip(compared, expected, holm([found.p for found in expected]), strict=True):
        minus = point.minus_reference
        assert (minus.ua, minus.interval, minus.p) == (found.scores.ua, found.intervals.ua, found.p)
        assert minus.holm_p == holm_p
    assert compared[0].minus_reference.interval.low > 0
    assert all(point.minus_reference is None for point in points if point not in compared)


def test_a_second_run_of_a_system_and_share_is_a_series_of_its_own(make_share, tmp_path):
    runs = [("a", make_share("a", "fresh", 0.1)), ("b", make_share("bb", "fresh", 1.0))]
    runs += [("c", make_share("ccc", "fresh", 1.0))]
    save_study(tmp_path, "runs", "t", runs)
    curves = label_curves(load_study(tmp_path))
    assert [(point.series, point.row.name) for point in curves.points] == [
        ("fresh", "a"),
        ("fresh", "b"),
        ("fresh (2)", "c"),
    ]
    assert curves.points[2].reference.name == "b"


def test_a_series_holds_runs_of_one_recipe_but_for_labels_and_epochs(make_share, tmp_path):
    places = [("a", 0.05), ("b", 1.0), ("c", 0.1), ("d", 1.0)]
    runs = [(name, make_share(name, "fresh", share)) for name, share in places]
    for (name, folder), width, epochs in zip(runs, (64, 64, 128, 128), (9, 3, 9, 3), strict=True):
        share = dict(places)[name]
        text = f"[model]\nwidth = {width}\n[finetune]\nepochs = {epochs}\nlabel_share = {share}\n"
        text += f"[speed]\ncheckpoint_seconds = {epochs}.0\n"
        (folder / "recipe.toml").write_text(text)
    save_study(tmp_path, "runs", "t", runs)
    series = {point.row.name: point.series for point in label_curves(load_study(tmp_path)).points}
    assert series == {"a": "fresh", "b": "fresh", "c": "fresh (2)", "d": "fresh (2)"}


def test_other_protocols_are_not_compared(make_share, make_run, tmp_path):
    other = replace(load_run(make_run("for its protocol")).protocol, name="another")
    runs = [("a", make_share("a", "fresh", 0.1)), ("b", make_share("b", "trained", 0.1, protocol=other))]
    runs += [("c", make_share("c", "fresh", 1.0))]
    save_study(tmp_path, "runs", "t", runs)
    cells = table(label_curves(load_study(tmp_path)))
    assert cells[0][3:] == ["", "", ""]
    assert cells[1][3:] == ["not comparable", "", ""]


def test_the_page_has_picture_table_and_numbers(study):
    paths = write_study(study)
    assert [path.name for path in paths.figures] == ["labels.svg"]
    text, page = unescape(paths.markdown.read_text().replace("\\", "")), paths.html.read_text()
    assert "(figures/labels.svg)" in text
    assert page.count("<svg") == 1
    assert "| Variant | Remarks | UA % | WA % | Macro F1 % | UA, SD of seeds | Seconds | Parameters | MiB |" in text
    assert "minus first" not in text.replace("minus first series", "")  # one p for one difference
    assert all(variant["minus_first"] is None for variant in json.loads(paths.scores.read_text())["variants"])
    curves = label_curves(load_study(study))
    for row in table(curves):
        assert f"| {' | '.join(row)} |" in text
    assert table(curves)[1][:2] == ["5 %", "trained"]
    numbers = json.loads(paths.scores.read_text())["curves"]
    assert [(point["series"], point["label_share"]) for point in numbers] == [
        (point.series, point.share) for point in curves.points
    ]
    assert numbers[0]["minus_first_series"] is None
    minus = curves.points[1].minus_reference
    assert numbers[1]["minus_first_series"]["ua"] == minus.ua
    assert numbers[1]["minus_first_series"]["interval"]["low"] == minus.interval.low
    assert numbers[1]["variant"] == "trained 0.05"


def test_the_picture_names_series_and_shares(study):
    picture = curve_picture(label_curves(load_study(study)))
    found = texts(picture.svg)
    assert {"fresh", "trained", "head", "UA (%), 95 % interval", "UA minus the first's, points, paired"} <= set(found)
    assert [found.count(share) for share in ("5", "20")] == [2, 2 + 1]  # in both panels, and 20 points of UA
    assert "difference to fresh" in picture.text


def test_a_series_of_any_name_stands_in_the_legend():
    known = Interval(0.2, 0.8)
    svg = study_plots.curves({"_mine": [(0.05, (0.3, known))], "b": [(0.05, (0.4, known))]}, {})
    assert {"_mine", "b"} <= set(texts(svg))


def test_a_single_series_has_no_differences_to_show(make_share, tmp_path):
    save_study(tmp_path, "runs", "t", [("a", make_share("a", "x", 0.1)), ("b", make_share("b", "x", 1.0))])
    curves = label_curves(load_study(tmp_path))
    picture = curve_picture(curves)
    assert not [text for text in texts(picture.svg) if "minus" in text]
    assert "difference" not in picture.text
    assert "UA minus first series" not in curve_blocks(curves, picture)[2].text


def test_values_lie_at_their_shares_and_series_beside_one_another(monkeypatch):
    drawn = []
    monkeypatch.setattr(study_plots.Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    wide, unknown = Interval(0.2, 0.8), Interval(nan, nan)
    scores = {"a": [(0.05, (0.3, wide)), (1.0, (0.6, unknown))], "b": [(0.05, (0.4, wide))]}
    study_plots.curves(scores, {"a": [], "b": [(0.05, (0.1, wide))]})
    (figure,) = drawn
    left, right = figure.axes
    assert left.get_xscale() == right.get_xscale() == "log"
    assert [label.get_text() for label in left.get_xticklabels()] == ["5", "100"]
    first, second = (line for line in left.lines if line.get_marker() != "None")
    np.testing.assert_allclose(first.get_xdata(), [0.05, 1.0], rtol=0.05)
    np.testing.assert_allclose(first.get_ydata(), [30, 60])
    assert first.get_xdata()[0] < 0.05 < second.get_xdata()[0]
    bars = [line.get_ydata() for line in left.lines if line.get_marker() == "None"]
    np.testing.assert_allclose(bars, [[20, 80], [nan, nan], [20, 80]])


@pytest.mark.parametrize("recipe", ["[finetune", "finetune = 3", "[finetune]\nlabel_share = 'half'"])
def test_a_damaged_recipe_is_named(make_share, tmp_path, recipe):
    runs = [("a", make_share("a", "fresh", 0.1)), ("b", make_share("b", "fresh", 1.0))]
    (runs[1][1] / "recipe.toml").write_text(recipe)
    save_study(tmp_path, "runs", "t", runs)
    with pytest.raises(CorpusError, match=r"b/recipe\.toml: is not a recipe that serein wrote"):
        label_curves(load_study(tmp_path))
