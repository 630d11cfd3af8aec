"""DALI, where it is not installed, and what it waits for at the end of an epoch."""

from __future__ import annotations

import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

from pneumo_fast.errors import DeviceError
from tests.support.loaders import Place, collect, load
from tests.support.make_dataset import make_dataset


def test_without_dali(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dataset(tmp_path / "d")
    monkeypatch.delitem(sys.modules, "pneumo_fast.loading.engines.dali", raising=False)
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(DeviceError, match=r"DALI cannot be imported .* or give --loader fused or resident"):
        load(dataset, "val", Place("dali", "cpu"), batch_size=4)
    with load(dataset, "val", batch_size=4) as loader:
        assert len(collect(loader, 0)) == 4


def test_batches_that_a_stream_still_reads_are_waited_for(tmp_path: Path) -> None:
    pytest.importorskip("nvidia.dali", reason="DALI is not installed")
    waited: list[str] = []

    class Held:
        """A batch that is held for nothing else."""

    class Reading:
        def synchronize(self) -> None:
            waited.append("for the stream" if batch() else "for nothing: the batch had been let go")

    with load(make_dataset(tmp_path / "d"), "val", Place("dali", "cpu"), batch_size=4) as loader:
        engine: Any = loader._engine
        epoch = loader.epoch(0)
        next(epoch)
        engine._held.append((Reading(), held := Held()))
        batch = weakref.ref(held)
        del held
        epoch.close()
        assert waited == ["for the stream"]
        assert batch() is None
