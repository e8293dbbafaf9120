"""What a report says, section by section, as blocks; the numbers come from `summary`, the pictures ready drawn."""

import json
from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from typing import Any

from serein.evaluate.document import (
    Banner,
    Block,
    Cards,
    Code,
    Details,
    Paragraph,
    Picture,
    Section,
    Table,
    Title,
)
from serein.evaluate.metrics import Scores
from serein.evaluate.runs import Run
from serein.evaluate.statistics import Interval, Intervals
from serein.evaluate.summary import Summary, compare, summarise

DEFINITIONS = (
    "UA (unweighted accuracy): the mean of the labels' recalls, each label counting the same.",
    "WA (weighted accuracy): the plain accuracy, utterances recognised right / all utterances.",
    "Macro F1: the mean of the labels' F1 = 2 tp / (2 tp + fp + fn), each label counting the same.",
)


def percent(score: float) -> str:
    """One decimal, and a dash for an undefined score."""
    return "–" if isnan(score) else f"{100 * score:.1f}"


def opening(run: Run, summary: Summary) -> list[Block]:
    """The result in one sentence, with everything that is needed to quote it."""
    pooled, ua = summary.pooled, summary.intervals.ua
    sentence = (
        f"{run.name} on {run.corpus}: UA {percent(pooled.ua)} % (95 % interval {_ends(ua)}), WA {percent(pooled.wa)} %, "
        f"macro F1 {percent(pooled.macro_f1)} %, under protocol {run.protocol.name} ({run.protocol.hash})."
    )
    return [Title(f"{run.name} on {run.corpus}"), Paragraph(sentence)]


def score_table(runs: Sequence[Run]) -> list[list[str]]:
    """A header, then a row a run: pooled scores in percent with 95 % intervals, and the difference to the first run.

    Raises:
        CorpusError: see `serein.evaluate.summary.compare`.
    """
    header = ["System", "Protocol", "Seeds", "UA %", "WA %", "Macro F1 %", "UA minus first", "Remarks"]
    return [header] + [_score_row(run, runs[0]) for run in runs]


def banners(run: Run) -> list[Block]:
    """One for each thing that makes the scores mean less than they seem to."""
    collapsed = [f"fold {done.fold} seed {done.seed}" for done in run.fold_runs if done.collapsed]
    found = {
        ("Oracle.", "Every choice was made on the test utterances, so the scores are higher than on new speech; compare "
         "them only with work that does the same."): run.protocol.oracle,
        ("Shared talkers.", "Talkers of the test parts are also in training or validation, so the scores say little about "
         "new talkers, and the intervals are too narrow."): run.protocol.shares_talkers,
        ("Transductive.", "The adapter was trained on the frames of the test utterances too (without their labels), so the "
         "scores are not those of speech that it never saw."): run.adapter_training == "transductive",
        ("Synthetic voices.", "A machine speaks in this corpus; the scores show that the program works and say nothing "
         "about people."): run.synthetic,
        ("Leaks.", f"Parts of a fold share things that they should not: {len(run.leaks)} found, listed under Protocol."):
            bool(run.leaks),
        ("Collapsed adapter.", f"The teacher gave nearly the same frame for everything in {', '.join(collapsed)}."):
            bool(collapsed),
    }  # fmt: skip
    return [Banner(title, text) for (title, text), applies in found.items() if applies]


def scores(run: Run, summary: Summary) -> list[Block]:
    """Headline cards, the table of scores, and what the words mean."""
    cards = [
        (name, f"{percent(score)} %", f"95 % interval {_ends(interval)}")
        for name, score, interval in (
            ("UA", summary.pooled.ua, summary.intervals.ua),
            ("WA", summary.pooled.wa, summary.intervals.wa),
            ("Macro F1", summary.pooled.macro_f1, summary.intervals.macro_f1),
        )
    ]
    size = (
        "Test utterances",
        f"{len({row.id for row in run.predictions}):,}",
        f"{_count(len(set(_talkers(run).values())), 'talker')}, {_count(len(run.protocol.folds), 'fold')}, "
        f"{_count(len(run.seeds), 'seed')}",
    )
    rows = [
        ["All folds together [95 % interval]", *_with_intervals(summary.pooled, summary.intervals)],
        ["Mean over folds ± standard deviation", *_with_deviation(summary.fold_mean, summary.fold_sd)],
    ]
    if len(run.seeds) > 1:
        rows.append(
            [
                "All folds together ± standard deviation over seeds",
                *_with_deviation(summary.pooled, summary.seed_sd),
            ]
        )
    return [
        Cards([*cards, size]),
        Section("Scores"),
        Table(["", "UA %", "WA %", "Macro F1 %"], rows),
        Paragraph(
            "Scores are computed for each seed and averaged. Intervals are a bootstrap over talkers (10,000 draws): "
            "they say how far the score may move with other talkers of the same kind."
        ),
        *map(Paragraph, DEFINITIONS),
    ]


