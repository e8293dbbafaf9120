"""Options that several commands share, and what their texts mean."""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serein.errors import UsageError
from serein.files import is_utf8

if TYPE_CHECKING:
    from serein.corpus.corpus import Corpus
    from serein.corpus.protocol import Protocol
    from serein.frames.encoder import SpeechEncoder
    from serein.frames.store import FrameStore
    from serein.recipe import Recipe

Table = Annotated[Path, typer.Argument(help="The corpus's table.")]
EncoderName = Annotated[str, typer.Option("--encoder", help="Hub id or folder of a transformers encoder, or logmel.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")]
ModelRevision = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a model on the Hub.")]
EncoderPlace = Annotated[
    str | None, typer.Option("--encoder", help="Where the encoder is, if not where it was in training.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1")]
Dtype = Annotated[str, typer.Option(help="float32, or bfloat16: faster, changes the last digits.")]
CutWhisper = Annotated[
    bool, typer.Option(help="Whisper without its padding to 30 s: much cheaper, frames differ a little.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="TOML file; else the defaults, of the paper's size.")]
RecipeChanges = Annotated[
    list[str] | None, typer.Option("--set", help="table.key=value, on top of the recipe; repeatable.")
]
LabelMap = Annotated[str, typer.Option("--map", help="old=new,old=new: rename emotions, leave all others out.")]
ProtocolName = Annotated[
    str, typer.Option("--protocol", help="sessions, talkers, talkers-5, emobox, ...: see docs/protocols.md")
]
FoldsFile = Annotated[Path | None, typer.Option(help="EmoBox's folds, for --protocol emobox.")]
Seeds = Annotated[int, typer.Option(min=1, max=1000, help="Repetitions: seeds 0, 1, ...")]
Views = Annotated[
    list[Path] | None,
    typer.Option(
        "--view",
        help="The same corpus at another --speed, to train on, with model.test_views to judge too; repeatable.",
    ),
]
Unlabelled = Annotated[
    list[Path] | None, typer.Option(help="Frames of another corpus, for adapter training to hear; repeatable.")
]
Beside = Annotated[
    list[Path] | None,
    typer.Option(help="For co-att: log-mel frames of the corpus, then of each --view in their order; repeatable."),
]
Seed = Annotated[int, typer.Option(min=0, help="Of all that is drawn.")]


def output_folder(what: str) -> Any:
    """``-o`` of a command that writes a folder; one that cannot be made is refused before any work is done."""
    return typer.Option("-o", "--output", callback=_check_folder, help=what)


def output_file(what: str) -> Any:
    """``-o`` of a command that writes a file, likewise."""
    return typer.Option("-o", "--output", callback=_check_file, help=what)


def _check_folder(path: Path) -> Path:
    if os.path.lexists(path) and not path.is_dir():
        raise UsageError(f"-o {path}: is a file; give a folder")
    _check_place(path, path)
    return path


def _check_file(path: Path | None) -> Path | None:
    if path is not None:
        if path.is_dir():
            raise UsageError(f"-o {path}: is a folder; give a file")
        if path.exists() and not path.is_file():
            raise UsageError(f"-o {path}: is a device or a pipe; give a file")
        _check_place(path, Path(os.path.realpath(path)).parent)  # what a link points at is written
    return path


def _check_place(path: Path, folder: Path) -> None:
    if not is_utf8(str(path)):
        raise UsageError(f"-o {str(path)!r}: is not UTF-8, as what is written there is; give another path")
    nearest = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise UsageError(f"-o {path}: {nearest} is a file, no folder; give another path")
    if not os.access(nearest, os.W_OK):
        raise UsageError(f"-o {path}: {nearest} may not be written to; give another path")


def read_recipe(path: Path | None, changes: list[str] | None) -> "Recipe":
    """The recipe that ``--recipe`` and ``--set`` ask for."""
    from serein.recipe import Recipe

    return Recipe.read(path, changes or []) if path else Recipe.from_toml("", changes or [])


def open_stores(folders: list[Path] | None) -> "list[FrameStore]":
    """The frame stores of an option that can be repeated."""
    from serein.frames.store import FrameStore

    return [FrameStore(folder) for folder in folders or []]


def refuse_unheard(
    systems: "Sequence[tuple[str, Recipe]]", unlabelled: list[Path] | None, beside: list[Path] | None
) -> None:
    """Raise a UsageError where frames are given that none of these systems would hear."""
    if unlabelled and not any(name == "adapter" and recipe.adapt.data != "none" for name, recipe in systems):
        raise UsageError(
            "--unlabelled: is heard by the system adapter alone, and not where adapt.data is none; leave it out, or "
            "have an adapter with --set adapt.data=inductive"
        )
    if beside and not any(name == "co-att" for name, _ in systems):
        raise UsageError("--beside: is heard by the system co-att alone; leave it out")


def open_encoder(
    name: str, layers: Sequence[int], revision: str | None, device: str, dtype: str, cut_whisper: bool
) -> "SpeechEncoder":
    """The encoder that a command's options name; a UsageError where one that pads nothing is to leave padding out."""
    from serein.frames.encoder import load_encoder

    encoder = load_encoder(
        name, layers=layers, revision=revision, device=device, dtype=dtype, whisper_padding=not cut_whisper
    )
    if cut_whisper and "whisper_padding" not in encoder.settings:
        raise UsageError(f"--cut-whisper: {name} is no Whisper, and pads nothing; leave it out")
    return encoder


def refuse_overwriting(output: Path, read: str | Path | None) -> None:
    """Raise a UsageError where what would be written is what is read; a name on the Hub is nothing here."""
    if read is not None and output.exists() and Path(read).exists() and output.samefile(read):
        raise UsageError(f"{output}: is what is read; give another place with -o")


def open_corpus(
    frames: Path, protocol: str, folds_file: Path | None, label_map: str
) -> "tuple[FrameStore, Corpus, Protocol]":
    """A frame store, its corpus with the labels asked for, and the folds; says what could not be extracted."""
    from serein import terminal
    from serein.corpus.splits import make_protocol
    from serein.frames.store import FrameStore

    store = FrameStore(frames)
    labelled = relabel(store.corpus(), label_map)
    terminal.note_failures(store.failed)
    return store, labelled, make_protocol(protocol, labelled, folds_file=folds_file)


def relabel(corpus: "Corpus", label_map: str, release: str = "") -> "Corpus":
    """The corpus with emotions renamed as ``--map`` asks; an empty map keeps them.

    Args:
        corpus: its emotions are the names that may be renamed.
        label_map: ``old=new,old=new``.
        release: of which it may be a part, by the name of its reader; that release's emotions need not occur.

    Raises:
        UsageError: the map is not written so, or renames what is not there, or one name twice.
    """
    from serein.corpus.readers import EMOTIONS

    if not label_map:
        return corpus
    pairs = [pair.partition("=") for pair in unicodedata.normalize("NFC", label_map).split(",")]
    if not all(old.strip() and equals and new.strip() for old, equals, new in pairs):
        raise UsageError(f"--map {label_map}: write old=new,old=new, for example --map exc=happy,hap=happy,sad=sad")
    names = [old.strip() for old, _, _ in pairs]
    if twice := [old for old in dict.fromkeys(names) if names.count(old) > 1]:
        raise UsageError(f"--map {label_map}: renames {', '.join(twice)} twice; leave one of them")
    published = EMOTIONS.get(release, frozenset())
    if unknown := [old for old in names if old not in published.union(corpus.labels)]:
        raise UsageError(
            f"--map {label_map}: {corpus.name} has no emotion {', '.join(unknown)}; it has {', '.join(corpus.labels)}"
        )
    return corpus.relabel(dict(zip(names, (new.strip() for _, _, new in pairs), strict=True)))


def parse_numbers(option: str, text: str) -> list[int]:
    """Whole numbers with commas between them.

    Example:
        >>> parse_numbers("--layers", "2,3,-1")
        [2, 3, -1]
    """
    try:
        return [int(number) for number in text.split(",")]
    except ValueError as error:
        raise UsageError(f"{option} {text}: write whole numbers with commas between them, for example 2,3,4") from error
