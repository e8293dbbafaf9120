"""Commands that look into what was trained; like those of `serein.cli`, they parse, call one function and print."""

from pathlib import Path
from typing import Annotated

import typer

look = typer.Typer()


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
