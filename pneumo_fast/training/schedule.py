"""How the learning rate changes over a run."""

from __future__ import annotations

import math
from typing import Final

from pneumo_fast.vocabulary import ScheduleName

RISE: Final = 0.3
FIRST_SHARE: Final = 1 / 25
LAST_SHARE: Final = 1 / 250_000
"""Of one-cycle (Smith and Topin 2017, https://arxiv.org/abs/1708.07120), with PyTorch's values: the share of the steps
in which the rate rises, and where it begins and ends, as shares of the highest rate."""


def lr_factor(schedule: ScheduleName, step: int, total_steps: int, warmup_steps: int) -> float:
    """What the learning rate is multiplied with, in [0, 1].

    Parameters
    ----------
    step : int
        From 0 to ``total_steps - 1``.
    total_steps : int
        Of the whole run.
    warmup_steps : int
        Steps in which the rate rises in a straight line to its full value, before ``none`` keeps it there and
        ``cosine`` lets it fall to 0; ``onecycle`` has a rise of its own and takes no notice.
    """
    if schedule == "onecycle":
        top = RISE * total_steps - 1
        if step <= top:
            return _between(FIRST_SHARE, 1.0, step / top if top > 0 else 1.0)
        return _between(1.0, LAST_SHARE, (step - top) / (total_steps - 1 - top))
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "cosine":
        return _between(1.0, 0.0, (step - warmup_steps) / (total_steps - warmup_steps))
    return 1.0


def _between(start: float, end: float, share: float) -> float:
    """Half a wave of the cosine from one value to another."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
