"""One worker process for the conversions of many tests."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from pneumo_fast.conversion import convert as convert_module
from pneumo_fast.conversion.executors import Submit


@pytest.fixture
def shared_worker(monkeypatch: pytest.MonkeyPatch, one_worker: Callable[[int], AbstractContextManager[Submit]]) -> None:
    """Starting it takes most of a small conversion's time, so conversions by one worker share theirs."""
    monkeypatch.setattr(convert_module, "local_workers", one_worker)
