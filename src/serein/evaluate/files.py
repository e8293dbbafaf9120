"""Files that are seen whole or not at all, and numbers as JSON has them."""

import json
from math import isnan
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under another name, and give it its own when it is whole; the folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of one's own: two processes that write the same file must not write into each other's.
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def as_json(document: Any) -> str:
    """The text of a JSON file: arrays as lists, and null for what is undefined (nan).

    Raises:
        ValueError: a number is infinite.

    Example:
        >>> print(as_json({"ua": float("nan"), "shares": np.array([0.5, np.nan])}), end="")
        {
         "ua": null,
         "shares": [
          0.5,
          null
         ]
        }
    """
    return json.dumps(_plain(document), indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    match value:
        case float() if isnan(value):
            return None
        case np.ndarray() | np.generic():
            return _plain(value.tolist())
        case dict():
            return {key: _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case _:
            return value
