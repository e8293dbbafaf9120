"""The command that writes ONNX; like those of `serein.cli`, it parses, calls one function and prints."""

from pathlib import Path
from typing import Annotated

import typer

from serein.arguments import EncoderPlace, output_file
from serein.errors import UsageError

exporting = typer.Typer()


@exporting.command()
def export(
    model: Annotated[str, typer.Argument(help="The model's folder, or its id on the Hub.")],
    output: Annotated[Path, output_file("The ONNX file to write.")],
    with_encoder: Annotated[
        bool, typer.Option("--with-encoder", help="From the waveform on: `serein predict` then needs no torch.")
    ] = False,
    encoder: EncoderPlace = None,
) -> None:
    """Write a model as an ONNX graph, checked against torch.

    Example: `serein export model/ -o model.onnx --with-encoder`
    """
    from serein import terminal
    from serein.export import export_model

    if encoder and not with_encoder:
        raise UsageError("--encoder: says where the encoder is that --with-encoder puts into the graph; give both")
    difference = export_model(model, output, with_encoder=with_encoder, encoder=encoder)
    terminal.note(
        f"The graph: {output} ({output.stat().st_size / 1e6:.1f} MB; its log probabilities differ from torch's by at "
        f"most {difference:.1e})"
    )
    if with_encoder:
        terminal.note_next("predict", output, "recording.wav")
