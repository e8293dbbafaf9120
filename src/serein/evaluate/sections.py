"""What a report says about the scores, section by section, as blocks of a document."""

from collections.abc import Mapping, Sequence
from math import isnan

from serein.evaluate.comparison import TEXT_COLUMNS, compare_all, comparison_table, ends, in_points
from serein.evaluate.document import (
    Banner,
    Block,
    Cards,
    Paragraph,
    Picture,
    Section,
    Table,
    Title,
)
from serein.evaluate.metrics import Scores
from serein.evaluate.remarks import remarks
from serein.evaluate.runs import Run, distinct_names
from serein.evaluate.silhouettes import Estimate, Silhouette
from serein.evaluate.statistics import Intervals
from serein.evaluate.summary import Summary, compare, summarise

UNDEFINED = "\u2013"
DEFINITIONS = (
    "UA (unweighted accuracy): the mean of the labels' recalls, each label counting the same.",
    "WA (weighted accuracy): the plain accuracy, utterances recognised right / all utterances.",
    "Macro F1: the mean of the labels' F1 = 2 tp / (2 tp + fp + fn), each label counting the same.",
)


def percent(score: float) -> str:
    """One decimal, and a dash for an undefined score."""
    return UNDEFINED if isnan(score) else f"{100 * score:.1f}"


def title(run: Run) -> str:
    """What was judged on what."""
    return f"{run.name[:1].upper()}{run.name[1:]} ({run.corpus})"


def opening(run: Run, summary: Summary) -> list[Block]:
    """The result in one sentence, with everything that is needed to quote it."""
    pooled, ua = summary.pooled, summary.intervals.ua
    sentence = (
        f"{title(run)}: UA {percent(pooled.ua)} % (95 % interval {ends(ua)}), WA {percent(pooled.wa)} %, "
        f"macro F1 {percent(pooled.macro_f1)} %, under protocol {run.protocol.name} ({run.protocol.hash})."
    )
    return [Title(title(run)), Paragraph(sentence)]


def score_table(runs: Sequence[Run]) -> list[list[str]]:
    """A header, then a row a run: pooled scores in percent, UA's 95 % interval, and its difference to the first run's.

    Raises:
        CorpusError: see `serein.evaluate.summary.compare`.
    """
    header = ["System", "Protocol", "Remarks", "Seeds", "UA %", "WA %", "Macro F1 %", "UA minus first"]
    named = zip(distinct_names(runs), runs, strict=True)
    return [header] + [_score_row(name, run, runs[0]) for name, run in named]


def banners(run: Run) -> list[Block]:
    """One for each thing that makes the scores mean less than they seem to."""
    collapsed = ", ".join(f"{done.fold} seed {done.seed}" for done in run.fold_runs if done.collapsed)
    found = [
        (
            run.protocol.oracle,
            "ORACLE.",
            "Every choice was made on the test utterances, so the scores tend to be higher than on new speech; compare "
            "them only with work that does the same.",
        ),
        (
            run.protocol.shares_talkers,
            "TALKERS SHARED.",
            "Talkers of the test parts may also be in training or validation, so the scores say little about new "
            "talkers, and the intervals are too narrow.",
        ),
        (
            run.adapter_training == "transductive",
            "TRANSDUCTIVE.",
            "The adapter was trained on the test utterances too (without their labels), so the scores are not those "
            "of speech that it never heard.",
        ),
        (
            run.synthetic,
            "SYNTHETIC VOICES.",
            "A machine speaks in this corpus: the scores show that the program works and say nothing about people.",
        ),
        (
            bool(run.without_frames),
            "UTTERANCES MISSING.",
            f"Of the utterances to extract {len(run.without_frames):,} could not be read: they are in no fold, and "
            "count neither as right nor as wrong. They are named under the protocol.",
        ),
        (
            bool(collapsed),
            "COLLAPSED.",
            f"The adapter's teacher gave nearly one frame for everything, or used few attributes, in {collapsed}.",
        ),
    ]
    return [Banner(title, text) for applies, title, text in found if applies]


def scores(run: Run, summary: Summary) -> list[Block]:
    """Headline cards, the table of scores, what to know beside them, and what the words mean."""
    cards = [
        (name, f"{percent(score)} %", f"95 % interval {ends(interval, between=UNDEFINED)}")
        for name, score, interval in (
            ("UA", summary.pooled.ua, summary.intervals.ua),
            ("WA", summary.pooled.wa, summary.intervals.wa),
            ("Macro F1", summary.pooled.macro_f1, summary.intervals.macro_f1),
        )
    ]
    size = (
        "Test utterances",
        f"{len({row.id for row in run.predictions}):,}",
        f"{_count(len({row.talker for row in run.predictions}), 'talker')}, {_count(len(run.protocol.folds), 'fold')}, "
        f"{_count(len(run.seeds), 'seed')}",
    )
    rows = [
        ["All folds together [95 % interval]", *_with_intervals(summary.pooled, summary.intervals)],
        ["Mean over folds ± sd over folds", *_with_deviation(summary.fold_mean, summary.fold_sd)],
    ]
    if len(run.seeds) > 1:
        rows.append(["All folds together ± sd over seeds", *_with_deviation(summary.pooled, summary.seed_sd)])
    return [
        Cards([*cards, size]),
        Section("Scores"),
        Table(["", "UA %", "WA %", "Macro F1 %"], rows),
        *([Paragraph(f"Remarks: {', '.join(found)}.")] if (found := remarks(run)) else []),
        Paragraph(
            "Scores are computed for each seed and averaged. Intervals come from leaving out each talker in turn (a "
            "jackknife): they say how far the score may move with other talkers of the same kind. sd: standard "
            "deviation."
        ),
        *map(Paragraph, DEFINITIONS),
    ]


