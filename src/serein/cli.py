"""The command line: each command parses, calls one function, prints. No logic of its own.

Heavy imports stand inside the commands, so that ``serein --help`` is quick.
"""

import math
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from serein.arguments import (
    Beside,
    CutWhisper,
    Device,
    Dtype,
    EncoderName,
    FoldsFile,
    Json,
    LabelMap,
    ProtocolName,
    RecipeChanges,
    RecipeFile,
    Revision,
    Seed,
    Seeds,
    Table,
    Unlabelled,
    Views,
    open_corpus,
    open_encoder,
    open_stores,
    output_file,
    output_folder,
    parse_numbers,
    refuse_overwriting,
    refuse_unheard,
    relabel,
)
from serein.cli_errors import run
from serein.cli_export import exporting
from serein.cli_judge import judge
from serein.cli_look import look
from serein.cli_recipe import choose_recipe, recipe_options
from serein.cli_serve import serving
from serein.cli_share import sharing
from serein.cli_study import study
from serein.cli_use import SOME_FAILED, use
from serein.errors import UsageError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Adapt a frozen speech encoder to speech emotion recognition, and judge it honestly. Start with: serein demo",
)


# The panels of --help stand in the order in which a person goes: by their first commands here.
START, MAKE, TRAIN, JUDGE, LOOK, USE = "Start", "Make frames", "Train", "Judge", "Look", "Use"
for panel, rooms in {JUDGE: (judge, study), LOOK: (look,), USE: (use, serving, exporting, sharing)}.items():
    for room in rooms:
        for command in room.registered_commands:
            command.rich_help_panel = panel
        app.add_typer(room)


