"""A store's folder, claimed for one corpus and one way of making frames, so that others never mix with them."""

import json
import re
from pathlib import Path
from typing import Any

from serein.corpus.corpus import Corpus, same_recording
from serein.errors import StoreError
from serein.files import write_atomically
from serein.frames.store import CORPUS_FILE, STORE_FILE, read_header, read_settings, settings_digest


def claim(folder: Path, corpus: Corpus, settings: dict[str, Any]) -> str:
    """Write ``store.json`` and ``corpus.csv``, or check that those there ask for the very same frames.

    ``corpus.csv`` is written anew in any case: paths of recordings without frames may have changed.

    Returns:
        the :func:`serein.frames.store.settings_digest` for the shards to come.

    Raises:
        StoreError: what is there was made with other settings or of other recordings, or does not say of which.
    """
    shards = sorted(folder.glob("shard-*.safetensors"))
    missing = [name for name in (STORE_FILE, CORPUS_FILE) if not (folder / name).exists()]
    if shards and missing:
        raise StoreError(
            f"{folder}: has frames but no {missing[0]}, which would say how and of what they were made; delete the "
            "folder, or give another one with -o"
        )
    if STORE_FILE in missing:
        write_atomically(folder / STORE_FILE, (json.dumps(settings, indent=2) + "\n").encode())
    else:
        _check_settings(folder, settings)
    digest = settings_digest(settings)
    kept = {name for shard in shards for name in read_header(shard, digest).ids}
    if kept:
        _check_recordings(folder, corpus.select(lambda utterance: utterance.id in kept))
    corpus.to_csv(folder / CORPUS_FILE)
    return digest


def _check_settings(folder: Path, settings: dict[str, Any]) -> None:
    present = read_settings(folder)
    compared = (settings.keys() | present.keys()) - {"made_with"}
    differing = sorted(name for name in compared if present.get(name) != settings.get(name))
    if differing:
        told = _told({name: present.get(name) for name in differing}, {name: settings.get(name) for name in differing})
        way_out = "give another folder with -o"
        if not any(folder.glob("shard-*.safetensors")):
            way_out += ", or delete this one: no frames are in it yet, unless another process is just making them"
        raise StoreError(f"{folder}: holds frames made with other settings ({told}); {way_out}")


def _check_recordings(folder: Path, corpus: Corpus) -> None:
    """Refuse a corpus whose ids stand for other recordings than those whose frames are there."""
    present = Corpus.from_csv(folder / CORPUS_FILE).by_id()
    for utterance in corpus:
        before = present.get(utterance.id)
        if before is None or not same_recording(before, utterance):
            raise StoreError(
                f"{folder}: its frames of {utterance.id} are of {before.path if before else 'another recording'}, not "
                f"of {utterance.path}; give another folder with -o, or, if recordings only moved, put their new paths "
                f"into its {CORPUS_FILE}"
            )


def _told(present: dict[str, Any], asked: dict[str, Any]) -> str:
    """What differs, without what only follows from it."""
    there, wanted = _leaves(present), _leaves(asked)
    differing = [name for name in wanted | there if there.get(name) != wanted.get(name)]
    if "encoder" in differing:
        differing = [name for name in differing if not name.startswith("encoder ") or name == "encoder layers"]
    causes = [name for name in differing if name not in ("frame_rate", "shards")] or differing
    return "; ".join(f"{name}: there {_short(there.get(name))}, asked {_short(wanted.get(name))}" for name in causes)


def _leaves(settings: dict[str, Any], place: str = "") -> dict[str, Any]:
    """Nested settings as one table: ``encoder`` (its name), ``encoder layers``, ``pool``."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        key = f"{place} {name}".strip()
        found |= _leaves(value, key) if isinstance(value, dict) else {key.removesuffix(" name"): value}
    return found


def _short(value: Any) -> str:
    """Of a SHA-256, as much as tells two apart."""
    text = str(value)
    return text[:12] if re.fullmatch("[0-9a-f]{64}", text) else text
