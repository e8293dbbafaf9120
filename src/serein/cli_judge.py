"""Commands that judge finished runs; `serein.cli` joins them to its own."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from serein.arguments import Json, output_folder
from serein.errors import UsageError

judge = typer.Typer()


@judge.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs; the others are held against the first.")],
    all_pairs: Annotated[bool, typer.Option("--all-pairs", help="Hold each against each.")] = False,
    as_json: Json = False,
) -> None:
    """Which systems are better than others, and which cannot be told apart.

    Example: `serein compare runs/linear runs/adapter`
    """
    from serein import terminal
    from serein.evaluate.comparison import as_document, compare_all, comparison_table, title
    from serein.evaluate.runs import load_run

    if len(runs) < 2:
        raise UsageError(f"nothing to compare {runs[0]} with: name two runs or more")
    found = compare_all([load_run(run) for run in runs], all_pairs=all_pairs)
    if as_json:
        terminal.print_json([as_document(comparison) for comparison in found])
    else:
        header, *rows = comparison_table(found)
        terminal.print_table(title(found), header, rows)


@judge.command()
def report(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    others: Annotated[list[Path] | None, typer.Argument(help="Runs to compare it with.")] = None,
) -> None:
    """Write report.html, report.md and scores.json into a run's folder.

    Example: `serein report runs/adapter runs/linear`
    """
    from serein import terminal
    from serein.evaluate.report import write_report

    paths = write_report(run, others or [])
    terminal.print_scores(str(run), [run, *(others or [])])
    terminal.note(f"The report: {paths.html}")


@judge.command("import")
def import_run(
    predictions: Annotated[Path, typer.Argument(help="CSV: id, p_LABEL of each label, seed: a row a test utterance.")],
    like: Annotated[Path, typer.Option(help="A finished run, under whose protocol they are judged.")],
    name: Annotated[str, typer.Option(help="What tables call the system.")],
    output: Annotated[Path, output_folder("The new run's folder.")],
) -> None:
    """Bring in predictions that were made elsewhere, to be reported and compared like a run.

    Example: `serein import mine.csv --like runs/linear --name "My method" -o runs/theirs`
    """
    from serein import terminal
    from serein.evaluate.imported import import_predictions

    command = shlex.join(["serein", *sys.argv[1:]])
    folder = import_predictions(predictions, like, output, name=name, command=command)
    terminal.print_scores(str(output), [folder, like])
    terminal.note_next("compare", like, output)


@judge.command()
def ensemble(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs under one protocol.")],
    output: Annotated[Path, output_folder("The committee's run folder.")],
) -> None:
    """Average what several runs, or one run's seeds, say of each test utterance; nothing is trained.

    Example: `serein ensemble runs/adapter runs/linear -o runs/both`
    """
    from serein import terminal
    from serein.evaluate.ensemble import average

    folder = average(runs, output)
    terminal.print_scores(str(output), [folder, *runs])
    terminal.note_next("report", output)