@app.callback()
def _options(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None: ...


@app.command(rich_help_panel=START)
def demo(
    output: Annotated[Path, output_folder("Folder for all of it.")] = Path("serein-demo"),
    utterances: Annotated[int, typer.Option(help="Utterances of each of the ten voices.")] = 64,
    seed: Annotated[int, typer.Option(min=0, max=999, help="Of all that is drawn.")] = 0,
) -> None:
    """The whole main job on a corpus it makes itself; no download.

    Example: `serein demo`
    """
    from serein import terminal
    from serein.demo import demo as run_demo

    with terminal.progress() as report:
        page, runs = run_demo(output, utterances_per_talker=utterances, seed=seed, say=terminal.note, report=report)
    terminal.print_scores("The demo's synthetic voices, test sessions", runs)
    terminal.note(f"The report: {page}")
    terminal.note_next("train", output / "frames", "-o", "model/", "--recipe", runs[-1] / "recipe.toml")


@app.command(rich_help_panel=MAKE)
def corpus(
    name: Annotated[str, typer.Argument(help="iemocap, ravdess, emodb, urdu, or table for a CSV of your own.")],
    root: Annotated[Path, typer.Argument(help="The corpus's folder, or the CSV table.")],
    output: Annotated[Path, output_file("The table to write.")],
    label_map: LabelMap = "",
    as_json: Json = False,
) -> None:
    """Index and check a corpus: counts, talkers, broken and duplicate files.

    Example: `serein corpus ravdess RAVDESS/ -o ravdess.csv`, or `serein corpus table mine.csv -o checked.csv`
    """
    from serein import terminal
    from serein.corpus.audit import audit
    from serein.corpus.corpus import Corpus
    from serein.corpus.readers import READERS, release_gaps
    from serein.errors import CorpusError
    from serein.frames.scan import scan_audio

    if name not in READERS and name != "table":
        raise UsageError(f"no reader for {name!r}: there are {', '.join(READERS)}, and table for a CSV of your own")
    refuse_overwriting(output, root)
    indexed = Corpus.from_csv(root) if name == "table" else READERS[name](root)
    gaps = [] if name == "table" else release_gaps(name, indexed)
    indexed = relabel(indexed, label_map, release=name)
    with terminal.progress() as report:
        scan = scan_audio(indexed, report=report)
    found = audit(scan.corpus)
    scan.corpus.to_csv(output)
    if as_json:
        terminal.print_json({**found.as_dict(), **scan.as_dict(), "gaps": gaps, "table": str(output)})
    else:
        terminal.print_audit(found)
        for gap in gaps:
            terminal.note(f"differs from the published corpus: {gap}")
        terminal.note_scan(scan)
    if found.errors:
        raise CorpusError(f"corpus {found.corpus}: cannot be used: {' '.join(found.errors)}")
    if scan.broken:
        raise typer.Exit(SOME_FAILED)


@app.command(rich_help_panel=MAKE)
def extract(
    table: Table,
    encoder: EncoderName,
    output: Annotated[Path, output_folder("The frame store, which crossval and train read.")],
    layers: Annotated[str, typer.Option(help="Numbers, 0 = before the first block, -1 = last: 2,3,4")] = "-1",
    revision: Revision = None,
    pool: Annotated[int, typer.Option(min=1, help="Average this many frames into one.")] = 1,
    speed: Annotated[float, typer.Option(min=0.5, max=2, help="Play faster: other pitch, as another talker's.")] = 1.0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    cut_whisper: CutWhisper = False,
) -> None:
    """Run the frozen encoder over a corpus, once; continues where it stopped.

    Example: `serein extract ravdess.csv --encoder facebook/hubert-large-ls960-ft --layers 12 -o frames/`
    """
    from serein import terminal
    from serein.corpus.corpus import Corpus
    from serein.frames.extract import extract as run_extract

    front = open_encoder(encoder, parse_numbers("--layers", layers), revision, device, dtype, cut_whisper)
    with terminal.progress() as report:
        store = run_extract(Corpus.from_csv(table), front, output, pool=pool, speed=speed, report=report)
    terminal.note(f"{len(store.ids)} utterances, {store.frame_rate:g} frames a second, in {output}")
    terminal.note_failures(store.failed)
    if store.failed:
        raise typer.Exit(SOME_FAILED)


@app.command(rich_help_panel=TRAIN)
def adapt(
    frames: Annotated[Path, typer.Argument(help="The frame store, from `serein extract`.")],
    output: Annotated[Path, output_folder("The adapter's folder.")],
    recipe: RecipeFile = None,
    changes: RecipeChanges = None,
    seed: Seed = 0,
) -> None:
    """Train an adapter without labels, on every frame of a store.

    Example: `serein adapt frames/ -o adapter/`
    """
    from serein import terminal
    from serein.frames.store import FrameStore
    from serein.train.adapter_folder import adapt_store

    store = FrameStore(frames)
    chosen = choose_recipe(recipe, changes)
    with terminal.progress() as report:
        collapse = adapt_store(store, output, chosen, seed=seed, report=report)
    if collapse:
        terminal.note(f"warning: training without labels collapsed, {collapse}: the adapter has little to say")
    terminal.note(f"The adapter: {output}")
    labelled = frames if store.corpus().labels else "frames-with-labels/"
    terminal.note_next("train", labelled, "--adapter", output, *recipe_options(recipe, changes), "-o", "model/")


@app.command(rich_help_panel=JUDGE)
def crossval(
    frames: Annotated[Path, typer.Argument(help="The frame store, from `serein extract`.")],
    protocol: ProtocolName,
    output: Annotated[Path, output_folder("The run's folder.")],
    folds_file: FoldsFile = None,
    system: Annotated[str, typer.Option(help="adapter, linear, superb, ...: see docs/systems.md")] = "adapter",
    recipe: RecipeFile = None,
    changes: RecipeChanges = None,
    views: Views = None,
    unlabelled: Unlabelled = None,
    beside: Beside = None,
    seeds: Seeds = 1,
    label_map: LabelMap = "",
) -> None:
    """Train and test a system on every fold; continues where it stopped.

    Example: `serein crossval frames/ --protocol sessions --recipe recipes/laptop.toml -o runs/mine`
    """
    from serein import terminal
    from serein.train.crossval import cross_validate

    store, labelled, folds = open_corpus(frames, protocol, folds_file, label_map)
    chosen = choose_recipe(recipe, changes, [system])
    refuse_unheard([(system, chosen)], unlabelled, beside)
    with terminal.progress() as report:
        folder = cross_validate(
            store, labelled, folds, output, chosen,
            system=system, seeds=range(seeds), views=open_stores(views), unlabelled=open_stores(unlabelled),
            beside=open_stores(beside), command=shlex.join(["serein", *sys.argv[1:]]), report=report,
        )  # fmt: skip
    terminal.print_scores(f"{labelled.name}, protocol {folds.name} ({folds.hash})", [folder])
    terminal.note_next("report", output)


@app.command(rich_help_panel=TRAIN)
def train(
    frames: Annotated[Path, typer.Argument(help="The frame store, from `serein extract`.")],
    output: Annotated[Path, output_folder("The model's folder.")],
    system: Annotated[str, typer.Option(help="adapter, or linear: a probe, trained in seconds.")] = "adapter",
    adapter: Annotated[
        str | None, typer.Option(help="From `serein adapt`, or its id on the Hub, instead of training one here.")
    ] = None,
    recipe: RecipeFile = None,
    changes: RecipeChanges = None,
    views: Views = None,
    scores_from: Annotated[
        Path | None,
        typer.Option(help="A finished `serein crossval` of the same system and settings: its scores go on the card."),
    ] = None,
    abstain_below: Annotated[float, typer.Option(min=0.0, help="A best score below this is unsure; under 1.")] = 0.0,
    label_map: LabelMap = "",
    seed: Seed = 0,
) -> None:
    """Train the model to ship, on all talkers, and calibrate its probabilities.

    Example: `serein train frames/ -o model/ --recipe recipes/laptop.toml`
    """
    from serein import terminal
    from serein.frames.store import FrameStore
    from serein.train.ship import is_at_a_bound, train_model

    store = FrameStore(frames)
    labelled = relabel(store.corpus(), label_map)
    chosen = choose_recipe(recipe, changes, [system])
    refuse_overwriting(output, adapter)
    with terminal.progress() as tell:
        facts = train_model(
            store, labelled, output, chosen, system=system, adapter_folder=adapter,
            views=open_stores(views), scores_from=scores_from, abstain_below=abstain_below, seed=seed, report=tell,
        )  # fmt: skip
    if is_at_a_bound(facts["temperature"]):
        terminal.note(
            "warning: the temperature is at its bound: the scores say little about how sure the model is; "
            "more recordings, or for an adapter more epochs"
        )
    if facts["collapsed"]:
        terminal.note("warning: training without labels collapsed: the adapter has little to say, see the card")
    after = facts["calibration_error_after"]
    choice = f"C {facts['C']:g}" if system == "linear" else f"{facts['epochs']} epochs"
    terminal.note(
        f"The model: {output} ({choice}, validation UA {facts['validation_ua']:.3f}: no test score)\n"
        f"Temperature {facts['temperature']:.3f}: calibration error {facts['calibration_error_before']:.3f} before, "
        f"{'unknown' if math.isnan(after) else f'{after:.3f}'} after"
    )
    terminal.note_next("predict", output, "recording.wav")


@app.command(rich_help_panel=START)
def doctor(as_json: Json = False) -> None:
    """Versions, processor and devices: what to put into a bug report.

    Example: `serein doctor`
    """
    from serein import terminal
    from serein.train.machine import environment

    facts = environment()
    if as_json:
        terminal.print_json(facts)
    else:
        terminal.print_table("serein doctor", ["what", "here"], [[name, str(value)] for name, value in facts.items()])


def main() -> None:
    """The console script: a known error is one or two lines and its exit code; a traceback needs ``--debug``."""
    run(app)
