"""The fused engine is for CPUs; its kernels give the bits of plain NumPy, compiled or not."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pneumo_fast.loading.engines.copied import CopiedEngine
from pneumo_fast.loading.engines.fused import Normalizer, compiled_kernels
from tests.support.loaders import Place, load
from tests.support.make_dataset import make_dataset

if TYPE_CHECKING:
    from pneumo_fast.loading.engines.kernels import Kernels

COMPILED = pytest.mark.parametrize(
    "compiled",
    [False, pytest.param(True, marks=pytest.mark.skipif(compiled_kernels(8).result() is None, reason="no numba"))],
)
CONSTANTS = [(0.0, 1.0), (0.123456789, 0.98765), (0.9999, 1e-3), (1 / 3, 1 / 7)]


def aligned(rows: int, pixels: int, beyond: int = 0) -> NDArray[np.float32]:
    """Float32 that begins so many bytes after a multiple of 64."""
    raw = np.empty(rows * pixels * 4 + 128, dtype=np.uint8)
    start = -raw.ctypes.data % 64 + beyond
    return raw[start : start + rows * pixels * 4].view(np.float32).reshape(rows, pixels)


@COMPILED
@pytest.mark.parametrize("beyond", [0, 4, 32])
@pytest.mark.parametrize(("mean", "std"), CONSTANTS)
@pytest.mark.parametrize("pixels", [15361, 15360, 16, 15, 17, 1])
def test_every_float16_is_normalized_to_the_last_bit(
    compiled: bool, pixels: int, mean: float, std: float, beyond: int
) -> None:
    """All 15,361 values in [0, 1], subnormal ones too, at whatever address they end up."""
    every = np.arange(15361, dtype=np.uint16).view(np.float16)[-pixels:]
    images, rows = np.stack([every, every[::-1]]), np.array([1, 0, 1])
    out = aligned(3, pixels, beyond)
    Normalizer(np.dtype("float16"), mean, std, compiled=compiled).wait_for_kernels().gather(images, rows, out)
    expected = (images[rows].astype(np.float32) - np.float32(mean)) * np.float32(1 / std)
    np.testing.assert_array_equal(out, expected)


@COMPILED
@pytest.mark.parametrize("beyond", [0, 4])
@pytest.mark.parametrize(("mean", "std"), CONSTANTS)
def test_every_byte_is_normalized_to_the_last_bit(compiled: bool, mean: float, std: float, beyond: int) -> None:
    images = np.arange(256, dtype=np.uint8).reshape(2, 128)
    out = aligned(3, 128, beyond)
    Normalizer(np.dtype("uint8"), 255 * mean, 255 * std, compiled=compiled).wait_for_kernels().gather(
        images, np.array([1, 0, 0]), out
    )
    expected = (images[[1, 0, 0]].astype(np.float32) - np.float32(255 * mean)) * np.float32(1 / (255 * std))
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("place", [Place("fused", "cpu"), Place("resident", "cpu")], ids=" ".join)
def test_a_batch_does_not_wait_for_the_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    """They come in the middle of an epoch, which changes no bit."""
    dataset, kernels = make_dataset(tmp_path / "d"), compiled_kernels(16).result()
    coming: Future[Kernels | None] = Future()
    with load(dataset, "train", place, batch_size=4, order="shuffle") as loader:
        expected = [images.clone() for images, _ in loader.epoch(0)]
    monkeypatch.setattr("pneumo_fast.loading.engines.fused.compiled_kernels", lambda _bits: coming)
    with load(dataset, "train", place, batch_size=4, order="shuffle") as loader:
        for batch, (images, _) in enumerate(loader.epoch(0)):
            assert torch.equal(images, expected[batch])
            if batch == 1:
                coming.set_result(kernels)


def test_its_batches_are_copied_to_another_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pneumo_fast.loading.loader.resolve_device", lambda _: torch.device("meta"))
    with load(make_dataset(tmp_path / "d"), "val", Place("fused", "cpu"), batch_size=4) as loader:
        batches = list(loader.epoch(0))
    assert [(images.device.type, labels.device.type) for images, labels in batches] == [("meta", "meta")] * len(batches)
    assert [images.shape[0] for images, _ in batches] == [len(labels) for _, labels in batches]


def test_copies_are_the_batches() -> None:
    batch = torch.arange(8.0).reshape(2, 1, 2, 2), torch.tensor([0.0, 1.0])
    copied = CopiedEngine(SimpleNamespace(begin=None, end=None, close=None, next=lambda: batch), torch.device("cpu"))
    assert all(torch.equal(one, other) for one, other in zip(copied.next(), batch, strict=True))
