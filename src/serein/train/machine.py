"""What a run asks of the machine: device, precision, peak memory, and numbers drawn the same way every time."""

import ctypes
import platform
import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from enum import IntEnum
from importlib.metadata import version
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from serein.errors import Diverged, UsageError
from serein.recipe import Speed

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


class Stage(IntEnum):
    """The part of a random key that keeps the stages of a run apart."""

    INITIAL = 0
    ADAPT = 1
    FINETUNE = 2
    REFIT = 3
    LABELS = 4


def pick_device(name: str) -> torch.device:
    """``auto`` is the GPU where there is one.

    Raises:
        UsageError: torch does not know the device, or this machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"speed.device = {name!r}: torch knows no such device") from error
    here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device.type != "cpu" and (
        here is None or device.type != here.type or (device.index or 0) >= torch.accelerator.device_count()
    ):
        raise UsageError(f"speed.device = {name!r}: torch sees no such device here; use auto or cpu")
    return device


def pick_precision(device: torch.device, precision: Literal["auto", "float32", "bfloat16"]) -> str:
    """``auto`` is bfloat16 where the hardware multiplies it, else float32."""
    if precision == "auto":
        return "bfloat16" if _multiplies_bf16(device) else "float32"
    return precision


def arithmetic(speed: Speed) -> tuple[str, str, str]:
    """Kind of device, precision, and torch's version: what beside the recipe shows in draws and last digits."""
    device = pick_device(speed.device)
    return device.type, pick_precision(device, speed.precision), str(torch.__version__)


def autocast(device: torch.device, precision: Literal["auto", "float32", "bfloat16"]) -> AbstractContextManager[object]:
    """Mixed precision: matrix products in bf16, if :func:`pick_precision` says so."""
    bf16 = pick_precision(device, precision) == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported())


def forget_peak_memory(device: torch.device) -> None:
    """Let :func:`peak_memory_bytes` count from now on, on a GPU; a process's main memory cannot forget."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory this process has held: on the GPU where that is the device, else in the main memory.

    0 on Windows, which does not tell without a further library.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def keep_freed_memory(device: torch.device) -> None:
    """Have glibc keep what a training step on a CPU frees, for the next step to take; for this process, from now on.

    By itself it hands large blocks back to the system, which clears their pages when the next step asks for them. The
    price is a process that stays as large as its largest step. Blocks of 1 GiB and more are handed back as before.
    Elsewhere than on a CPU, and without glibc, nothing happens.
    """
    if device.type != "cpu" or sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # Before 2.35 glibc takes no threshold above 32 MiB. The other setting alone would freeze the threshold where it
    # starts, at 128 KiB, which is slower than none of this.
    if mallopt is not None and (mallopt(_M_MMAP_THRESHOLD, 2**30) or mallopt(_M_MMAP_THRESHOLD, 2**25)):
        mallopt(_M_TRIM_THRESHOLD, -1)


def check_finite(loss: Tensor, stage: str, step: int, **rates: float) -> None:
    """Stop a training that has diverged.

    Args:
        loss: of this step.
        stage: of the training.
        step: counted from 0.
        rates: the learning rates at this step, by their keys in the recipe.

    Raises:
        Diverged: the loss is infinite or not a number.
    """
    if not torch.isfinite(loss):
        raise Diverged(f"{stage}: the loss is {loss.item()} at step {step}: {_advice(rates)}")


def check_weights(parameters: Iterable[Tensor], stage: str, **rates: float) -> None:
    """Stop a training whose last step diverged: what that did shows in no loss any more.

    Args:
        parameters: after the last step.
        stage: of the training.
        rates: the learning rates of the recipe, by their keys.

    Raises:
        Diverged: a weight is infinite or not a number.
    """
    if not all(bool(parameter.isfinite().all()) for parameter in parameters):
        raise Diverged(f"{stage}: a weight is infinite or not a number after the last step: {_advice(rates)}")


def _advice(rates: Mapping[str, float]) -> str:
    said = ", ".join(f"{name} {rate:.2g}" for name, rate in rates.items())
    return f"the training has diverged ({said}); try a smaller learning rate, or --set speed.precision=float32"


def generator(*key: int) -> torch.Generator:
    """A generator on the CPU whose stream is a pure function of the key, for example (seed, stage, step).

    A step that draws from its own generator can be repeated after a kill without any saved state.

    Example:
        >>> torch.rand(2, generator=generator(0, 1, 7)).equal(torch.rand(2, generator=generator(0, 1, 7)))
        True
    """
    return torch.Generator().manual_seed(_state(0, key))


def seed_globally(*key: int) -> None:
    """Fresh weights and dropout draw from torch's global generator: set it, like :func:`generator`, from a key."""
    # torch.manual_seed formats a stack trace for GPUs that are not there, a tenth of a millisecond at every step.
    seed = torch.manual_seed if torch.accelerator.is_available() else torch.default_generator.manual_seed
    seed(_state(1, key))


def _state(purpose: int, key: tuple[int, ...]) -> int:
    # The length counts too: a seed sequence pads with zeros, so that (0, 2) alone would be (0, 2, 0).
    return int(np.random.SeedSequence((purpose, len(key), *key)).generate_state(1, np.uint64)[0] >> 1)


def environment() -> dict[str, str | int]:
    """What a result depends on beside the recipe: versions, processor, threads."""
    # torch has it from 2.11 on
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    packages = ("serein", "torch", "transformers", "numpy", "safetensors", "soundfile", "soxr")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": str(capabilities.get("cpu_name", "")) or platform.machine(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "threads": torch.get_num_threads(),
        **{package: version(package) for package in packages},
    }
