import json
from dataclasses import astuple
from math import isnan

import pytest

from serein.errors import CorpusError
from serein.evaluate.layers import ProbedLayer, best_of, rows_of, score_layers, verdict, write_layers
from serein.evaluate.predictions import Prediction
from serein.evaluate.significance import talker_p
from serein.evaluate.statistics import difference_intervals, mean_scores, talker_confusions, talker_intervals

LABELS = ("angry", "sad")
RIGHT = {0: "abcd", 3: "abcdefgh", 7: "bcdefgh"}  # by layer, the talkers of whom all is recognised


def said(right: str) -> list[Prediction]:
    """Eight talkers in two folds, each angry twice and sad twice; the others' first sad utterance is called angry."""
    rows = []
    for talker in "abcdefgh":
        for number, truth in enumerate(("angry", "angry", "sad", "sad")):
            wrong = talker not in right and number == 2
            fold = "first" if talker in "abcd" else "second"
            rows.append(Prediction(f"{talker}{number}", talker, fold, 0, truth, "angry" if wrong else truth))
    return rows


@pytest.fixture
def probed() -> list[ProbedLayer]:
    return score_layers({layer: said(right) for layer, right in RIGHT.items()}, LABELS)


def test_scores_by_hand(probed):
    assert [layer.layer for layer in probed] == [0, 3, 7]
    # of 16 angry all are right, of 16 sad 12, 16 and 15
    assert [layer.scores.ua for layer in probed] == pytest.approx([(1 + 12 / 16) / 2, 1, (1 + 15 / 16) / 2])
    assert [layer.minus_best for layer in probed] == pytest.approx([-2 / 16, 0, -0.5 / 16])
    assert best_of(probed).layer == 3


def test_intervals_and_p_are_those_of_systems_that_are_compared(probed):
    def confusions(layer: int):
        rows = said(RIGHT[layer])
        return talker_confusions(*zip(*((row.truth, row.prediction, row.talker) for row in rows), strict=True), LABELS)

    for layer in probed:
        assert layer.scores == mean_scores(confusions(layer.layer))
        assert astuple(layer.interval) == pytest.approx(
            astuple(talker_intervals(confusions(layer.layer)).ua), nan_ok=True
        )
        assert layer.difference == difference_intervals(confusions(layer.layer), confusions(3)).ua
    assert isnan(probed[1].p)
    p = [talker_p(confusions(layer), confusions(3)) for layer in (0, 7)]
    assert p[0] < p[1]
    assert [probed[0].p, probed[2].p] == pytest.approx([2 * p[0], max(2 * p[0], p[1])])  # Holm's, of two


def test_each_fold_chooses_by_its_own_talkers_and_of_equal_layers_the_lowest(probed):
    # talkers a to d, of the first fold, are all right under layers 0 and 3; e to h under 3 and 7
    assert [layer.folds for layer in probed] == [("first",), ("second",), ()]


def test_the_verdict_names_the_best_and_what_cannot_be_told_from_it(probed):
    worse = score_layers({0: said("a"), 3: said(RIGHT[3]), 7: said(RIGHT[7])}, LABELS)
    assert worse[0].p < 0.05 < worse[2].p
    assert verdict(worse) == "Layer 3 is read best; 7 cannot be told from it."
    assert verdict(probed) == "Layer 3 is read best; 0, 7 cannot be told from it."
    assert verdict(worse[:2]) == "Layer 3 is read best, and stands above all others."
    assert verdict(worse[1:2]) == "Layer 3 is read best, being the only one."
    assert [row[-3:] for row in rows_of(probed)][1:] == [["", "", "1 of 2"], [*rows_of(probed)[2][-3:-1], ""]]


def test_a_single_talker_tells_nothing_of_others():
    alone = [row._replace(talker="a") for row in said("abcdefgh")], [row._replace(talker="a") for row in said("a")]
    probed = score_layers(dict(zip((5, 6), alone, strict=True)), LABELS)
    assert verdict(probed) == "Layer 5 is read best; a single talker validates, who tells nothing of others."
    assert [row[-3:] for row in rows_of(probed)] == [["", "", "2 of 2"], ["-21.9 [unknown]", "unknown", ""]]


def test_layers_that_were_read_on_other_utterances_are_refused():
    with pytest.raises(CorpusError, match="not tested on the same utterances"):
        score_layers({0: said("a"), 1: said("a")[1:]}, LABELS)


def test_the_page_has_the_picture_the_table_and_every_number(probed, tmp_path):
    facts = {"corpus": "toys <&>", "encoder": {"name": "some/encoder"}, "protocol": "talkers-5 (ab)"}
    page = write_layers(tmp_path / "new", facts, probed)
    text = page.read_text(encoding="utf-8")
    assert "Which layer carries emotion (toys &lt;&amp;&gt;)" in text
    assert "0, 7 cannot be told from it." in text
    assert "{&quot;name&quot;: &quot;some/encoder&quot;}" in text
    assert "talkers-5 (ab)" in text
    assert "layer 7" in (page.parent / "figures" / "layers.svg").read_text(encoding="utf-8")
    assert "| 0 | 87.5 " in (page.parent / "layers.md").read_text(encoding="utf-8")
    numbers = json.loads((page.parent / "layers.json").read_text(encoding="utf-8"))
    assert {name: numbers[name] for name in facts} == facts
    assert numbers["layers"][1] == {
        "layer": 3,
        "scores": {"wa": 1.0, "ua": 1.0, "macro_f1": 1.0},
        "interval": {"low": None, "high": None},
        "minus_best": 0.0,
        "difference": {"low": 0.0, "high": 0.0},
        "p": None,
        "folds": ["second"],
    }