def comparison(runs: Sequence[Run]) -> list[Block]:
    """The run beside others; nothing where there are none."""
    if len(runs) < 2:
        return []
    header, *rows = score_table(runs)
    blocks: list[Block] = [
        Section("Comparison"),
        Table(header, rows, text_columns=2),
        Paragraph(
            "The last number is the run's UA minus the first run's, in points, with a paired 95 % interval over the same "
            "talkers: where it holds 0, the two cannot be told apart."
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


def embeddings(silhouettes: Mapping[str, float], maps: Picture) -> list[Block]:
    """The pictures of the spaces and how well the labels part them."""
    rows = [[space, f"{value:.3f}" if not isnan(value) else "–"] for space, value in silhouettes.items()]
    text = (
        "Silhouette by true label, cosine distance, computed in the space itself and averaged over folds and seeds: 1 means "
        "that labels are far apart, 0 that they overlap."
    )
    return [
        Section("Embeddings of unseen talkers"),
        maps,
        Table(["Space", "Silhouette"], rows),
        Paragraph(text),
    ]


def training(pictures: Sequence[Picture]) -> list[Block]:
    """Curves; nothing for a system without training steps."""
    return [Section("Training"), *pictures] if pictures else []


def cost(run: Run) -> list[Block]:
    """Time, memory and parameters, and what validation chose."""
    stages = list(dict.fromkeys(stage for done in run.fold_runs for stage in done.seconds))
    rows = []
    for stage in stages:
        seconds = [done.seconds[stage] for done in run.fold_runs if stage in done.seconds]
        rows.append([stage, _duration(sum(seconds) / len(seconds)), _duration(sum(seconds))])
    rows.append(["all", "", _duration(sum(sum(done.seconds.values()) for done in run.fold_runs))])
    parameters = run.fold_runs[0].trainable_parameters
    parts = ", ".join(f"{part} {number:,}" for part, number in parameters.items())
    memory = max(done.peak_memory_bytes for done in run.fold_runs)
    each = [
        [
            done.fold,
            str(done.seed),
            ", ".join(f"{name} {value}" for name, value in done.choice.items()) or "–",
            *(_duration(done.seconds[stage]) if stage in done.seconds else "–" for stage in stages),
        ]
        for done in run.fold_runs
    ]
    return [
        Section("Cost"),
        Table(["Stage", "A fold and seed", "Altogether"], rows),
        Paragraph(
            f"Trainable parameters: {sum(parameters.values()):,} ({parts}). Most memory in use: {memory / 2**30:.2f} GiB. "
            "The frozen encoder's frames were extracted before and are not counted."
        ),
        Details(
            "Every fold and seed, and what its validation part chose",
            [Table(["Fold", "Seed", "Choice", *stages], each, text_columns=3)],
        ),
    ]


def protocol(run: Run) -> list[Block]:
    """The protocol in words, who is in each fold, and what leaks."""
    talkers = _talkers(run)
    rows = [
        [fold.name, *(_named(part, talkers) for part in parts), *(f"{len(part):,}" for part in parts)]
        for fold in run.protocol.folds
        for parts in [(fold.test, fold.validation, fold.train)]
    ]
    header = [
        "Fold",
        "Test talkers",
        "Validation talkers",
        "Training talkers",
        "Test",
        "Validation",
        "Training",
    ]
    leaks: list[Block] = [Table(["Leaks"], [[leak] for leak in run.leaks])]
    return [
        Section("Protocol"),
        Paragraph(f"{run.protocol.name}, hash {run.protocol.hash}. {run.protocol.description}"),
        Paragraph(f"Adapter training: {run.adapter_training}. Labels: {', '.join(run.protocol.labels)}."),
        Table(header, rows, text_columns=4),
        *(leaks if run.leaks else [Paragraph("No leaks between the parts of a fold are on record.")]),
    ]


def reproduction(run: Run) -> list[Block]:
    """Everything that is needed to run it again."""
    return [
        Section("To run it again"),
        Code(run.command),
        Details("Recipe", [Code(run.recipe)]),
        Details("Encoder", [Table(["", ""], _facts(run.encoder), text_columns=2)]),
        Details("Environment", [Table(["", ""], _facts(run.environment), text_columns=2)]),
    ]


def _score_row(run: Run, first: Run) -> list[str]:
    summary = summarise(run)
    difference = None if run is first else compare(run, first)
    if difference:
        minus = f"{100 * difference.scores.ua:+.1f} [{_ends(difference.intervals.ua, '+.1f', ', ')}]"
    else:
        minus = "" if run is first else "not comparable"
    flags = {
        "ORACLE": run.protocol.oracle,
        "shared talkers": run.protocol.shares_talkers,
        f"{run.adapter_training} adapter": run.adapter_training != "none",
        "synthetic voices": run.synthetic,
        "leaks": bool(run.leaks),
    }
    return [
        run.name,
        f"{run.protocol.name} ({run.protocol.hash})",
        str(len(run.seeds)),
        *_with_intervals(summary.pooled, summary.intervals),
        minus,
        ", ".join(flag for flag, applies in flags.items() if applies),
    ]


def _ends(interval: Interval, form: str = ".1f", between: str = " to ") -> str:
    ends = (interval.low, interval.high)
    return "unknown" if isnan(interval.low) else between.join(f"{100 * end:{form}}" for end in ends)


def _in_percent(scores: Scores) -> list[str]:
    return [percent(scores.ua), percent(scores.wa), percent(scores.macro_f1)]


def _with_intervals(scores: Scores, intervals: Intervals) -> list[str]:
    ordered = (intervals.ua, intervals.wa, intervals.macro_f1)
    return [
        f"{score} [{_ends(of, between=', ')}]" for score, of in zip(_in_percent(scores), ordered, strict=True)
    ]


def _with_deviation(scores: Scores, deviation: Scores) -> list[str]:
    return [f"{score} ± {sd}" for score, sd in zip(_in_percent(scores), _in_percent(deviation), strict=True)]


def _talkers(run: Run) -> dict[str, str]:
    return {row.id: row.talker for row in run.predictions}


def _named(ids: Iterable[str], talkers: Mapping[str, str]) -> str:
    # utterances that no fold tests have no row in predictions.csv, so nobody here knows their talkers
    names = sorted({talkers.get(id_, "talkers that are never tested") for id_ in ids})
    return ", ".join(names) if len(names) <= 12 else f"{len(names)} talkers"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _facts(content: Mapping[str, Any]) -> list[list[str]]:
    return [
        [str(key), value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)]
        for key, value in content.items()
    ]
