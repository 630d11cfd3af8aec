"""Learning rates: against PyTorch's own schedules, and what all of them have in common."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pneumo_fast.training.schedule import lr_factor


def rates(schedule: Any, steps: int, warm_up: int = 0) -> list[float]:
    return [lr_factor(schedule, step, steps, warm_up) for step in range(steps)]


def by_torch(make: Any, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler, found = make(optimizer), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("steps", [10, 97])
def test_schedules_are_those_of_pytorch(steps: int) -> None:
    one_cycle = by_torch(lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=1.0, total_steps=steps + 1), steps)
    cosine = by_torch(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, steps), steps)
    assert rates("cosine", steps) == pytest.approx(cosine)
    assert rates("onecycle", steps + 1)[:steps] == pytest.approx(one_cycle)


@given(steps=st.integers(1, 200), warm_up=st.integers(0, 50), schedule=st.sampled_from(["none", "cosine", "onecycle"]))
def test_a_rate_rises_once_and_falls_once(steps: int, warm_up: int, schedule: Any) -> None:
    found = rates(schedule, steps, warm_up)
    top = found.index(max(found))
    assert all(0 <= rate <= 1 for rate in found)
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