def comparison(runs: Sequence[Run]) -> list[Block]:
    """The run beside others; nothing where there are none."""
    if len(runs) < 2:
        return []
    header, *rows = score_table(runs)
    pair_header, *pair_rows = comparison_table(compare_all(runs))
    blocks: list[Block] = [
        Section("Comparison"),
        Table(header[:-1], [row[:-1] for row in rows], text_columns=3),  # the last column opens the next table
        Table(pair_header, pair_rows, text_columns=TEXT_COLUMNS),
        Paragraph(
            "UA difference: the system's UA minus that of the one it is held against, in points, with a paired 95 % "
            "interval over the same talkers. p: how likely these trained systems, were they equally good, would differ "
            "by at least this much with such talkers; what trainings from other seeds would score is in no interval "
            "and no p. Holm's p is adjusted for the number of comparisons, and where it is below 0.05 one system is "
            "called better. McNemar's p takes the utterances of one talker as independent, so it is often too "
            "small, and it takes of each system the first seeds only, as many as both have; it decides nothing here."
        ),
    ]
    if any(run.protocol.hash != runs[0].protocol.hash for run in runs):
        text = "Runs under another protocol (another hash) tested other utterances or learnt from others: their scores "
        blocks.append(Banner("Not comparable.", text + "stand here to be seen, not to be compared."))
    return blocks


def folds_and_classes(run: Run, summary: Summary, confusion: Picture) -> list[Block]:
    """Scores of each fold and of each label, and what is taken for what."""
    sizes = {fold.name: len(fold.test) for fold in run.protocol.folds}
    fold_rows = [[name, f"{sizes[name]:,}", *_in_percent(fold)] for name, fold in summary.folds.items()]
    class_rows = [
        [label, f"{of.utterances:,}", percent(of.recall), percent(of.precision), percent(of.f1)]
        for label, of in summary.classes.items()
    ]
    return [
        Section("Folds"),
        Table(["Fold", "Utterances", "UA %", "WA %", "Macro F1 %"], fold_rows),
        Section("Labels"),
        Table(["Label", "Utterances", "Recall %", "Precision %", "F1 %"], class_rows),
        confusion,
    ]


def embeddings(silhouettes: Mapping[str, Silhouette], maps: Picture) -> list[Block]:
    """The pictures of the spaces, how well the labels part them, and the differences to the first."""
    first, *others = silhouettes
    header = ["Space", "Silhouette [95 % interval]", *([f"Minus {first} [95 % interval]"] if others else [])]
    rows = [
        [space, with_interval(found.score), *([with_interval(found.minus_first, "+.3f")] if found.minus_first else [])]
        for space, found in silhouettes.items()
    ]
    text = (
        "Silhouette by true label (cosine distance, in the space itself, averaged over folds and seeds): 1 means that "
        "the labels lie far apart, 0 that they overlap. Intervals come from leaving out each talker in turn, and those "
        "of a difference from leaving them out of both spaces at once; they are not widened for their number."
    )
    return [
        Section("Embeddings of the test utterances"),
        maps,
        Table(header, [row + [""] * (len(header) - len(row)) for row in rows]),
        Paragraph(text),
    ]


def with_interval(estimate: Estimate, form: str = ".3f") -> str:
    """A silhouette and its interval."""
    value, interval = estimate.value, estimate.interval
    inner = "unknown" if isnan(interval.low) else f"{interval.low:{form}}, {interval.high:{form}}"
    return f"{UNDEFINED if isnan(value) else format(value, form)} [{inner}]"


def training(pictures: Sequence[Picture]) -> list[Block]:
    """Curves; nothing for a system without training steps."""
    return [Section("Training"), *pictures] if pictures else []


def _score_row(name: str, run: Run, first: Run) -> list[str]:
    summary = summarise(run)
    difference = None if run is first else compare(run, first)
    minus = "" if run is first else "not comparable"
    if difference:
        minus = in_points(difference.scores.ua, difference.intervals.ua)
    pooled, interval = summary.pooled, summary.intervals.ua
    return [
        name,
        f"{run.protocol.name} ({run.protocol.hash})",
        ", ".join(remarks(run)),
        str(len(run.seeds)),
        f"{percent(pooled.ua)} [{ends(interval, between=', ')}]",
        percent(pooled.wa),
        percent(pooled.macro_f1),
        minus,
    ]


def _in_percent(scores: Scores) -> list[str]:
    return [percent(scores.ua), percent(scores.wa), percent(scores.macro_f1)]


def _with_intervals(scores: Scores, intervals: Intervals) -> list[str]:
    ordered = (intervals.ua, intervals.wa, intervals.macro_f1)
    return [f"{score} [{ends(of, between=', ')}]" for score, of in zip(_in_percent(scores), ordered, strict=True)]


def _with_deviation(scores: Scores, deviation: Scores) -> list[str]:
    return [f"{score} ± {sd}" for score, sd in zip(_in_percent(scores), _in_percent(deviation), strict=True)]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
