"""Files that are seen whole or not at all."""

from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under another name, and give it its own when it is whole; the folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
