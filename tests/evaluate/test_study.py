import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from statistics import stdev

import pytest
from sklearn.metrics import balanced_accuracy_score

from serein.corpus.protocol import Leak
from serein.errors import CorpusError, UsageError
from serein.evaluate import study_plots
from serein.evaluate.remarks import remarks
from serein.evaluate.runs import load_run
from serein.evaluate.significance import holm
from serein.evaluate.statistics import Interval
from serein.evaluate.study import Paired, load_study, name_runs, save_study
from serein.evaluate.study_page import READING, SEEDS_READING, score_table, write_study
from serein.evaluate.summary import compare, subtract


def oracle(protocol, name="three-pairs-ORACLE"):
    folds = tuple(replace(fold, validation=fold.test) for fold in protocol.folds)
    return replace(protocol, name=name, folds=folds, oracle=True)


def mixed(protocol):
    """Half of each talker's training utterances validate."""
    folds = tuple(
        replace(fold, train=fold.train[::2], validation=fold.train[1::2], test=fold.test) for fold in protocol.folds
    )
    return replace(protocol, name="mixed", folds=folds)


def keep_first_seed(run):
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | {"seeds": [0]}))
    table = run / "predictions.csv"
    table.write_text("".join(line for line in table.read_text().splitlines(True) if ",1," not in line))


@pytest.fixture
def protocol(make_run):
    return load_run(make_run("for its protocol")).protocol


@pytest.fixture
def study(make_run, tmp_path) -> Path:
    """Three systems of one protocol, the second much worse."""
    runs = [
        ("mine", make_run("good", accuracy=0.95)),
        ("other | <b>", make_run("bad", accuracy=0.2, random_seed=1)),
        ("third", make_run("alike", accuracy=0.9, random_seed=2, adapter=False)),
    ]
    save_study(tmp_path / "study", "benchmark", "Systems & <others>", runs)
    return tmp_path / "study"


def test_runs_are_found_from_the_studys_folder_and_keep_their_order(study):
    said = json.loads((study / "study.json").read_text())
    assert said["runs"][0] == {"name": "mine", "folder": "../good"}
    found = load_study(study)
    assert (found.kind, found.title) == ("benchmark", "Systems & <others>")
    assert [(row.name, row.run.system) for row in found.rows] == [
        ("mine", "adapter"), ("other | <b>", "adapter"), ("third", "linear"),
    ]  # fmt: skip


def test_differences_under_one_protocol_are_those_of_compare(study):
    first, *others = load_study(study).rows
    assert first.minus_first is None
    for row in others:
        expected = compare(row.run, first.run)
        found = row.minus_first
        assert (found.ua, found.interval, found.p) == (expected.scores.ua, expected.intervals.ua, expected.p)
    assert [row.minus_first.holm_p for row in others] == holm([row.minus_first.p for row in others])


def with_predictions(run, guesses):
    """The run, with the first rows of each talker under seed 0 as given, all others right."""
    rows = [row._replace(prediction=row.truth) for row in run.predictions if row.seed == 0]
    rows = [row._replace(prediction=guesses.get(row.id, row.truth)) for row in rows]
    return replace(run, predictions=tuple(rows), seeds=(0,))


def test_a_difference_by_hand(make_run, protocol):
    run = load_run(make_run("run"))
    first = with_predictions(run, {})
    # 6 talkers with 3 utterances of each of 4 labels: one of 18 wrong in one label is 1/18 of a quarter of UA
    worse = with_predictions(run, {"F1_00": "sad"})
    found = subtract(replace(worse, protocol=oracle(protocol)), first)
    assert found.scores.ua == pytest.approx(-1 / 72)
    # without F1 the difference is 0, without another of the five talkers -1/15 of a quarter = -1/60
    mean = -5 / 6 / 60
    variance = 5 / 6 * (mean**2 + 5 * (-1 / 60 - mean) ** 2)
    reach = 2.570582 * variance**0.5  # Student's 95 % of five degrees of freedom
    interval = found.intervals.ua
    assert (interval.low, interval.high) == pytest.approx((-1 / 72 - reach, -1 / 72 + reach), abs=1e-7)
    assert found.mcnemar_p == 1.0  # one utterance


