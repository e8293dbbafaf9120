"""How a command ends that cannot go on: a line or two for the reader, and an exit code."""

import errno
import io
import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from serein.errors import SereinError

# torch says it in a RuntimeError
_NO_MEMORY = re.compile(r"out of memory|(not enough|can't allocate|cannot allocate) memory", re.IGNORECASE)
_SMALLER = (
    "in training try --set speed.frames=mapped, or a smaller finetune.batch_size, adapt.batch_size or model.width; "
    "elsewhere shorter recordings, or a smaller encoder"
)


def run(app: Callable[[], object]) -> None:
    """Call the command line's application; a traceback needs ``--debug``.

    What the disk, the network, a wrong path or the memory refuses is told like serein's own errors, and ends with 1.
    Who closes the pipe, as ``head`` does, is told nothing.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be no text
    try:
        try:
            app()
        finally:
            _flush()
    except BrokenPipeError:
        sys.exit(1)
    except SereinError as error:
        _end(error, str(error), error.exit_code)
    except OSError as error:
        _end(error, explain(error), 1)
    except (MemoryError, RuntimeError) as error:
        if not _NO_MEMORY.search(str(error)) and not isinstance(error, MemoryError):
            raise
        _end(error, f"not enough memory ({_in_one_line(error)}); {_SMALLER}", 1)


def explain(error: OSError) -> str:
    """What the system refused, where, and what to do, in one line.

    Example:
        >>> explain(PermissionError(errno.EACCES, "Permission denied", "/frames"))
        '/frames: Permission denied; change its permissions, or give another path'
    """
    what = error.strerror or _in_one_line(error)
    where = error.filename2 or error.filename  # of a rename, the name that a user knows
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            remedy = "make room, then give the same command again"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            remedy = "change its permissions, or give another path"
        case errno.EEXIST | errno.ENOTDIR | errno.EISDIR:
            remedy = "a file is where a folder has to be, or a folder where a file has to be: give another path"
        case _:
            remedy = "`serein --debug ...` shows where in the program"
    return f"{what}; {remedy}" if where is None else f"{where}: {what}; {remedy}"


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _end(error: Exception, text: str, code: int) -> NoReturn:
    if "--debug" in sys.argv:
        raise error
    print(f"serein: {text}", file=sys.stderr)
    sys.exit(code)


def _flush() -> None:
    """Write what is left now, while a closed pipe or a full disk can still be told."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries again when it ends
        raise
