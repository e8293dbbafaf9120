"""The command that serves a model; like those of `serein.cli`, it parses, calls one function and prints."""

from pathlib import Path
from typing import Annotated

import typer

from serein.arguments import Device, EncoderPlace, ModelRevision

serving = typer.Typer()


@serving.command()
def serve(
    model: Annotated[str, typer.Argument(help="The model's folder, or its id on the Hub.")],
    host: Annotated[str, typer.Option(help="0.0.0.0 for all of the network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535)] = 8000,
    encoder: EncoderPlace = None,
    revision: ModelRevision = None,
    device: Device = "cpu",
    max_megabytes: Annotated[float, typer.Option(min=0.001, max=2000, help="Of a request's body.")] = 25.0,
    max_seconds: Annotated[float, typer.Option(min=0.1, max=86_400, help="Of a recording.")] = 600.0,
    decode_seconds: Annotated[float, typer.Option(min=0.01, max=3600, help="For decoding one recording.")] = 10.0,
    decoders: Annotated[int, typer.Option(min=1, help="Processes that decode.")] = 2,
    queue: Annotated[int, typer.Option(min=1, max=500, help="Requests at a time; more are asked to try again.")] = 32,
) -> None:
    """Serve a model: a web page, and HTTP for programs (see /openapi.json).

    Example: `serein serve model/ --port 8000`
    """
    from serein.errors import UsageError
    from serein.recognizer import EmotionRecognizer
    from serein.serve.limits import Limits

    try:
        from serein.serve.app import make_app
        from serein.serve.server import check_port, make_server
    except ModuleNotFoundError as error:
        if error.name == "resource":
            raise UsageError("the server's decoders limit their memory as only Unix can: use Linux or macOS") from error
        raise UsageError(f"serving needs {error.name}: pip install 'serein[serve]'") from error

    limits = Limits(
        body_bytes=int(max_megabytes * 1e6),
        audio_seconds=max_seconds,
        timeline_seconds=10 * max_seconds,
        decode_seconds=decode_seconds,
        decoders=decoders,
        queue=queue,
    )
    check_port(host, port)
    recognizer = EmotionRecognizer.from_pretrained(model, encoder=encoder, device=device, revision=revision)
    make_server(make_app(recognizer, limits, name=Path(model).resolve().name), host, port).run()
