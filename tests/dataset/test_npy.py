"""Files of pixels: plain .npy, written image by image, and rounded as NumPy does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pneumo_fast.dataset.npy import (
    SCALES,
    ShardWriter,
    image_digest,
    read_header,
    shard_checksum,
    store_unit,
    write_array,
)
from pneumo_fast.errors import DatasetError


@pytest.mark.parametrize("dtype", ["<f2", "|u1"])
@pytest.mark.parametrize("shape", [(3, 5, 5), (5, 5), (1, 1, 1)])
def test_arrays_are_plain_npy(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    images = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    path = tmp_path / "x.npy"
    write_array(path, images)
    np.testing.assert_array_equal(np.load(path, allow_pickle=False), images, strict=True)
    with path.open("rb") as file:
        offset, *found = read_header(file, path)
    assert found == [shape, images.dtype]
    assert path.read_bytes()[offset:] == images.tobytes()


@pytest.mark.parametrize("dtype", ["<f2", "|u1"])
@pytest.mark.parametrize("expected", [3, 5, 1000])
def test_a_shard_written_image_by_image_is_the_same_file(tmp_path: Path, dtype: str, expected: int) -> None:
    """Also where fewer or more images came than were expected."""
    images = np.arange(3 * 5 * 5, dtype=dtype).reshape(3, 5, 5)
    whole, grown = tmp_path / "whole.npy", tmp_path / "grown.npy"
    write_array(whole, images)
    digests = [image_digest(image) for image in images]
    with ShardWriter(grown, expected) as shard:
        for image, digest in zip(images, digests, strict=True):
            shard.append(image, digest)
        checksum = shard_checksum(whole.read_bytes()[: -images.nbytes], digests)
        assert shard.finish() == (whole.stat().st_size, checksum)
        assert not grown.exists()
    assert grown.read_bytes() == whole.read_bytes()


def test_a_shard_without_images_or_with_an_error_leaves_no_file(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "x.npy", 2) as shard:
        assert shard.finish() == (0, "")
    with suppress(OSError), ShardWriter(tmp_path / "x.npy", 2) as shard:
        shard.append(np.zeros((5, 5), dtype=np.uint8), b"")
        raise OSError("the disk is full")
    assert not list(tmp_path.iterdir())


def npy(array: NDArray[Any], version: tuple[int, int] = (1, 0)) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.lib.format.write_array(file, array, version)

    return write


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: path.write_bytes(b""), "no valid .npy header"),
        (lambda path: path.write_bytes(b"\x93NUMPY\1\0\xff\xff{"), "no valid .npy header"),
        (npy(np.zeros((2, 2)), (2, 0)), "not version 1.0"),
        (npy(np.zeros((2, 2), order="F")), "not a plain array in C order"),
        (npy(np.array([{}], dtype=object)), "not a plain array in C order"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, write: Callable[[Path], None], words: str) -> None:
    path = tmp_path / "x.npy"
    write(path)
    with path.open("rb") as file, pytest.raises(DatasetError, match=words):
        read_header(file, path)


def sums(stored: NDArray[Any]) -> tuple[float, float]:
    unit = stored.astype(np.float64) / SCALES[str(stored.dtype)]
    return unit.sum(), (unit**2).sum()


def test_storing_rounds_as_numpy_does() -> None:
    """Every float16 in [0, 1], and what lies halfway between two, and beside it."""
    steps = np.arange(0x3C01, dtype=np.uint16).view(np.float16).astype(np.float32)
    half = (steps[1:] + steps[:-1]) / 2
    values = np.concatenate([steps, half, np.nextafter(half, 0), np.nextafter(half, 1)]).astype(np.float32)
    halves = np.empty(values.shape, dtype=np.float16)
    total = store_unit(values.copy(), halves)
    np.testing.assert_array_equal(halves, values.astype(np.float16))
    np.testing.assert_allclose(total, sums(halves), rtol=1e-14)
    levels = np.empty(255, dtype=np.uint8)
    for beyond, up in ((0.0, 0), (0.4, 0), (0.6, 1)):
        total = store_unit(((np.arange(255) + beyond) / 255).astype(np.float32), levels)
        np.testing.assert_array_equal(levels, np.arange(255) + up)
        np.testing.assert_allclose(total, sums(levels), rtol=1e-14)
