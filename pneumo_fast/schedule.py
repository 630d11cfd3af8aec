"""Learning rates over the steps of a run, as plain functions of the step: nothing to save, exact after a resume."""

from __future__ import annotations

import math
from typing import Literal

ScheduleName = Literal["none", "cosine", "onecycle"]

RISE, FIRST, LAST = 0.3, 1 / 25, 1 / 250_000
"""Of one-cycle (Smith and Topin 2017, https://arxiv.org/abs/1708.07120), with PyTorch's values: the share of the steps
in which the rate rises, and where it begins and ends, as shares of the highest rate."""


def lr_factor(schedule: ScheduleName, step: int, steps: int, warm_up: int) -> float:
    """What the learning rate is multiplied with.

    Parameters
    ----------
    step : int
        From 0 to ``steps - 1``.
    steps : int
        Of the whole run.
    warm_up : int
        Steps in which the rate rises in a straight line to its full value, before ``none`` keeps it there and
        ``cosine`` lets it fall to 0; ``onecycle`` has a rise of its own and takes no notice.
    """
    if schedule == "onecycle":
        top = RISE * steps - 1
        if step <= top:
            return _between(FIRST, 1.0, step / top if top > 0 else 1.0)
        return _between(1.0, LAST, (step - top) / (steps - 1 - top))
    if step < warm_up:
        return (step + 1) / warm_up
    if schedule == "cosine":
        return _between(1.0, 0.0, (step - warm_up) / (steps - warm_up))
    return 1.0


def _between(start: float, end: float, share: float) -> float:
    """Half a wave of the cosine from one value to another."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
