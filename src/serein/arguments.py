"""Options that several commands share, and what their texts mean."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serein.errors import UsageError

if TYPE_CHECKING:
    from serein.corpus.corpus import Corpus
    from serein.recipe import Recipe

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="TOML file; the defaults are the paper's values.")]
RecipeChanges = Annotated[
    list[str] | None, typer.Option("--set", help="table.key=value, on top of the recipe; repeatable.")
]
LabelMap = Annotated[str, typer.Option("--map", help="old=new,old=new: rename emotions, leave all others out.")]
Seed = Annotated[int, typer.Option(min=0, help="Of all that is drawn.")]


def read_recipe(path: Path | None, changes: list[str] | None) -> "Recipe":
    """The recipe that ``--recipe`` and ``--set`` ask for."""
    from serein.recipe import Recipe

    return Recipe.read(path, changes or []) if path else Recipe.from_toml("", changes or [])


def relabel(corpus: "Corpus", label_map: str) -> "Corpus":
    """The corpus with emotions renamed as ``--map`` asks; an empty map keeps them."""
    if not label_map:
        return corpus
    pairs = [pair.partition("=") for pair in label_map.split(",")]
    if not all(old.strip() and equals and new.strip() for old, equals, new in pairs):
        raise UsageError(f"--map {label_map}: write old=new,old=new, for example --map exc=happy,hap=happy,sad=sad")
    return corpus.relabel({old.strip(): new.strip() for old, _, new in pairs})


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
