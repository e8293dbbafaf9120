import json
from math import nan
from pathlib import Path

import numpy as np
import pytest

from serein.evaluate.files import as_json, write_atomically


def test_a_file_is_replaced_whole_and_its_folder_is_made(tmp_path):
    path = tmp_path / "a" / "b" / "page.md"
    for content in (b"one", "zwei \u2013\n".encode()):
        write_atomically(path, content)
        assert path.read_bytes() == content
        assert [found.name for found in path.parent.iterdir()] == ["page.md"]


def test_what_cannot_be_written_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "page.md"
    write_atomically(path, b"old")
    write = Path.write_bytes

    def full(self, content):
        write(self, content[:1])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_that_write_a_file_at_once_do_not_meet(tmp_path, monkeypatch):
    path = tmp_path / "page.md"
    write = Path.write_bytes

    def meeting_another(self, content):
        write(self, content)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", write)
            write_atomically(path, b"theirs")

    monkeypatch.setattr(Path, "write_bytes", meeting_another)
    write_atomically(path, b"ours")
    assert path.read_bytes() == b"ours"
    assert list(tmp_path.iterdir()) == [path]


def test_json_has_lists_for_arrays_and_null_for_what_is_undefined():
    text = as_json({"a": nan, "b": [{"c": (1.5, nan)}], "d": np.array([[1, nan]]), "e": "nan", "f": np.int64(3)})
    assert json.loads(text) == {"a": None, "b": [{"c": [1.5, None]}], "d": [[1, None]], "e": "nan", "f": 3}
    assert text.endswith("}\n")
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_json({"a": np.array([np.inf])})
