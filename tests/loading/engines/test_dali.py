"""DALI, where it is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pneumo_fast.errors import DeviceError
from tests.support.loaders import Place, collect, load
from tests.support.make_dataset import make_dataset


def test_without_dali(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dataset(tmp_path / "d")
    monkeypatch.delitem(sys.modules, "pneumo_fast.loading.engines.dali")
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(DeviceError, match=r"DALI cannot be imported .* or give --loader fused or resident"):
        load(dataset, "val", Place("dali", "cpu"), batch_size=4)
    with load(dataset, "val", batch_size=4) as loader:
        assert len(collect(loader, 0)) == 4
