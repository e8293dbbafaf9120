import json
from math import nan

import numpy as np
import pytest

from serein.evaluate.files import as_json, write_atomically


def test_a_file_is_replaced_whole_and_its_folder_is_made(tmp_path):
    path = tmp_path / "a" / "b" / "page.md"
    for content in (b"one", "zwei \u2013\n".encode()):
        write_atomically(path, content)
        assert path.read_bytes() == content
        assert [found.name for found in path.parent.iterdir()] == ["page.md"]


def test_what_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "page.md"
    write_atomically(path, b"old")
    (tmp_path / ".page.md.partial").mkdir()
    with pytest.raises(OSError, match="partial"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_json_has_lists_for_arrays_and_null_for_what_is_undefined():
    text = as_json({"a": nan, "b": [{"c": (1.5, nan)}], "d": np.array([[1, nan]]), "e": "nan", "f": np.int64(3)})
    assert json.loads(text) == {"a": None, "b": [{"c": [1.5, None]}], "d": [[1, None]], "e": "nan", "f": 3}
    assert text.endswith("}\n")
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_json({"a": np.array([np.inf])})
