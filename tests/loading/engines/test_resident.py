"""A whole split in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pneumo_fast.errors import DatasetError, DeviceError
from pneumo_fast.loading.augment import Augmentation
from pneumo_fast.loading.engines import resident
from tests.support.loaders import Place, collect, left_behind, load, resources
from tests.support.make_dataset import Dtype, make_dataset


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
@pytest.mark.parametrize("augmentation", [None, Augmentation(strength="strong", flip=True)], ids=["plain", "changed"])
def test_the_engine_for_gpus_delivers_the_same_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Dtype, augmentation: Augmentation | None
) -> None:
    """Nothing in it but the device's name is the GPU's own."""
    dataset = make_dataset(tmp_path / "d", dtype=dtype, size=32)
    options: dict[str, Any] = {"batch_size": 4, "order": "shuffle", "augmentation": augmentation}
    with load(dataset, "train", **options) as loader:
        expected = [collect(loader, epoch) for epoch in (0, 1)]
    monkeypatch.setattr(resident, "MemoryEngine", resident.DeviceEngine)
    with load(dataset, "train", Place("resident", "cpu"), **options) as loader:
        for epoch in (0, 1):
            for (images, labels), (expected_images, expected_labels) in zip(
                collect(loader, epoch), expected[epoch], strict=True
            ):
                np.testing.assert_array_equal(labels, expected_labels)
                np.testing.assert_allclose(images, expected_images, rtol=1e-5, atol=1e-5)


def test_a_split_that_does_not_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "device_memory", lambda _: (100, 10**9))
    with pytest.raises(
        DeviceError, match=r"the split takes 0\.0 GB, and 0\.0 GB are free on cpu.*: give another --loader"
    ):
        load(make_dataset(tmp_path / "d"), "val", Place("resident", "cpu"), batch_size=4)


def test_a_loader_that_fails_to_open_leaves_no_file_open(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d")
    last = dataset.path / dataset.rows("train")["shard"].iloc[-1]
    last.write_bytes(last.read_bytes()[:-10])
    before = resources()
    for _ in range(3):
        with pytest.raises(DatasetError, match="was cut short"):
            load(dataset, "train", Place("resident", "cpu"), batch_size=4, order="shuffle")
    assert left_behind(before) == (0, 0)
