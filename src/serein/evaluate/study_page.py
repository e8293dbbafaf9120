"""A study as a page: one table, one picture (curves where shares of labels differ), every number as JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from serein.errors import UsageError
from serein.evaluate import document
from serein.evaluate.comparison import ends, in_points, in_thousandths
from serein.evaluate.document import Banner, Block, Code, Details, Paragraph, Picture, Section, Table, Title
from serein.evaluate.remarks import remarks
from serein.evaluate.runs import Run
from serein.evaluate.sections import DEFINITIONS, percent
from serein.evaluate.study import FORMAT, Row, Study, load_study
from serein.evaluate.study_curves import Curves, curve_blocks, curve_numbers, curve_picture, label_curves
from serein.files import as_json, write_atomically

SCORE_HEADER = ("Variant", "Remarks", "UA %", "WA %", "Macro F1 %")
SEEDS_HEADER = ("UA, SD of seeds",)
MINUS_HEADER = ("UA minus first", "p", "p (Holm)")
COST_HEADER = ("Seconds", "Parameters", "MiB")
TEXT_COLUMNS = 2
FOOTER = "Every score is computed from predictions.csv of the runs; all numbers are in scores.json."
READING = (
    "UA minus first: the variant's UA minus that of the first, in points, with a paired 95 % interval over the same "
    "talkers. p: how likely these trained models, were they equally good, would differ by at least this much with "
    "such talkers; Holm's is adjusted for the number of differences, and it decides: below 0.05 one variant is called "
    "better (in a study of inflation: flattered), else the two cannot be told apart, which does not say that they are "
    "alike. What trainings from other seeds would score is in no interval and no p."
)
SEEDS_READING = "UA, SD of seeds: standard deviation of the UA of the training seeds, in points."
COST_READING = (
    "Seconds: wall time, summed over stages, folds and seeds; scores.json has it by stage. Parameters: what is trained "
    "with labels. MiB: the most memory in use; on a processor that of the whole process so far, so that a variant "
    "also shows what an earlier one of the same call needed."
)


@dataclass(frozen=True, slots=True)
class StudyPaths:
    """What `write_study` wrote."""

    html: Path
    markdown: Path
    scores: Path
    figures: tuple[Path, ...]


def score_table(study: Study) -> list[list[str]]:
    """A header, then a row a variant; the first `TEXT_COLUMNS` cells are words.

    Where shares of labels differ nothing is held against the first: `serein.evaluate.study_curves` compares those that
    have as many.
    """
    header, scores = [*SCORE_HEADER], [_score_cells(row) for row in study.rows]
    if _several_seeds(study):
        header += SEEDS_HEADER
        for cells, row in zip(scores, study.rows, strict=True):
            cells.append(percent(row.summary.seed_sd.ua) if len(row.run.seeds) > 1 else "")
    if study.fewer_labels:
        return [header, *scores]
    minus = [["", "", ""], *(_minus_cells(row) for row in study.rows[1:])]
    return [[*header, *MINUS_HEADER], *([*left, *right] for left, right in zip(scores, minus, strict=True))]


def readings(study: Study) -> list[Paragraph]:
    """How to read what the study's table has beside the scores."""
    texts = [
        *((READING,) if not study.fewer_labels else ()),
        *((SEEDS_READING,) if _several_seeds(study) else ()),
        COST_READING,
    ]
    return [Paragraph(text) for text in texts]


def opening(study: Study) -> Paragraph:
    """What was tested: corpus, protocol, test utterances and talkers of the first run, and everybody's seeds."""
    first = study.rows[0].run
    others = [f"{row.name}: {_seeds(row.run)}" for row in study.rows if row.run.seeds != first.seeds]
    but = f" ({'; '.join(others)})" if others else ""
    talkers = {prediction.talker for prediction in first.predictions}
    tested = {prediction.id for prediction in first.predictions}
    return Paragraph(
        f"Corpus {first.corpus}, protocol {first.protocol.name} ({first.protocol.hash}): {len(tested):,} test "
        f"utterances of {len(talkers)} talkers; training seeds {_seeds(first)}{but}."
    )


def banners(study: Study) -> list[Banner]:
    """What may not be overlooked: synthetic voices, dishonest splits, scores of several protocols."""
    runs = [row.run for row in study.rows]
    found = [
        (
            any(run.synthetic for run in runs),
            "SYNTHETIC VOICES.",
            "A machine speaks in this corpus: the scores show that the program works and say nothing about people.",
        ),
        (
            study.kind == "inflation",
            "NOT TO BE QUOTED.",
            "Only the first row is the score of an honest split. The others show what is gained, or seems to be, by "
            "looking at what is to be tested.",
        ),
        (
            study.kind != "inflation" and any(run.protocol.hash != runs[0].protocol.hash for run in runs),
            "NOT COMPARABLE.",
            "Runs under another protocol (another hash) tested other utterances or learnt from others: their scores "
            "stand here to be seen, not to be compared.",
        ),
    ]
    return [Banner(title, text) for applies, title, text in found if applies]


def picture(study: Study) -> Picture:
    """UA of each variant and its difference to the first."""
    from serein.evaluate import study_plots  # needs matplotlib, which the table does not

    svg = study_plots.dots(
        [row.name for row in study.rows],
        [(row.summary.pooled.ua, row.summary.intervals.ua) for row in study.rows],
        [(row.minus_first.ua, row.minus_first.interval) if row.minus_first else None for row in study.rows],
    )
    text = (
        "UA of each variant with its 95 % interval, and its difference to the first with the paired interval; the "
        "dashed line is the first variant."
    )
    return Picture("study", svg, text)


