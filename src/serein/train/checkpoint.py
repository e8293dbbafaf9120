"""Training state on disk: safetensors and JSON, so that a killed run continues to the same bits (on a CPU)."""

import hashlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from serein.errors import StoreError
from serein.files import parse_json, write_atomically
from serein.frames.batches import BATCHING
from serein.recipe import Recipe

Row = dict[str, Any]


@dataclass
class Checkpoint:
    """Where a loop saves itself, and how often.

    Args:
        path: the file; None never saves.
        seconds: least time between two saves; 0 saves at every call.
        purpose: what is trained on what, as a digest of all settings; a file with another one is not continued.
    """

    path: Path | None = None
    seconds: float = 60.0
    purpose: str = ""
    _saved: float = field(default_factory=time.monotonic)
    _begun: float = field(default_factory=time.monotonic)
    _before: float = 0.0

    def spent(self) -> float:
        """Seconds of work behind the present state, those before a kill included."""
        return round(self._before + time.monotonic() - self._begun, 3)

    def save_if_due(self, module: nn.Module, optimizer: torch.optim.Optimizer, step: int, history: list[Row]) -> None:
        """Save when the last save is long enough ago."""
        if self.path is not None and time.monotonic() - self._saved >= self.seconds:
            self.save(module, optimizer, step, history)
            self._saved = time.monotonic()

    def save(self, module: nn.Module, optimizer: torch.optim.Optimizer, step: int, history: list[Row]) -> None:
        """Write all that the next step depends on: weights, buffers, Adam's moments, the count of steps done."""
        if self.path is None:
            return
        tensors = {f"module.{name}": tensor.contiguous() for name, tensor in module.state_dict().items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": tensor.contiguous() for name, tensor in state.items()}
        # a safetensors header, where the rest goes, may not grow without end
        tensors["history"] = torch.frombuffer(bytearray(json.dumps(history).encode()), dtype=torch.uint8)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        said = json.dumps({"purpose": self.purpose, "spent": self.spent(), "step": step})
        write_atomically(self.path, save(tensors, metadata={"serein": said}))

    def restore(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, list[Row]]:
        """Put back what was saved.

        Returns:
            the count of steps done and the history so far; (0, []) where nothing was saved.

        Raises:
            StoreError: the file is damaged, or belongs to another network or to other settings.
        """
        if self.path is None or not self.path.exists():
            return 0, []
        moments: dict[int, dict[str, Tensor]] = {}
        weights: dict[str, Tensor] = {}
        try:
            with safe_open(self.path, framework="pt") as file:
                said = parse_json(file.metadata()["serein"])
                if said["purpose"] != self.purpose:
                    raise StoreError(
                        f"{self.path}: was left by a training with other settings; delete it to start again, "
                        "or give another folder"
                    )
                history = parse_json(file.get_tensor("history").numpy().tobytes())
                for key in file.keys():  # noqa: SIM118 (not a mapping)
                    kind, _, name = key.partition(".")
                    if kind == "module":
                        weights[name] = file.get_tensor(key)
                    elif kind == "optimizer":
                        index, _, moment = name.partition(".")
                        moments.setdefault(int(index), {})[moment] = file.get_tensor(key)
            module.load_state_dict(weights)
        except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"{self.path}: this checkpoint does not fit ({error}); delete it to start again"
            ) from error
        self._before = said["spent"]
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
        return said["step"], history

    def remove(self) -> None:
        """Delete the file, when the loop is done and its result is saved elsewhere."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def digest(recipe: Recipe, *settings: object) -> str:
    """Digest of the settings that change a training's result, for `Checkpoint.purpose`.

    Args:
        recipe: without its ``[speed]``.
        settings: what else does, with a ``repr`` that says all of it.
    """
    said = repr((BATCHING, recipe.model_dump(exclude={"speed"}), *settings))
    return hashlib.sha256(said.encode()).hexdigest()
