"""Schedules as plain values of the step, so that anyone can plot them."""

import math


def cosine(step: int, steps: int, start: float, *, warmup: float = 0.0) -> float:
    """From ``start`` down to 0 along half a cosine; before that, a straight rise over a share ``warmup`` of the steps.

    Args:
        step: counts from 0.
        steps: of the whole run.
        start: the largest value.
        warmup: in [0, 1).

    Example:
        >>> [round(cosine(step, 4, 1.0), 3) for step in range(4)]
        [1.0, 0.854, 0.5, 0.146]
        >>> [round(cosine(step, 4, 1.0, warmup=0.5), 3) for step in range(4)]
        [0.5, 1.0, 1.0, 0.5]
    """
    rising = round(warmup * steps)
    if step < rising:
        return start * (step + 1) / rising
    return start * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def linear(step: int, steps: int, start: float, end: float) -> float:
    """From ``start`` at the first step to ``end`` at the last, in a straight line.

    Example:
        >>> [linear(step, 3, 1.0, 0.5) for step in range(3)]
        [1.0, 0.75, 0.5]
    """
    return start + (end - start) * step / max(1, steps - 1)
