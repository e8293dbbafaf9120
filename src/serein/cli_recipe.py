"""The recipe that a command is asked for, with a word where it would take hours."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from serein.arguments import read_recipe

if TYPE_CHECKING:
    from serein.recipe import Recipe


def choose_recipe(path: Path | None, changes: list[str] | None, systems: Collection[str] = ("adapter",)) -> "Recipe":
    """The recipe of ``--recipe`` and ``--set``; warns of the paper's training on a CPU, where nobody asked for it.

    Call it before the progress bars are drawn. The linear probe alone has no epochs to warn of.
    """
    from serein import terminal
    from serein.recipe import Recipe
    from serein.train.machine import pick_device

    def size(recipe: Recipe) -> tuple[int, int, int]:
        return recipe.model.width, recipe.adapt.epochs, recipe.finetune.epochs

    recipe, paper = read_recipe(path, changes), Recipe()
    as_in_paper = path is None and size(recipe) == size(paper) and set(systems) != {"linear"}
    if as_in_paper and pick_device(recipe.speed.device).type == "cpu":
        adapted = any(system.partition(":")[0] == "adapter" for system in systems)
        width = f" at width {paper.model.width}" if adapted else ""  # the other heads have none
        terminal.note(
            f"no --recipe: the paper's {paper.finetune.epochs} epochs{width}; "
            "on a CPU take --recipe recipes/laptop.toml"
        )
    return recipe


def recipe_options(path: Path | None, changes: list[str] | None) -> list[str]:
    """The same recipe for the next command.

    Example:
        >>> recipe_options(Path("mine.toml"), ["adapt.epochs=6"])
        ['--recipe', 'mine.toml', '--set', 'adapt.epochs=6']
    """
    options = [] if path is None else ["--recipe", str(path)]
    for change in changes or []:
        options += ["--set", change]
    return options
