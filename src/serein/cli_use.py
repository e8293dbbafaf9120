"""Commands that use a model on recordings; like those of `serein.cli`, they parse, call one function and print."""

import os
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serein.answers import rank
from serein.arguments import Device, EncoderPlace, Json, ModelRevision, output_file, refuse_overwriting
from serein.errors import AudioError, UsageError

if TYPE_CHECKING:
    from serein.answers import Answer
    from serein.frames.audio import Decoded
    from serein.onnx_recognizer import OnnxRecognizer
    from serein.recognizer import EmotionRecognizer

SOME_FAILED = 3
TOGETHER = 60  # seconds of recordings that are in memory at once; a longer one is so alone

use = typer.Typer()


class Format(StrEnum):
    """How a timeline is written."""

    csv = "csv"
    json = "json"
    audacity = "audacity"
    rttm = "rttm"


@use.command()
def predict(
    model: Annotated[str, typer.Argument(help="The model's folder, its id on the Hub, or an .onnx file.")],
    recordings: Annotated[list[Path], typer.Argument(help="Audio files.")],
    encoder: EncoderPlace = None,
    device: Device = "cpu",
    revision: ModelRevision = None,
    as_json: Json = False,
) -> None:
    """Name the emotion of recordings; one that cannot be read is named, and the others are done.

    Where the model was given a threshold and no score reaches it, the line says "unsure" ("sure": false in JSON).

    Example: `serein predict model/ a.wav b.mp3 --json`
    """
    from serein import terminal

    recognizer = _load(model, encoder, device, revision)
    results: list[dict[str, object]] = []
    failed = False
    for recording, warnings, found in _each(recognizer, recordings):
        for sentence in warnings:
            terminal.note(f"warning: {recording}: {sentence}")
        if isinstance(found, AudioError):
            failed = True
            results.append({"path": str(recording), "error": str(found), "warnings": warnings})
            terminal.note(f"failed: {found}")
            continue
        sure = recognizer.sure(found)
        results.append({"path": str(recording), "sure": sure, "scores": found, "warnings": warnings})
        if not as_json:
            words = [f"{score['label']} {score['score']:.3f}" for score in found]
            print(recording, *([] if sure else ["unsure"]), *words, sep="  ")
    if as_json:
        terminal.print_json(results)
    if failed:
        raise typer.Exit(SOME_FAILED)


@use.command()
def timeline(
    model: Annotated[str, typer.Argument(help="The model's folder, or its id on the Hub.")],
    recording: Annotated[Path, typer.Argument(help="An audio file of any length.")],
    window: Annotated[float, typer.Option(help="Seconds that are judged at once.")] = 4.0,
    hop: Annotated[float, typer.Option(help="Seconds from one window's start to the next one's.")] = 1.0,
    layout: Annotated[
        Format, typer.Option("--format", help="csv: windows; audacity, rttm: segments; json: both.")
    ] = Format.csv,
    output: Annotated[Path | None, output_file("The file to write, if not stdout.")] = None,
    encoder: EncoderPlace = None,
    device: Device = "cpu",
    revision: ModelRevision = None,
) -> None:
    """Follow the emotion along a recording, in overlapping windows; hours of audio need no more memory than minutes.

    Example: `serein timeline model/ call.flac --window 4 --hop 1 --format audacity -o call.txt`
    """
    from serein import terminal
    from serein.files import write_atomically
    from serein.recognizer import EmotionRecognizer

    if output is not None:
        refuse_overwriting(output, recording)
    recognizer = EmotionRecognizer.from_pretrained(model, encoder=encoder, device=device, revision=revision)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
    found = recognizer.timeline(recording, window, hop)
    match layout:
        case Format.csv:
            text = found.to_csv()
        case Format.json:
            text = found.to_json()
        case Format.audacity:
            text = found.to_audacity()
        case Format.rttm:
            text = found.to_rttm(os.fsencode(recording.stem).decode(errors="backslashreplace"))
    for sentence in found.warnings:
        terminal.note(f"warning: {sentence}")
    if output is None:
        print(text, end="")
    else:
        write_atomically(output, text.encode())


def _load(model: str, encoder: str | None, device: str, revision: str | None) -> "EmotionRecognizer | OnnxRecognizer":
    if not model.endswith(".onnx"):
        from serein.recognizer import EmotionRecognizer

        return EmotionRecognizer.from_pretrained(model, encoder=encoder, device=device, revision=revision)
    if encoder or revision or device != "cpu":
        raise UsageError(f"{model}: is used as it is, on the CPU; leave out --encoder, --device and --revision")
    from serein.onnx_recognizer import OnnxRecognizer

    return OnnxRecognizer(Path(model))


def _each(
    recognizer: "EmotionRecognizer | OnnxRecognizer", recordings: list[Path]
) -> "Iterator[tuple[Path, tuple[str, ...], Answer | AudioError]]":
    """What was mended in each recording, and its scores or why it has none; short ones are computed together."""
    from serein.frames.audio import SAMPLE_RATE, decode

    some: list[tuple[Path, Decoded | AudioError]] = []
    room = TOGETHER * SAMPLE_RATE
    for recording in recordings:
        found: Decoded | AudioError
        try:
            found = decode(recording)
            length = len(found.samples)
        except AudioError as error:
            found, length = error, 0
        if length > room:
            yield from _judged(recognizer, some)
            some, room = [], TOGETHER * SAMPLE_RATE
        some.append((recording, found))
        room -= length
    yield from _judged(recognizer, some)


def _judged(
    recognizer: "EmotionRecognizer | OnnxRecognizer", some: "list[tuple[Path, Decoded | AudioError]]"
) -> "Iterator[tuple[Path, tuple[str, ...], Answer | AudioError]]":
    """The same of recordings that are decoded."""
    decoded = [found for _, found in some if not isinstance(found, AudioError)]
    try:
        rows = iter(recognizer.probabilities_of([each.samples for each in decoded]).tolist())
    except AudioError as error:  # of one of them; the others have to be done
        if len(some) == 1:
            yield some[0][0], decoded[0].warnings, type(error)(f"{some[0][0]}: {error}")
        else:
            for one in some:
                yield from _judged(recognizer, [one])
        return
    for recording, found in some:
        if isinstance(found, AudioError):
            yield recording, (), found
        else:
            yield recording, found.warnings, rank(recognizer.labels, next(rows))
