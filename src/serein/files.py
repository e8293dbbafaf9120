"""Files that are seen whole or not at all, names that can be written, and numbers as JSON has them."""

import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from glob import escape
from math import isnan
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

ABANDONED = 3600  # seconds: whoever last wrote into a partial file so long ago was killed


def write_atomically(path: Path, content: bytes | Iterable[bytes | memoryview]) -> None:
    """Write a file that is seen whole or not at all, also after a power cut; its folder is made where it is missing.

    Two processes that write the same file do not meet: each has a name of its own until it is done, and the last one
    stays. What killed writers of the file left goes (:func:`remove_abandoned`). Where the path is a link, what it
    points at is written, and the link stays.
    """
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path.parent, escape(path.name))
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
    try:
        with partial.open("xb") as file:
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    if os.name == "posix":  # elsewhere a folder cannot be opened, and the rename is already durable
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_abandoned(folder: Path, names: str) -> None:
    """Remove what writers of files of these names (a glob pattern) left who were killed an hour ago or longer."""
    for partial in folder.glob(f".{names}.*partial"):
        with suppress(OSError):  # it may be done, or not ours to remove
            if time.time() - partial.stat().st_mtime > ABANDONED:
                partial.unlink()


def is_utf8(name: str) -> bool:
    r"""Whether a name is text that can be written; a file's may hold bytes that are not UTF-8.

    Example:
        >>> is_utf8("caf\u00e9"), is_utf8(os.fsdecode(b"caf\xe9"))
        (True, False)
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def parse_json(text: str | bytes) -> Any:
    """What a JSON file says.

    Raises:
        ValueError: it is damaged, or nested more deeply than Python follows.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


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
