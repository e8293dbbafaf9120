"""Commands that set several runs side by side; like those of `serein.cli`, they parse, call one function and print."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serein.arguments import (
    Beside,
    FoldsFile,
    LabelMap,
    ProtocolName,
    RecipeChanges,
    RecipeFile,
    Seeds,
    Unlabelled,
    Views,
    open_corpus,
    open_stores,
    output_folder,
    refuse_unheard,
)
from serein.cli_recipe import choose_recipe
from serein.errors import UsageError

if TYPE_CHECKING:
    from serein.corpus.corpus import Corpus
    from serein.evaluate.study import Kind
    from serein.frames.store import FrameStore
    from serein.train.study import Variant

study = typer.Typer()

Frames = Annotated[Path, typer.Argument(help="The frame store, from `serein extract`.")]
Output = Annotated[Path, output_folder("The study's folder; a run folder a variant goes there.")]


@study.command()
def benchmark(
    frames: Frames,
    protocol: ProtocolName,
    systems: Annotated[str, typer.Option(help="linear,superb,adapter:none,...: the first is the reference.")],
    output: Output,
    folds_file: FoldsFile = None,
    recipe: RecipeFile = None,
    changes: RecipeChanges = None,
    views: Views = None,
    unlabelled: Unlabelled = None,
    beside: Beside = None,
    seeds: Seeds = 3,
    label_map: LabelMap = "",
) -> None:
    """Several systems under the same folds and seeds; continues where it stopped.

    Example: `serein benchmark frames/ --protocol sessions --systems linear,superb,adapter:none,adapter -o benchmark/`
    """
    from serein.train.study import benchmark_variants

    store, labelled, folds = open_corpus(frames, protocol, folds_file, label_map)
    names = [name.strip() for name in systems.split(",")]
    variants = benchmark_variants(names, choose_recipe(recipe, changes, names), folds)
    title = f"Systems on {labelled.name}, protocol {folds.name}"
    _run(store, labelled, variants, output, "benchmark", title, seeds, views, unlabelled, beside)


@study.command()
def ablate(
    frames: Frames,
    ablation: Annotated[Path, typer.Argument(help="TOML file: base recipe and variants, as in recipes/ablation.")],
    protocol: ProtocolName,
    output: Output,
    folds_file: FoldsFile = None,
    changes: RecipeChanges = None,
    views: Views = None,
    unlabelled: Unlabelled = None,
    beside: Beside = None,
    seeds: Seeds = 3,
    label_map: LabelMap = "",
) -> None:
    """One recipe with a setting changed at a time; continues where it stopped.

    Example: `serein ablate frames/ recipes/ablation/attributes.toml --protocol sessions -o ablation/`
    """
    from serein.train.study import ablation_variants, read_ablation

    store, labelled, folds = open_corpus(frames, protocol, folds_file, label_map)
    variants = ablation_variants(ablation, folds, changes or [])
    title = f"{read_ablation(ablation).title} ({labelled.name}, protocol {folds.name})"
    _run(store, labelled, variants, output, "ablation", title, seeds, views, unlabelled, beside)


@study.command()
def inflation(
    frames: Frames,
    protocol: ProtocolName,
    output: Output,
    system: Annotated[str, typer.Option(help="adapter, linear, superb, ...: see docs/systems.md")] = "adapter",
    folds_file: FoldsFile = None,
    recipe: RecipeFile = None,
    changes: RecipeChanges = None,
    views: Views = None,
    unlabelled: Unlabelled = None,
    beside: Beside = None,
    seeds: Seeds = 3,
    label_map: LabelMap = "",
) -> None:
    """What dishonest splits would add to a score: one system, with and without a look at the test talkers.

    Example: `serein inflation frames/ --protocol sessions --system linear -o inflation/`
    """
    from serein.train.study import inflation_variants

    store, labelled, folds = open_corpus(frames, protocol, folds_file, label_map)
    variants = inflation_variants(folds, labelled, system, choose_recipe(recipe, changes, [system]))
    title = f"What the split does to the score of {system} ({labelled.name}, protocol {folds.name})"
    _run(store, labelled, variants, output, "inflation", title, seeds, views, unlabelled, beside)


@study.command("study")
def render(
    output: Annotated[Path, typer.Argument(help="The study's folder.")],
    runs: Annotated[list[Path] | None, typer.Argument(help="Finished runs to make a new study of.")] = None,
    title: Annotated[str, typer.Option(help="Of a new study; else: Runs side by side.")] = "",
) -> None:
    """Write a study's table and picture again, or make a study of finished runs.

    Example: `serein study studies/mine runs/linear runs/adapter --title "Mine against the probe"`
    """
    from serein.evaluate.study import name_runs, save_study

    if runs:
        save_study(output, "runs", title or "Runs side by side", name_runs(runs))
    elif title:
        raise UsageError("--title is that of a new study: name its runs too")
    _show(output)


def _run(
    store: "FrameStore",
    labelled: "Corpus",
    variants: "Sequence[Variant]",
    output: Path,
    kind: "Kind",
    title: str,
    seeds: int,
    views: list[Path] | None,
    unlabelled: list[Path] | None,
    beside: list[Path] | None,
) -> None:
    from serein import terminal
    from serein.train.study import run_study

    refuse_unheard([(variant.system, variant.recipe) for variant in variants], unlabelled, beside)
    with terminal.progress() as report:
        run_study(
            store, labelled, variants, output, kind=kind, title=title, seeds=range(seeds),
            views=open_stores(views), unlabelled=open_stores(unlabelled), beside=open_stores(beside),
            command=shlex.join(["serein", *sys.argv[1:]]), report=report,
        )  # fmt: skip
    _show(output)


def _show(output: Path) -> None:
    """The table first: it needs no matplotlib."""
    from serein import terminal
    from serein.evaluate.study import load_study
    from serein.evaluate.study_page import score_table, write_study

    found = load_study(output)
    header, *rows = score_table(found)
    terminal.print_table(found.title, header, rows)
    terminal.note(f"The page: {write_study(output).html}")
