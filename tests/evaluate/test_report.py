import json
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    recall_score,
)

from serein.corpus.protocol import Fold, Protocol
from serein.errors import CorpusError, UsageError
from serein.evaluate import provenance, report
from serein.evaluate.embeddings import load_embeddings
from serein.evaluate.ensemble import average
from serein.evaluate.report import ReportPaths, write_report
from serein.evaluate.runs import load_run
from serein.evaluate.sections import banners, score_table
from serein.evaluate.statistics import talker_confusions, talker_intervals
from serein.evaluate.summary import compare, summarise


class Outline(HTMLParser):
    """Tags, whether they are closed in order, and every address that a browser would fetch."""

    void = frozenset({"meta", "path", "use", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    assert parser.open == []
    return parser


@pytest.fixture(scope="module")
def written(default_run: Path) -> ReportPaths:
    return write_report(default_run)


@pytest.fixture(scope="module")
def protocol(default_run: Path) -> Protocol:
    return load_run(default_run).protocol


def as_oracle(protocol: Protocol) -> Protocol:
    folds = tuple(Fold(fold.name, fold.train, fold.test, fold.test) for fold in protocol.folds)
    return replace(protocol, name=f"{protocol.name}-ORACLE", folds=folds, oracle=True)


def test_all_files_are_there_and_nothing_half_written(written):
    files = [written.html, written.markdown, written.scores, *written.figures]
    assert [path.name for path in files] == [
        "report.html", "report.md", "scores.json", "confusion.svg", "embeddings.svg", "learning.svg", "adapter.svg",
    ]  # fmt: skip
    assert all(path.stat().st_size for path in files)
    assert not list(written.html.parent.rglob("*.partial"))


def test_the_page_is_whole_and_fetches_nothing(written):
    page = written.html.read_text(encoding="utf-8")
    found = outline(page)
    assert found.tags.count("svg") == 4
    assert all(address.startswith("#") for address in found.fetched)
    assert not {"script", "link", "img", "iframe"} & set(found.tags)
    assert not re.search(r"url\((?!#)|@import", page)
    assert "prefers-color-scheme: dark" in page


def test_every_id_in_the_page_stands_for_one_thing(written):
    page = written.html.read_text(encoding="utf-8")
    defined = re.findall(r'(<\w+ id="([^"]+)"[^>]*>)', page)
    assert len({name for _, name in defined}) == len(set(defined))


def test_markdown_links_to_the_figures_that_were_written(written):
    linked = re.findall(r"!\[[^]]*\]\(([^)]+)\)", written.markdown.read_text(encoding="utf-8"))
    assert [written.markdown.parent / link for link in linked] == list(written.figures)


def test_page_and_markdown_say_the_same_headline(written):
    numbers = json.loads(written.scores.read_text())
    said = f"UA {100 * numbers['pooled']['ua']:.1f} % (95 % interval {100 * numbers['intervals']['ua']['low']:.1f} to "
    for text in (written.html.read_text(encoding="utf-8"), written.markdown.read_text(encoding="utf-8")):
        assert said in text
        assert numbers["protocol"]["hash"] in text


def test_scores_are_those_of_sklearn_on_the_predictions(written, default_run):
    numbers = json.loads(written.scores.read_text())
    run = load_run(default_run)
    labels = list(run.protocol.labels)

    def by_hand(fold: str = "") -> list[float]:
        found = []
        for seed in run.seeds:
            rows = [row for row in run.predictions if row.seed == seed and row.fold.startswith(fold)]
            truth, guess = [row.truth for row in rows], [row.prediction for row in rows]
            settings = {"labels": labels, "average": "macro", "zero_division": np.nan}
            ua, f1 = recall_score(truth, guess, **settings), f1_score(truth, guess, **settings)
            found.append([accuracy_score(truth, guess), ua, f1])
        return np.mean(found, axis=0).tolist()

    folds = {name: by_hand(name) for name in ("fold-0", "fold-1", "fold-2")}
    assert list(numbers["pooled"].values()) == pytest.approx(by_hand())
    assert {name: list(of_fold.values()) for name, of_fold in numbers["folds"].items()} == {
        name: pytest.approx(of_fold) for name, of_fold in folds.items()
    }
    assert list(numbers["fold_mean"].values()) == pytest.approx(np.mean(list(folds.values()), axis=0))
    assert list(numbers["fold_sd"].values()) == pytest.approx(np.std(list(folds.values()), axis=0, ddof=1))
    truths = [[row.truth for row in run.predictions if row.seed == seed] for seed in run.seeds]
    guesses = [[row.prediction for row in run.predictions if row.seed == seed] for seed in run.seeds]
    seeds = list(zip(truths, guesses, strict=True))
    accuracies = [accuracy_score(*one) for one in seeds]
    assert numbers["seed_sd"]["wa"] == pytest.approx(np.std(accuracies, ddof=1))
    assert numbers["confusion"] == sum(confusion_matrix(*one, labels=labels) for one in seeds).tolist()
    of_classes = [precision_recall_fscore_support(*one, labels=labels, zero_division=np.nan)[:3] for one in seeds]
    precisions, recalls, f1s = np.mean(of_classes, axis=0)
    assert numbers["classes"] == {
        label: pytest.approx({"recall": recalls[i], "precision": precisions[i], "f1": f1s[i], "utterances": 18})
        for i, label in enumerate(labels)
    }


def test_intervals_are_those_over_all_talkers_of_all_seeds(written, default_run):
    run = load_run(default_run)
    confusions = []
    for seed in run.seeds:
        rows = [row for row in run.predictions if row.seed == seed]
        names = (np.array([getattr(row, name) for row in rows]) for name in ("truth", "prediction", "talker"))
        confusions.append(talker_confusions(*names, run.protocol.labels))
    found = asdict(talker_intervals(np.concatenate(confusions)))
    assert json.loads(written.scores.read_text())["intervals"] == found
    assert found != asdict(talker_intervals(confusions[0]))


def test_each_space_of_the_embeddings_is_shown_under_its_own_name(make_run):
    run = load_run(make_run())
    names = {
        "encoder": "Frozen encoder",
        "fresh adapter": "Fresh adapter, untrained",
        "adapter without labels": "Adapter, before fine-tuning",
        "system": "adapter, after fine-tuning",
    }
    spreads = dict(zip(names, (3.0, 1.0, 0.3, 0.1), strict=True))
    random = np.random.default_rng(0)
    for done in run.fold_runs:
        (fold,) = (fold for fold in run.protocol.folds if fold.name == done.fold)
        truth = {row.id: row.truth for row in run.predictions}
        centres = np.eye(4, dtype=np.float32)[[run.protocol.labels.index(truth[id_]) for id_ in fold.test]]
        spaces = {
            space: (centres + spread * random.normal(size=centres.shape)).astype(np.float32)
            for space, spread in spreads.items()
        }
        save_file(spaces, done.embeddings, {"serein": json.dumps({"ids": fold.test})})
        found = load_embeddings(done.embeddings, fold.test)
        for space, points in zip(spaces, (found.encoder, found.fresh, found.adapter, found.system), strict=True):
            assert np.array_equal(spaces[space], points)
    page = write_report(run.folder).markdown.read_text(encoding="utf-8")
    shown = re.findall(r"^\| ([^|]+) \| (-?\d\.\d+) \\\[", page, flags=re.M)
    assert [space for space, _ in shown] == list(names.values())
    silhouettes = [float(value) for _, value in shown]
    assert silhouettes == sorted(silhouettes)  # the closer together the points of a label, the higher


def test_no_banner_without_a_reason(written):
    assert "banner" not in re.sub("<style>.*</style>", "", written.html.read_text(), flags=re.S)


def test_a_name_that_is_not_utf_8_stands_escaped(make_run):
    paths = write_report(str(make_run(adapter=False, command="serein crossval bad\udcff -o run")))
    for path in (paths.html, paths.markdown):
        assert r"serein crossval bad\udcff" in path.read_text(encoding="utf-8")


def test_synthetic_voices_stand_in_a_banner_of_page_and_markdown(make_run):
    paths = write_report(make_run(adapter=False, synthetic=True))
    assert '<p class="banner" role="note"><strong>SYNTHETIC VOICES.</strong>' in paths.html.read_text()
    assert "> [!WARNING]\n> **SYNTHETIC VOICES.**" in paths.markdown.read_text()


def test_all_that_flatters_a_score_stands_in_a_banner(make_run, protocol):
    shared = replace(protocol, name="three-TALKERS-SHARED", shares_talkers=True)
    for name, settings, said in (
        ("oracle", {"protocol": as_oracle(protocol)}, "ORACLE."),
        ("shared", {"protocol": shared}, "TALKERS SHARED."),
        ("seen", {"adapter_training": "transductive"}, "TRANSDUCTIVE."),
    ):
        (banner,) = banners(load_run(make_run(name, **settings)))
        assert banner.title == said


def test_utterances_that_could_not_be_read_are_counted_in_a_banner_and_named_with_their_reasons(make_run):
    unread = {"a_1": "a_1.wav: holds no sound", "b_2": "b_2.wav: <no> such file"}
    paths = write_report(make_run(without_frames=unread))
    page, text = paths.html.read_text(), paths.markdown.read_text()
    assert "<strong>UTTERANCES MISSING.</strong> Of the utterances to extract 2 could not be read" in page
    assert "b_2.wav: &lt;no&gt; such file" in page
    assert "| a_1 | a_1.wav: holds no sound |" in text
    assert json.loads(paths.scores.read_text())["without_frames"] == unread


def test_a_collapsed_teacher_stands_in_a_banner(make_run):
    folder = make_run()
    path = folder / "folds" / "fold-1" / "seed-0" / "cost.json"
    path.write_text(path.read_text().replace("false", "true"))
    (banner,) = banners(load_run(folder))
    assert banner.text.endswith("used few attributes, in fold-1 seed 0.")


def test_what_the_run_is_made_of_is_all_there_and_escaped(written):
    page = written.html.read_text(encoding="utf-8")
    for expected in (
        "serein crossval frames/ --protocol three-pairs",
        "epochs = 5 # &lt;b&gt;&quot;five&quot;&lt;/b&gt;",
        "1 text: &lt;i&gt;dogs&lt;/i&gt;",
        "toy/encoder",
        "Each pair of talkers is tested once.",
        "<td>F1, M1</td><td>F2, M2</td><td>F3, M3</td>",
        "10 min 00 s",
        "5,037 (adapter 5,000, head 37)",
        "1.00 GiB",
    ):
        assert expected in page


def test_the_same_run_gives_the_same_bytes(written, default_run):
    files = (written.html, written.markdown, written.scores, *written.figures)
    before = [path.read_bytes() for path in files]
    write_report(default_run)
    assert [path.read_bytes() for path in files] == before


def test_a_linear_probe_has_one_map_and_no_curves(make_run):
    paths = write_report(make_run(adapter=False))
    assert [path.name for path in paths.figures] == ["confusion.svg", "embeddings.svg"]
    assert "<h2>Training</h2>" not in paths.html.read_text()
    assert list(json.loads(paths.scores.read_text())["silhouettes"]) == ["Frozen encoder"]


def test_a_committee_of_two_encoders_says_whose_frames_are_shown(make_run, tmp_path):
    first, second = make_run("first"), make_run("second")
    facts = json.loads((second / "run.json").read_text())
    facts["encoder"]["layers"] = [9]
    (second / "run.json").write_text(json.dumps(facts))
    paths = write_report(average([first, second], tmp_path / "both"))
    assert list(json.loads(paths.scores.read_text())["silhouettes"]) == ["Frozen encoder of the first member"]


def test_silhouettes_show_the_space_that_parts_emotions(written):
    encoder, system = json.loads(written.scores.read_text())["silhouettes"].values()
    assert encoder["minus_first"] is None
    assert system["score"]["value"] > 0.5 > 0.2 > encoder["score"]["value"]
    minus = system["minus_first"]
    assert minus["value"] == pytest.approx(system["score"]["value"] - encoder["score"]["value"])
    assert 0 < minus["interval"]["low"] < minus["value"] < minus["interval"]["high"]


def test_table_and_picture_say_the_same_silhouettes(written):
    numbers = json.loads(written.scores.read_text())["silhouettes"]
    picture = next(path for path in written.figures if path.stem == "embeddings").read_text()
    text = written.markdown.read_text().replace("\\", "")
    for space, found in numbers.items():
        score = found["score"]
        said = f"{score['value']:.3f} [{score['interval']['low']:.3f}, {score['interval']['high']:.3f}]"
        assert f"| {space} | {said} |" in text
        assert f">silhouette {said}<" in picture
    minus = numbers["adapter, after fine-tuning"]["minus_first"]
    ends = f"{minus['interval']['low']:+.3f}, {minus['interval']['high']:+.3f}"
    assert f" | {minus['value']:+.3f} [{ends}] |" in text
    assert "they are not widened for their number" in text


def test_runs_under_one_protocol_are_compared_in_pairs(make_run):
    good, bad = make_run("good", accuracy=0.95), make_run("bad", adapter=False, accuracy=0.3)
    paths = write_report(good, [bad])
    (other,) = json.loads(paths.scores.read_text())["others"]
    minus = other["minus_first"]
    pooled = [summarise(load_run(folder)).pooled.ua for folder in (good, bad)]
    assert minus["scores"]["ua"] == pytest.approx(pooled[1] - pooled[0])
    assert minus["intervals"]["ua"]["high"] < 0
    assert f"{100 * minus['scores']['ua']:.1f} [" in paths.html.read_text()
    assert "Not comparable" not in paths.html.read_text()


def test_runs_under_other_protocols_are_shown_and_called_not_comparable(make_run, protocol):
    ours = make_run("ours")
    oracle = make_run("oracle", adapter=False, adapter_training="transductive", protocol=as_oracle(protocol))
    paths = write_report(ours, [oracle])
    assert "<strong>Not comparable.</strong>" in paths.html.read_text()
    assert json.loads(paths.scores.read_text())["others"][0]["minus_first"] is None
    header, _, row = score_table([load_run(ours), load_run(oracle)])
    cells = dict(zip(header, row, strict=True))
    assert cells["UA minus first"] == "not comparable"
    assert "ORACLE: the validation part of a fold is its test part." in write_report(oracle).markdown.read_text()
    assert "ORACLE: the validation" not in paths.markdown.read_text()
    assert cells["Remarks"] == "ORACLE: intervals too narrow, transductive: intervals too narrow"


def test_talker_statistics_are_a_remark_and_an_old_run_has_none(make_run):
    old, normed = make_run("old"), make_run("normed", talker_statistics="z-norm")
    runs = [load_run(old), load_run(normed)]
    assert [run.talker_statistics for run in runs] == ["none", "z-norm"]
    header, *rows = score_table(runs)
    assert [row[header.index("Remarks")] for row in rows] == ["", "talker statistics"]
    assert json.loads(write_report(normed).scores.read_text())["talker_statistics"] == "z-norm"


def test_one_protocol_but_other_talkers_is_an_error(make_run):
    ours, changed = make_run("ours"), make_run("changed")
    table = changed / "predictions.csv"
    table.write_text(re.sub(r"(F1_\d\d),F1,", r"\1,F7,", table.read_text()).replace(",F2,", ",F7,"))
    with pytest.raises(CorpusError, match="same utterances"):
        compare(load_run(ours), load_run(changed))


def test_one_fold_one_seed_one_talker_leaves_dashes_and_nulls(make_run, protocol):
    fold = protocol.folds[0]
    alone = Fold("only", fold.train, fold.validation, tuple(id_ for id_ in fold.test if id_.startswith("F1")))
    folder = make_run(adapter=False, protocol=replace(protocol, folds=(alone,)))
    table = folder / "predictions.csv"
    table.write_text("".join(line for line in table.read_text().splitlines(True) if ",only,1," not in line))
    facts = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(facts | {"seeds": [0]}))
    paths = write_report(folder)
    numbers = json.loads(paths.scores.read_text())
    assert numbers["intervals"]["ua"] == {"low": None, "high": None}
    assert numbers["fold_sd"]["ua"] is None
    score = numbers["silhouettes"]["Frozen encoder"]["score"]
    assert score["interval"] == {"low": None, "high": None}
    assert f"{score['value']:.3f} [unknown]" in paths.html.read_text(encoding="utf-8")
    page = paths.html.read_text(encoding="utf-8")
    assert "95 % interval unknown" in page
    assert "± \u2013" in page
    assert re.search(r"those of [0-9]+ utterances that no fold tests", page)
    assert "1 talker, 1 fold, 1 seed" in page


def test_times_are_told_in_the_unit_that_fits():
    told = [provenance._duration(seconds) for seconds in (0.25, 59.9, 61.0, 7325.0)]
    assert told == ["0.2 s", "59.9 s", "1 min 01 s", "2 h 02 min"]


def test_without_the_extra_the_error_says_what_to_install(make_run, monkeypatch):
    monkeypatch.setattr(report, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'serein\[report\]'"):
        write_report(make_run())


def test_an_unfinished_run_gets_no_report(make_run):
    folder = make_run()
    (folder / "predictions.csv").unlink()
    with pytest.raises(CorpusError, match="not finished"):
        write_report(folder)
    assert not (folder / "report.html").exists()