def test_the_order_of_rows_and_folds_does_not_matter(make_run):
    one, other = load_run(make_run("one")), load_run(make_run("other", random_seed=1))
    turned = replace(one, predictions=tuple(row._replace(fold="another") for row in reversed(one.predictions)))
    assert subtract(turned, other) == subtract(one, other)


@pytest.mark.parametrize("field", ["id", "talker", "truth"])
def test_other_utterances_are_no_pair(make_run, field):
    run = load_run(make_run("run"))
    first = run.predictions[0]
    assert first.truth != "sad"
    rows = [row._replace(**{field: "sad"}) if row.id == first.id else row for row in run.predictions]
    changed = replace(run, predictions=tuple(rows))
    with pytest.raises(CorpusError, match="did not test the same utterances"):
        subtract(changed, run)


def test_other_protocols_are_paired_only_where_the_protocol_is_what_is_varied(make_run, protocol, tmp_path):
    runs = [("honest", make_run("a")), ("oracle", make_run("b", protocol=oracle(protocol), random_seed=1))]
    save_study(tmp_path, "inflation", "t", runs)
    row = load_study(tmp_path).rows[1]
    expected = subtract(row.run, load_run(runs[0][1]))
    assert row.minus_first == Paired(expected.scores.ua, expected.intervals.ua, expected.p, holm_p=expected.p)
    save_study(tmp_path / "runs", "runs", "t", runs)
    found = load_study(tmp_path / "runs")
    assert found.rows[1].minus_first is None
    header, _, row = score_table(found)
    assert row[header.index("UA minus first")] == "not comparable"
    assert "NOT COMPARABLE" in write_study(tmp_path / "runs").markdown.read_text()


@pytest.mark.parametrize(("others", "said"), [("[FM][23]", True), ("[FM]3", False)])
def test_a_label_of_fewer_than_four_of_six_talkers_is_remarked_upon(make_run, others, said):
    run = make_run()
    table = run / "predictions.csv"
    table.write_text(re.sub(rf"(?m)^({others}_\d+,.*,\d),sad,", r"\1,happy,", table.read_text()))
    assert remarks(load_run(run)) == ["a label of few talkers: intervals too narrow"] * said


def test_remarks_say_what_makes_a_score_mean_less(make_run, protocol, tmp_path):
    shared = replace(protocol, name="x-TALKERS-SHARED", shares_talkers=True)
    shared_talker = Leak("talker", "fold-0", ("train", "validation"), ("F1",))
    shared_text = Leak("text", "fold-0", ("train", "validation"), ("dogs",))
    copied = Leak("audio", "fold-0", ("train", "test"), ("a = b",))
    copied_aside = Leak("audio", "fold-0", ("train", "validation"), ("a = b",))
    runs = [
        ("plain", make_run("a", leaks=[str(shared_text), str(copied_aside)])),
        ("oracle", make_run("b", protocol=oracle(protocol))),
        ("shared", make_run("c", protocol=shared)),
        ("mixed", make_run("d", protocol=mixed(protocol), leaks=[str(shared_talker)])),
        ("copied", make_run("g", leaks=[str(shared_text), str(copied)])),
        ("transductive", make_run("e", adapter_training="transductive", synthetic=True)),
        ("z-norm", make_run("f", talker_statistics="z-norm")),
        ("holed", make_run("h", without_frames={"x": "no such file"})),
    ]
    save_study(tmp_path, "inflation", "t", runs)
    _, *rows = score_table(load_study(tmp_path))
    assert [row[1] for row in rows] == [
        "",
        "ORACLE: intervals too narrow",
        "TALKERS SHARED: intervals too narrow",
        "validation talkers also train",
        "a recording is on both sides",
        "transductive: intervals too narrow, synthetic voices",
        "talker statistics",
        "utterances not read: 1",
    ]
    write_study(tmp_path)
    page = (tmp_path / "study.md").read_text()
    assert "NOT TO BE QUOTED" in page
    assert "SYNTHETIC VOICES" in page


