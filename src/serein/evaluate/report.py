"""The report of a run: one HTML page, the same in Markdown, and every number as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from serein.errors import UsageError
from serein.evaluate import document, provenance, sections
from serein.evaluate.document import Picture
from serein.evaluate.embeddings import load_embeddings
from serein.evaluate.remarks import remarks
from serein.evaluate.runs import FoldRun, Run, load_run
from serein.evaluate.silhouettes import Embedded, Silhouette, silhouettes
from serein.evaluate.summary import Summary, compare, summarise
from serein.files import as_json, write_atomically

FORMAT = 1
FOOTER = "Every score is computed from predictions.csv in this folder; all numbers are in scores.json."
_COSTS = ("fold", "seed", "seconds", "peak_memory_bytes", "trainable_parameters", "choice", "collapsed")


@dataclass(frozen=True, slots=True)
class ReportPaths:
    """What `write_report` wrote."""

    html: Path
    markdown: Path
    scores: Path
    figures: tuple[Path, ...]


def write_report(run: str | Path, others: Sequence[str | Path] = ()) -> ReportPaths:
    """Write ``report.html``, ``report.md``, ``scores.json`` and ``figures/*.svg`` into a run's folder.

    The same run gives the same bytes. The page needs no network.

    Args:
        run: the run's folder.
        others: folders of runs to compare it with.

    Raises:
        UsageError: matplotlib or scikit-learn is not installed.
        CorpusError: see `serein.evaluate.runs.load_run` and `serein.evaluate.summary.compare`.
    """
    if not (find_spec("matplotlib") and find_spec("sklearn")):
        raise UsageError("a report needs matplotlib and scikit-learn: pip install 'serein[report]'")
    run = Path(run)
    runs = [load_run(folder) for folder in (run, *others)]
    this, summary = runs[0], summarise(runs[0])
    confusion, curves = _pictures(this, summary)
    found: Mapping[str, Silhouette] = {}
    maps = []
    if known := [(done, done.embeddings) for done in this.fold_runs if done.embeddings]:
        found = silhouettes(_embedded(this, done, path) for done, path in known)
        maps = [_maps(this, _embedded(this, *known[0]), found)]
    blocks = [
        *sections.opening(this, summary),
        *sections.banners(this),
        *sections.scores(this, summary),
        *sections.comparison(runs),
        *sections.folds_and_classes(this, summary, confusion),
        *(block for picture in maps for block in sections.embeddings(found, picture)),
        *sections.training(curves),
        *provenance.cost(this),
        *provenance.protocol(this),
        *provenance.reproduction(this),
    ]
    figures = {run / "figures" / f"{picture.name}.svg": picture.svg for picture in (confusion, *maps, *curves)}
    paths = ReportPaths(run / "report.html", run / "report.md", run / "scores.json", tuple(figures))
    texts = figures | {
        paths.html: document.page(sections.title(this), blocks, FOOTER),
        paths.markdown: document.markdown(blocks) + "\n",
        paths.scores: as_json(_numbers(runs, summary, found)),
    }
    for path, text in texts.items():
        write_atomically(path, text.encode(errors="backslashreplace"))  # names of files need not be UTF-8
    return paths


def _pictures(run: Run, summary: Summary) -> tuple[Picture, list[Picture]]:
    from serein.evaluate import plots  # needs matplotlib, which reading runs and scoring them does not

    labels = run.protocol.labels
    seeds = f", counts summed over {len(run.seeds)} seeds" if len(run.seeds) > 1 else ""
    text = f"Confusion matrix: of the utterances of a row's label, percent recognised as each column's{seeds}."
    confusion = Picture("confusion", plots.confusion(summary.confusion, labels), text)

    curves = []
    for stage, name, draw, what in (
        ("finetune", "learning", plots.learning_curves, "Training on labels"),
        ("adapt", "adapter", plots.adapter_health, "Training the adapter without labels"),
    ):
        histories = [done.history[stage] for done in run.fold_runs if stage in done.history]
        if histories:
            text = f"{what}: a thin line for each fold and seed, a thick one for their mean."
            curves.append(Picture(name, draw(histories), text))
    return confusion, curves


def _maps(run: Run, shown: Embedded, found: Mapping[str, Silhouette]) -> Picture:
    from serein.evaluate import plots

    first = run.fold_runs[0]
    spaces = {space: points for space, points in shown.spaces.items() if space in found}
    notes = [f"silhouette {sections.with_interval(found[space].score)}" for space in spaces]
    text = (
        f"t-SNE of the test utterances of one fold ({first.fold}, seed {first.seed}), coloured by true label, all "
        "panels at one scale. The silhouettes are not this fold's but those of the table, over all folds and seeds."
    )
    return Picture("embeddings", plots.embedding_maps(spaces, shown.truth, run.protocol.labels, notes), text)


def _embedded(run: Run, done: FoldRun, path: Path) -> Embedded:
    """What one fold and seed embedded, by the name of the space."""
    rows = {row.id: row for row in run.predictions if row.fold == done.fold}
    found = load_embeddings(path, rows)
    spaces = {
        "Frozen encoder of the first member" if "members" in run.encoder else "Frozen encoder": found.encoder,
        "Fresh adapter, untrained": found.fresh,
        "Adapter, before fine-tuning": found.adapter,
        f"{run.name}, after fine-tuning": found.system,
    }
    known = {space: points for space, points in spaces.items() if points is not None}
    return Embedded(known, [rows[id_].truth for id_ in found.ids], [rows[id_].talker for id_ in found.ids])


def _numbers(runs: Sequence[Run], summary: Summary, found: Mapping[str, Silhouette]) -> dict[str, Any]:
    first, *others = runs
    return {
        "format": FORMAT,
        **_identity(first),
        "labels": first.protocol.labels,
        "talkers": len({row.talker for row in first.predictions}),
        "utterances": len({row.id for row in first.predictions}),
        **asdict(summary),
        "silhouettes": {space: asdict(of_space) for space, of_space in found.items()},
        "cost": [{key: getattr(done, key) for key in _COSTS} for done in first.fold_runs],
        "others": [_beside(first, other) for other in others],
    }


def _beside(first: Run, other: Run) -> dict[str, Any]:
    difference = compare(other, first)
    return _identity(other) | asdict(summarise(other)) | {"minus_first": asdict(difference) if difference else None}


def _identity(run: Run) -> dict[str, Any]:
    """What must be known to quote a score of this run."""
    protocol = {key: getattr(run.protocol, key) for key in ("name", "hash", "oracle", "shares_talkers")}
    heard = ("adapter_training", "talker_statistics", "synthetic", "leaks", "without_frames", "encoder")
    keys = ("name", "system", "corpus", "seeds", *heard)
    return {key: getattr(run, key) for key in keys} | {"protocol": protocol, "remarks": remarks(run)}
