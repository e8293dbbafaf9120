"""How long work tells its caller where it is: one function, passed in, silent by default."""

from collections.abc import Callable
from typing import Any

Report = Callable[[str, int, int, dict[str, Any]], None]
"""``report(stage, done, total, facts)``: called after each unit of work; must return at once."""


def quiet(stage: str, done: int, total: int, facts: dict[str, Any]) -> None:
    """Report to nobody."""