def test_a_run_of_fewer_labels_and_one_that_does_not_test_a_label_are_remarked_upon(make_run, protocol):
    run = make_run(protocol=replace(protocol, labels=(*protocol.labels, "fear")))
    table = run / "predictions.csv"
    head, *rows = table.read_text().splitlines()
    table.write_text("\n".join([f"{head},p_fear", *(f"{row},0.0" for row in rows)]) + "\n")
    (run / "recipe.toml").write_text("[finetune]\nlabel_share = 0.125\n")
    assert remarks(load_run(run)) == ["UA without fear: no test utterance", "12.5 % of the training labels"]


def test_the_page_has_the_table_and_the_picture(study):
    paths = write_study(study)
    assert [path.name for path in (paths.html, paths.markdown, paths.scores, *paths.figures)] == [
        "study.html", "study.md", "scores.json", "study.svg",
    ]  # fmt: skip
    page, text, svg = (path.read_text() for path in (paths.html, paths.markdown, *paths.figures))
    assert "<h1>Systems &amp; &lt;others&gt;</h1>" in page
    assert "<b>" not in page
    assert "<svg" in page
    assert "(figures/study.svg)" in text
    for name in ("mine", "other | &lt;b&gt;", "third"):
        assert name in svg
    row, _ = [line for line in text.splitlines() if line.startswith("| mine |")]
    assert row.count(" | ") == 11
    assert " | 781.5 | 5,037 | " in row  # 6 folds and seeds of 100 s, 30 s and 0.25 s
    assert not list(study.glob(".*"))


def test_the_page_says_which_p_decides_and_what_it_is_adjusted_for(study):
    assert READING in write_study(study).markdown.read_text()
    assert "Holm's is adjusted for the number of differences, and it decides: below 0.05" in READING


def test_the_spread_over_seeds_has_a_column_where_several_were_run(study):
    header, *rows = score_table(load_study(study))
    for cells, row in zip(rows, load_study(study).rows, strict=True):
        of_seed = [[p for p in row.run.predictions if p.seed == seed] for seed in row.run.seeds]
        by_seed = [balanced_accuracy_score([p.truth for p in ps], [p.prediction for p in ps]) for ps in of_seed]
        assert cells[header.index("UA, SD of seeds")] == f"{100 * stdev(by_seed):.1f}"
    assert SEEDS_READING in write_study(study).markdown.read_text()

    keep_first_seed(study.parent / "bad")
    assert [row[header.index("UA, SD of seeds")] for row in score_table(load_study(study))].count("") == 1
    keep_first_seed(study.parent / "good")
    keep_first_seed(study.parent / "alike")
    assert "UA, SD of seeds" not in score_table(load_study(study))[0]
    assert SEEDS_READING not in write_study(study).markdown.read_text()


def test_the_page_says_which_runs_had_other_seeds(study):
    assert "; training seeds 0, 1." in write_study(study).markdown.read_text()
    keep_first_seed(study.parent / "bad")
    assert "; training seeds 0, 1 (other | &lt;b&gt;: 0)." in write_study(study).markdown.read_text().replace("\\", "")


def test_a_folder_that_holds_another_study_is_left_alone(study):
    before = (study / "study.json").read_bytes()
    for kind, title in (("ablation", "Systems & <others>"), ("benchmark", "On another corpus")):
        with pytest.raises(UsageError, match=r"holds another study \(Systems & <others>\)"):
            save_study(study, kind, title, [("a", study.parent / "good"), ("b", study.parent / "bad")])
    assert (study / "study.json").read_bytes() == before
    save_study(study, "benchmark", "Systems & <others>", [("a", study.parent / "good"), ("b", study.parent / "bad")])
    assert [row.name for row in load_study(study).rows] == ["a", "b"]


def test_a_protocol_that_all_share_is_described_once(study, make_run, protocol, tmp_path):
    text = write_study(study).markdown.read_text()
    assert text.count(protocol.description) == 1
    assert f"\n\nProtocol: {protocol.name} ({protocol.hash}). {protocol.description}\n\n| Variant |" in text
    assert "| mine | adapter | inductive | 0, 1 |" in text

    save_study(tmp_path, "runs", "t", [("a", make_run("a")), ("b", make_run("b", protocol=mixed(protocol)))])
    text = write_study(tmp_path).markdown.read_text()
    assert text.count(protocol.description) == 2
    assert f"| b | adapter | inductive | mixed ({mixed(protocol).hash}). {protocol.description} | 0, 1 |" in text


