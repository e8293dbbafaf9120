import json
import os
from collections.abc import Callable, Iterator
from math import nan

import numpy as np
import pytest

from serein.files import as_json, write_atomically


def test_a_file_is_replaced_whole_and_its_folder_is_made(tmp_path):
    path = tmp_path / "a" / "b" / "page.md"
    for content in (b"one", "zwei \u2013\n".encode()):
        write_atomically(path, content)
        assert path.read_bytes() == content
        assert [found.name for found in path.parent.iterdir()] == ["page.md"]


def parts(*contents: bytes, then: Callable[[], object]) -> Iterator[bytes]:
    yield from contents
    then()


def test_what_cannot_be_written_leaves_the_old_file(tmp_path):
    def fail() -> None:
        raise OSError("no space left")

    path = tmp_path / "page.md"
    write_atomically(path, b"old")
    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, parts(b"n", then=fail))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_and_what_it_points_at_is_written(tmp_path):
    real, link = tmp_path / "far" / "page.md", tmp_path / "page.md"
    link.symlink_to(real)
    for content in (b"new", b"again"):
        write_atomically(link, content)
        assert link.is_symlink()
        assert real.read_bytes() == content
    assert sorted(tmp_path.iterdir()) == [real.parent, link]


def test_two_that_write_a_file_at_once_do_not_meet(tmp_path):
    path = tmp_path / "page.md"
    write_atomically(path, parts(b"ou", b"rs", then=lambda: write_atomically(path, b"theirs")))
    assert path.read_bytes() == b"ours"
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_writers_left_goes_after_an_hour(tmp_path):
    path = tmp_path / "page.md"
    young, old, other = (tmp_path / f".{name}.partial" for name in ("page.md.1", "page.md.2", "other.md.3"))
    for partial in (young, old, other):
        partial.write_bytes(b"half")
    for partial in (old, other):
        os.utime(partial, (0, 0))
    write_atomically(path, b"whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, young, other])


def test_json_has_lists_for_arrays_and_null_for_what_is_undefined():
    text = as_json({"a": nan, "b": [{"c": (1.5, nan)}], "d": np.array([[1, nan]]), "e": "nan", "f": np.int64(3)})
    assert json.loads(text) == {"a": None, "b": [{"c": [1.5, None]}], "d": [[1, None]], "e": "nan", "f": 3}
    assert text.endswith("}\n")
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_json({"a": np.array([np.inf])})
