"""The test utterances' vectors that a fold leaves beside its predictions."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open

from serein.errors import CorpusError
from serein.files import parse_json


@dataclass(frozen=True)
class Embeddings:
    """One vector a test utterance of a fold: of the frozen encoder, of the adapter, and of the system.

    Of the adapter there are two: fresh, which nothing trained, and as fine-tuning found it after training without
    labels. What there is not is None: a linear probe has the encoder's alone, and runs of before have no fresh adapter.
    """

    ids: tuple[str, ...]
    encoder: Float[np.ndarray, "utterances encoder_width"]
    fresh: Float[np.ndarray, "utterances adapter_width"] | None
    adapter: Float[np.ndarray, "utterances adapter_width"] | None
    system: Float[np.ndarray, "utterances system_width"] | None


def load_embeddings(path: Path, utterances: Collection[str]) -> Embeddings:
    """Read a fold's ``embeddings.safetensors`` as float32.

    Raises:
        CorpusError: the file is damaged, or does not hold one row of each of the ``utterances`` (ids).
    """
    try:
        with safe_open(path, framework="numpy") as file:
            ids = tuple(parse_json(file.metadata()["serein"])["ids"])
            tensors = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
            others = ("fresh adapter", "adapter without labels", "system")
            found = Embeddings(ids, tensors["encoder"], *(tensors.get(name) for name in others))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CorpusError(f"{path}: cannot be read ({error!r}); delete its folder and run the command again") from error
    if sorted(ids) != sorted(utterances) or any(len(points) != len(ids) for points in tensors.values()):
        raise CorpusError(f"{path}: is not of the fold's test utterances; delete its folder and run the command again")
    return found