def test_the_same_runs_give_the_same_bytes(study):
    paths = write_study(study)
    before = [path.read_bytes() for path in (paths.html, paths.markdown, paths.scores, *paths.figures)]
    again = write_study(study)
    assert before == [path.read_bytes() for path in (again.html, again.markdown, again.scores, *again.figures)]


def test_scores_json_holds_every_number(study):
    content = json.loads(write_study(study).scores.read_text())
    rows = load_study(study).rows
    for said, row in zip(content["variants"], rows, strict=True):
        assert said["scores"]["ua"] == row.summary.pooled.ua
        assert said["intervals"]["ua"]["low"] == row.summary.intervals.ua.low
        assert said["protocol"]["hash"] == row.run.protocol.hash
        assert said["trainable_parameters"] == sum(row.run.fold_runs[0].trainable_parameters.values())
    assert content["variants"][0]["seconds"] == {"adapt": 600.0, "finetune": 180.0, "test": 1.5}
    assert content["variants"][0]["minus_first"] is None
    assert content["variants"][1]["minus_first"]["holm_p"] == rows[1].minus_first.holm_p


def test_what_is_undefined_is_null_and_a_dash(study):
    for folder in ("good", "bad", "alike"):  # a single talker tells nothing of others
        path = study.parent / folder / "predictions.csv"
        lines = path.read_text().splitlines(keepends=True)
        talkers = ("F1", "F2", "F3", "M1", "M2", "M3")
        for talker in talkers:
            lines = [line.replace(f",{talker},", ",F1,") for line in lines]
        path.write_text("".join(lines))
    content = json.loads(write_study(study).scores.read_text())
    assert content["variants"][1]["minus_first"]["p"] is None
    header, _, row, _ = score_table(load_study(study))
    assert row[header.index("UA minus first")].endswith(" [unknown]")
    assert row[-2:] == ["unknown", "unknown"]


def test_runs_are_named_by_their_systems_and_where_needed_by_their_folders(make_run):
    folders = [make_run("a"), make_run("b", adapter=False), make_run("c")]
    assert [name for name, _ in name_runs(folders)] == [
        f"adapter ({folders[0]})", "linear probe", f"adapter ({folders[2]})",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "serein benchmark, ablate and inflation make studies"),
        ("{", "is not a study that serein saved"),
        ("[]", "is not a study that serein saved"),
        ('{"format": 1, "kind": "runs", "title": "t", "runs": [{}]}', "is not a study that serein saved"),
        ('{"format": 1, "kind": "runs", "title": "t", "runs": []}', "that this serein reads"),
        ('{"format": 2, "kind": "runs", "title": "t", "runs": []}', "that this serein reads"),
        ('{"format": 1, "kind": "party", "title": "t", "runs": []}', "that this serein reads"),
    ],
)
def test_what_is_no_study_is_refused(tmp_path, content, said):
    if content is not None:
        (tmp_path / "study.json").write_text(content)
    with pytest.raises(CorpusError, match=said):
        load_study(tmp_path)


def test_an_unfinished_run_is_named(study):
    predictions = study.parent / "bad" / "predictions.csv"
    predictions.write_text("".join(predictions.read_text().splitlines(keepends=True)[:30]))
    with pytest.raises(CorpusError, match=r"bad: the run is not finished"):
        load_study(study)


def test_without_matplotlib_the_way_out_is_told(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match="pip install"):
        write_study(study)


def test_a_long_name_leaves_the_panels_room_for_their_titles(monkeypatch):
    drawn = []
    monkeypatch.setattr(study_plots.Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    score = (0.5, Interval(0.4, 0.6))
    study_plots.dots(
        ["short", "L2, layer-normed targets, corrected eq. 7, teacher handed on"],
        [score, score],
        [None, (0.1, Interval(0.0, 0.2))],
    )
    (figure,) = drawn
    figure.draw_without_rendering()
    assert figure.get_tightbbox().x1 <= figure.get_figwidth()
