"""The command that shares a model; like those of `serein.cli`, it parses, calls one function and prints."""

from pathlib import Path
from typing import Annotated

import typer

sharing = typer.Typer()


@sharing.command()
def push(
    model: Annotated[Path, typer.Argument(help="From `serein train` or `serein adapt`.")],
    name: Annotated[str, typer.Argument(help="On the Hugging Face Hub: user/name.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch; made where there is none.")] = None,
    message: Annotated[str, typer.Option(help="Of the commit.")] = "Upload a serein model",
) -> None:
    """Share a model or an adapter on the Hugging Face Hub: configuration, weights and card, and no other file.

    It takes the token of `hf auth login` or HF_TOKEN.

    Example: `serein push model/ USER/NAME --private`
    """
    from serein import terminal
    from serein.hub import push_model
    from serein.model import load_config

    address = push_model(model, name, private=private, revision=revision, message=message)
    terminal.note(f"Pushed: {address}")
    branch = () if revision is None else ("--revision", revision)
    if load_config(model).architecture != "adapter":
        terminal.note_next("predict", name, "recording.wav", *branch)
    elif revision is None:  # `train` takes adapters from the main branch
        terminal.note_next("train", "frames/", "--adapter", name, "-o", "model/")
