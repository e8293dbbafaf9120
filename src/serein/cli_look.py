"""Commands that look into an encoder or into what was trained; like those of `serein.cli`, they have no logic."""

from pathlib import Path
from typing import Annotated

import typer

from serein.arguments import (
    CutWhisper,
    Device,
    Dtype,
    EncoderName,
    FoldsFile,
    LabelMap,
    ProtocolName,
    Revision,
    Table,
    relabel,
)
from serein.cli_use import SOME_FAILED

look = typer.Typer()


@look.command()
def layers(
    table: Table,
    encoder: EncoderName,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the page and for frames of every layer.")],
    protocol: ProtocolName = "talkers-5",
    folds_file: FoldsFile = None,
    label_map: LabelMap = "",
    revision: Revision = None,
    pool: Annotated[int, typer.Option(min=1, help="Average this many frames into one, for the disk's sake.")] = 8,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    cut_whisper: CutWhisper = False,
) -> None:
    """Which layer carries emotion: a linear probe of each, on training and validation talkers.

    Example: `serein layers ravdess.csv --encoder openai/whisper-base --cut-whisper -o layers/`
    """
    from serein import terminal
    from serein.corpus.corpus import Corpus
    from serein.corpus.splits import make_protocol
    from serein.evaluate.layers import HEADER, rows_of, score_layers, verdict, write_layers
    from serein.frames.encoder import load_encoder, num_layers
    from serein.frames.extract import extract
    from serein.train.layers import probe_layers

    highest = num_layers(encoder, revision)
    front = load_encoder(
        encoder, layers=range(highest + 1), revision=revision, device=device, dtype=dtype,
        whisper_padding=not cut_whisper,
    )  # fmt: skip
    with terminal.progress() as report:
        store = extract(Corpus.from_csv(table), front, output / "frames", pool=pool, report=report)
        labelled = relabel(store.corpus(), label_map)
        folds = make_protocol(protocol, labelled, folds_file=folds_file)
        probed = score_layers(probe_layers(store, labelled, folds, report=report), folds.labels)
    page = write_layers(output, labelled.name, encoder, folds.name, probed)
    terminal.print_table(f"A probe of each layer of {encoder} on {labelled.name}", HEADER, rows_of(probed))
    terminal.note_failures(store.failed)
    terminal.note(f"{verdict(probed)}\nThe page: {page}")
    if store.failed:
        raise typer.Exit(SOME_FAILED)


@look.command()
def attributes(
    frames: Annotated[Path, typer.Argument(help="The frame store, its recordings where they were.")],
    adapter: Annotated[Path, typer.Argument(help="From `serein adapt`.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the page.")],
    clips: Annotated[int, typer.Option(min=0, help="How many attributes, the most used first, to listen to.")] = 20,
) -> None:
    """Look at local attributes: how they are used, what they carry, and how they sound.

    Example: `serein attributes frames/ adapter/ -o attributes/ --clips 20`
    """
    from serein import terminal
    from serein.frames.store import FrameStore
    from serein.train import inspect

    with terminal.progress() as report:
        page = inspect.look(FrameStore(frames), adapter, output, listen=clips, report=report)
    terminal.note(f"The page: {page}")
