"""Images read as they are stored, by a compiled kernel or without one, are those that the reader gives."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.npy import Images
from pneumo_fast.errors import DatasetError
from pneumo_fast.loading import reader as reader_module
from pneumo_fast.loading.engines import stored as stored_module
from pneumo_fast.loading.engines.fused import compiled_kernels
from pneumo_fast.loading.engines.stored import StoredImages
from pneumo_fast.loading.reader import ShardReader
from pneumo_fast.loading.rng import Rows
from pneumo_fast.vocabulary import Dtype
from tests.support.make_dataset import make_dataset, stored_images

WAYS = pytest.mark.parametrize(
    "way", [pytest.param("kernel", marks=pytest.mark.skipif(compiled_kernels(8).result() is None, reason="no numba")),
            "no kernel", "files that are not kept open"],
)  # fmt: skip


@contextmanager
def opened(dataset: Dataset, way: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoredImages]:
    if way == "no kernel":
        monkeypatch.setattr(stored_module, "compiled_kernels", lambda _bits: Future())
    elif way != "kernel":
        monkeypatch.setattr(reader_module, "openable_files", lambda _wanted: 0)
    compiled_kernels(8 * dataset.dtype.itemsize).result()
    with closing(ShardReader(dataset, dataset.rows("train"))) as reader:
        yield StoredImages(reader)


@WAYS
@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_rows_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, dtype: Dtype) -> None:
    dataset = make_dataset(tmp_path / "d", dtype=dtype, size=9)
    expected = stored_images(dataset, "train")
    rows = np.array([*range(len(expected))[::-1], 3, 3, 4, 0])
    out = np.zeros((len(rows), 9, 9), dtype=expected.dtype)
    by_python: list[int] = []
    read_into = ShardReader.read_into

    def count(reader: ShardReader, rows: Rows, out: Images) -> None:
        by_python.append(len(rows))
        read_into(reader, rows, out)

    monkeypatch.setattr(ShardReader, "read_into", count)
    with opened(dataset, way, monkeypatch) as images:
        images.read_into(rows, out)
    assert sum(by_python) == (0 if way == "kernel" else len(rows))
    np.testing.assert_array_equal(out, expected[rows], strict=True)


@WAYS
def test_a_shard_that_was_cut_short_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    dataset = make_dataset(tmp_path / "d")
    rows = np.arange(len(dataset.rows("train")))
    out = np.zeros((len(rows), *dataset.manifest.image_shape), dtype=dataset.dtype)
    last = dataset.path / str(dataset.rows("train")["shard"].iloc[-1])
    with opened(dataset, way, monkeypatch) as images:
        images.read_into(rows, out)
        os.truncate(last, last.stat().st_size - 1)
        with pytest.raises(DatasetError, match="was cut short"):
            images.read_into(rows, out)
