import json
from dataclasses import replace
from math import isnan

import pytest

from serein.corpus.protocol import Fold
from serein.evaluate.comparison import Comparison, as_document, compare_all, comparison_table, title
from serein.evaluate.metrics import Scores
from serein.evaluate.report import write_report
from serein.evaluate.runs import load_run
from serein.evaluate.sections import comparison
from serein.evaluate.significance import holm
from serein.evaluate.statistics import Interval, Intervals
from serein.evaluate.summary import Difference, compare


@pytest.fixture
def runs(make_run):
    settings = {"good": (0.95, "adapter"), "bad": (0.2, "linear probe"), "like bad": (0.2, "fresh adapter")}
    return [
        replace(load_run(make_run(folder, accuracy=accuracy, random_seed=seed)), name=name)
        for seed, (folder, (accuracy, name)) in enumerate(settings.items())
    ]


def of_ua(difference: float, p: float) -> Comparison:
    scores = Scores(0.0, difference, 0.0)
    found = Difference(scores, Intervals(*[Interval(-0.1, 0.25)] * 3), p, 0.5)
    return Comparison("one", "two", found, p, "talkers (0123)", ())


def test_each_run_is_held_against_the_first_or_each_against_each(runs):
    against_first = [(found.system, found.against) for found in compare_all(runs)]
    assert against_first == [("linear probe", "adapter"), ("fresh adapter", "adapter")]
    all_pairs = [(found.system, found.against) for found in compare_all(runs, all_pairs=True)]
    assert all_pairs == [*against_first, ("fresh adapter", "linear probe")]


def test_verdicts_say_who_is_better_whatever_the_order(runs):
    found = [comparison.verdict for comparison in compare_all(runs, all_pairs=True)]
    assert found[:2] == ["adapter is better than linear probe", "adapter is better than fresh adapter"]
    assert found[2] == "fresh adapter and linear probe cannot be told apart"
    (turned,) = compare_all(runs[1::-1])
    assert turned.verdict == "adapter is better than linear probe"


def test_p_values_are_adjusted_for_every_pair_shown(runs):
    found = compare_all(runs, all_pairs=True)
    assert [of.holm_p for of in found] == holm([of.difference.p for of in found])
    assert [of.difference for of in found[:2]] == [compare(run, runs[0]) for run in runs[1:]]


def test_an_adjusted_p_of_just_5_percent_is_no_finding():
    assert of_ua(0.1, 0.05).verdict == "one and two cannot be told apart"
    assert of_ua(0.1, 0.0499).verdict == "one is better than two"
    assert of_ua(-0.1, 0.0499).verdict == "two is better than one"


def test_another_protocol_is_not_compared_and_does_not_count(runs, make_run):
    renamed = replace(runs[0].protocol, name="other")
    stranger = load_run(make_run("stranger", protocol=renamed))
    first, second = compare_all([runs[0], stranger, runs[1]])
    assert (first.verdict, first.difference) == ("not comparable: another protocol", None)
    assert second.holm_p == second.difference.p
    assert json.loads(json.dumps(as_document(first)))["p"] is None
    assert comparison_table([first])[1][3:] == ["", "", "", ""]


def test_what_flatters_a_score_is_said_beside_its_differences(runs, make_run):
    protocol = runs[0].protocol
    plain, flattered, other = (
        runs[0],
        replace(runs[1], adapter_training="transductive", synthetic=True),
        replace(runs[2], protocol=replace(protocol, name="other")),
    )
    first, second = compare_all([plain, flattered, other])
    assert first.protocol == f"{protocol.name} ({protocol.hash})"
    assert second.protocol == f"other ({other.protocol.hash}) and {first.protocol}"
    said = ["linear probe: transductive: intervals too narrow", "linear probe: synthetic voices"]
    assert as_document(first)["remarks"] == said
    assert as_document(second)["remarks"] == []
    assert title([first, second]).splitlines() == [
        "Differences in UA, in points [95 % interval]",
        f"protocol {first.protocol}",
        f"protocol {second.protocol}",
        *said,
    ]


def test_runs_of_one_name_are_told_apart_by_their_folders(make_run):
    runs = [load_run(make_run(name, random_seed=seed)) for seed, name in enumerate(("one", "two"))]
    (found,) = compare_all(runs)
    assert (found.system, found.against) == (f"adapter ({runs[1].folder})", f"adapter ({runs[0].folder})")


def test_one_talker_decides_nothing(make_run, runs):
    fold = runs[0].protocol.folds[0]
    alone = replace(
        runs[0].protocol, folds=(replace_test(fold, tuple(id_ for id_ in fold.test if id_.startswith("F1"))),)
    )
    pair = [load_run(make_run(f"alone {seed}", protocol=alone, random_seed=seed)) for seed in (0, 1)]
    (found,) = compare_all(pair)
    assert isnan(found.holm_p)
    assert found.verdict == "unknown: one talker tells nothing of others"
    assert as_document(found)["low"] is None
    assert comparison_table([found])[1][4:6] == ["unknown", "unknown"]


def replace_test(fold: Fold, test: tuple[str, ...]) -> Fold:
    return Fold(fold.name, fold.train, fold.validation, test)


def test_seeds_that_only_one_run_has_are_left_out_of_mcnemar(make_run):
    ours, theirs = load_run(make_run("ours")), load_run(make_run("theirs", accuracy=0.5, random_seed=1))
    first_seed = replace(theirs, seeds=(0,), predictions=tuple(row for row in theirs.predictions if row.seed == 0))
    both = replace(ours, seeds=(0,), predictions=tuple(row for row in ours.predictions if row.seed == 0))
    assert compare(ours, first_seed).mcnemar_p == compare(both, first_seed).mcnemar_p
    assert compare(ours, theirs).mcnemar_p != compare(both, first_seed).mcnemar_p


def test_the_table_shows_points_and_three_decimals():
    header, row = comparison_table([of_ua(0.0712, 0.0004)])
    cells = dict(zip(header, row, strict=True))
    assert cells == {
        "System": "one",
        "Against": "two",
        "Verdict": "one is better than two",
        "UA difference": "+7.1 [-10.0, +25.0]",
        "p": "< 0.001",
        "p (Holm)": "< 0.001",
        "p (McNemar)": "0.500",
    }


def test_a_document_holds_the_numbers(runs):
    (found,) = compare_all(runs[:2])
    said = as_document(found)
    assert said["ua_difference"] == found.difference.scores.ua
    assert (said["low"], said["high"]) == (found.difference.intervals.ua.low, found.difference.intervals.ua.high)
    assert (said["p"], said["holm_p"], said["mcnemar_p"]) == (
        found.difference.p, found.holm_p, found.difference.mcnemar_p,
    )  # fmt: skip


def test_the_report_gives_the_verdict_in_page_and_markdown_and_the_p_values_in_numbers(runs):
    paths = write_report(runs[0].folder, [runs[1].folder])
    (found,) = compare_all([load_run(run.folder) for run in runs[:2]])
    for text in (paths.html.read_text(encoding="utf-8"), paths.markdown.read_text(encoding="utf-8")):
        assert found.verdict in text
        assert "p (Holm)" in text
        assert "p (McNemar)" in text
    (other,) = json.loads(paths.scores.read_text())["others"]
    assert (other["minus_first"]["p"], other["minus_first"]["mcnemar_p"]) == (
        found.difference.p, found.difference.mcnemar_p,
    )  # fmt: skip


def test_a_run_alone_has_no_comparison(runs):
    assert comparison(runs[:1]) == []