def write_study(folder: str | Path) -> StudyPaths:
    """Write ``study.html``, ``study.md``, ``scores.json`` and ``figures/*.svg`` into a study's folder.

    The same runs give the same bytes.

    Raises:
        UsageError: matplotlib is not installed.
        CorpusError: see `serein.evaluate.study.load_study`.
    """
    if not find_spec("matplotlib"):
        raise UsageError("a study's picture needs matplotlib: pip install 'serein[report]'")
    study = load_study(folder)
    curves = label_curves(study)
    blocks = _blocks(study, curves)
    figures = {
        study.folder / "figures" / f"{block.name}.svg": block.svg for block in blocks if isinstance(block, Picture)
    }
    paths = StudyPaths(
        study.folder / "study.html",
        study.folder / "study.md",
        study.folder / "scores.json",
        tuple(figures),
    )
    texts = figures | {
        paths.html: document.page(study.title, blocks, FOOTER),
        paths.markdown: document.markdown(blocks) + "\n",
        paths.scores: as_json(_numbers(study, curves)),
    }
    for path, text in texts.items():
        write_atomically(path, text.encode(errors="backslashreplace"))  # names of files need not be UTF-8
    return paths


def table(study: Study) -> Table:
    """A row a variant: what it scored, and what it cost."""
    header, *scores = score_table(study)
    rows = [[*cells, *_cost_cells(row.run)] for cells, row in zip(scores, study.rows, strict=True)]
    return Table([*header, *COST_HEADER], rows, text_columns=TEXT_COLUMNS)


def _blocks(study: Study, curves: Curves | None) -> list[Block]:
    return [
        Title(study.title),
        opening(study),
        *banners(study),
        *(curve_blocks(curves, curve_picture(curves)) if curves else [picture(study)]),
        table(study),
        *readings(study),
        *map(Paragraph, DEFINITIONS),
        Section("Runs"),
        *_identities(study),
        *(Details(row.name, [Code(row.run.command), Code(row.run.recipe)]) for row in study.rows),
    ]


def _score_cells(row: Row) -> list[str]:
    pooled = row.summary.pooled
    return [
        row.name,
        ", ".join(remarks(row.run)),
        f"{percent(pooled.ua)} [{ends(row.summary.intervals.ua, between=', ')}]",
        percent(pooled.wa),
        percent(pooled.macro_f1),
    ]


def _several_seeds(study: Study) -> bool:
    return any(len(row.run.seeds) > 1 for row in study.rows)


def _minus_cells(row: Row) -> list[str]:
    found = row.minus_first
    if not found:
        return ["not comparable", "", ""]
    return [in_points(found.ua, found.interval), in_thousandths(found.p), in_thousandths(found.holm_p)]


def _cost_cells(run: Run) -> list[str]:
    if not _seconds(run):  # predictions that were imported
        return [""] * 3
    return [
        f"{sum(_seconds(run).values()):,.1f}",
        f"{_parameters(run):,}",
        f"{_memory(run) / 2**20:,.0f}",
    ]


def _identities(study: Study) -> list[Block]:
    """Which runs these are; a protocol's description is long, so one that all share stands above the table."""
    runs = [row.run for row in study.rows]
    protocols = [f"{run.protocol.name} ({run.protocol.hash}). {run.protocol.description}" for run in runs]
    columns = {
        "Variant": [row.name for row in study.rows],
        "System": [run.name for run in runs],
        "Adapter training": [run.adapter_training for run in runs],
        "Protocol": protocols,
        "Seeds": [_seeds(run) for run in runs],
    }
    shared: list[Block] = []
    if len(set(protocols)) == 1:
        del columns["Protocol"]
        shared = [Paragraph(f"Protocol: {protocols[0]}")]
    return [*shared, Table([*columns], [*zip(*columns.values(), strict=True)], len(columns) - 1)]


def _seeds(run: Run) -> str:
    return ", ".join(map(str, run.seeds))


def _seconds(run: Run) -> dict[str, float]:
    stages = dict.fromkeys(stage for done in run.fold_runs for stage in done.seconds)
    return {stage: sum(done.seconds.get(stage, 0.0) for done in run.fold_runs) for stage in stages}


def _parameters(run: Run) -> int:
    return sum(run.fold_runs[0].trainable_parameters.values())


def _memory(run: Run) -> int:
    return max(done.peak_memory_bytes for done in run.fold_runs)


def _numbers(study: Study, curves: Curves | None) -> Mapping[str, Any]:
    return {
        "format": FORMAT,
        "kind": study.kind,
        "title": study.title,
        "variants": [
            {
                "name": row.name,
                "folder": row.run.folder.name,
                "system": row.run.system,
                "adapter_training": row.run.adapter_training,
                "talker_statistics": row.run.talker_statistics,
                "corpus": row.run.corpus,
                "seeds": row.run.seeds,
                "synthetic": row.run.synthetic,
                "protocol": {"name": row.run.protocol.name, "hash": row.run.protocol.hash},
                "remarks": remarks(row.run),
                "scores": asdict(row.summary.pooled),
                "intervals": asdict(row.summary.intervals),
                "seed_sd": asdict(row.summary.seed_sd),
                "minus_first": row.minus_first and asdict(row.minus_first),
                "seconds": _seconds(row.run),
                "trainable_parameters": _parameters(row.run),
                "peak_memory_bytes": _memory(row.run),
            }
            for row in study.rows
        ],
        "curves": curve_numbers(curves) if curves else [],
    }
