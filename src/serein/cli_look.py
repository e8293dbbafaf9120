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
    open_encoder,
    output_folder,
    relabel,
)
from serein.cli_use import SOME_FAILED

look = typer.Typer()


@look.command()
def layers(
    table: Table,
    encoder: EncoderName,
    output: Annotated[Path, output_folder("Folder for the page and for frames of every layer.")],
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
    from serein.evaluate.layers import HEADER, rows_of, verdict
    from serein.frames.encoder import num_layers
    from serein.train.layers import look_at_layers

    corpus = relabel(Corpus.from_csv(table), label_map)
    with terminal.progress() as report:
        found = look_at_layers(
            corpus,
            lambda: open_encoder(
                encoder, range(num_layers(encoder, revision) + 1), revision, device, dtype, cut_whisper
            ),
            output,
            lambda present: make_protocol(protocol, present, folds_file=folds_file),
            pool=pool,
            report=report,
        )  # fmt: skip
    terminal.print_table(f"A probe of each layer of {encoder} on {corpus.name}", HEADER, rows_of(found.layers))
    terminal.note_failures(found.failed)
    terminal.note(f"{verdict(found.layers)}\nThe page: {found.page}")
    if found.failed:
        raise typer.Exit(SOME_FAILED)


@look.command()
def attributes(
    frames: Annotated[Path, typer.Argument(help="The frame store, its recordings where they were.")],
    adapter: Annotated[Path, typer.Argument(help="From `serein adapt`.")],
    output: Annotated[Path, output_folder("Folder for the page.")],
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
