"""Checks a dataset against itself, every byte of it, and names all that is damaged."""

from __future__ import annotations

import hashlib
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.leaks import overlap_of_splits
from pneumo_fast.dataset.npy import Images, read_header
from pneumo_fast.dataset.splits import label_counts
from pneumo_fast.errors import DatasetError
from pneumo_fast.progress import OnProgress, silent
from pneumo_fast.vocabulary import SPLITS

TOLERANCE = 1e-9  # of mean and std: sums are taken in another order here


@dataclass(frozen=True, kw_only=True, slots=True)
class FileCheck:
    """What one file of pixels holds."""

    problems: tuple[str, ...]
    sum: float = 0.0
    """Of all pixels, in [0, 1] each."""
    square_sum: float = 0.0


def verify(path: Path, on_progress: OnProgress = silent) -> list[str]:
    """Check manifest, tables, shapes, ranges, checksums, counts and statistics.

    Reading and hashing release Python's lock, so one thread per core does.

    Parameters
    ----------
    path : Path
        The dataset folder.
    on_progress : callable, optional
        Called as (files checked, files) after each file of pixels.

    Returns
    -------
    list of str
        One line per problem, naming the file; empty for a sound dataset.

    Raises
    ------
    DatasetError
        If the manifest or a table is missing or damaged, so that nothing more can be checked.
    """
    dataset = Dataset.open(path, check_files=False)
    files = [(str(name), rows) for name, rows in dataset.index.groupby("shard", sort=True)]
    checks = []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for check in pool.map(lambda file: _check_file(dataset, *file), files):
            checks.append(check)
            on_progress(len(checks), len(files))
    problems = [problem for check in checks for problem in check.problems]
    problems += _check_index(dataset)
    if not problems:  # sums over damaged files would only say the same once more
        train = [check for (_, rows), check in zip(files, checks, strict=True) if rows["split"].iloc[0] == "train"]
        problems += _check_statistics(dataset, train)
    return problems


def _check_file(dataset: Dataset, name: str, rows: pd.DataFrame) -> FileCheck:
    """Check one shard, or one image of the folder layout."""
    path = dataset.path / name
    try:
        data = path.read_bytes()
        with path.open("rb") as file:
            offset, shape, dtype = read_header(file, path)
    except OSError as error:
        return FileCheck(problems=(f"{name}: cannot be read ({error.strerror})",))
    except DatasetError as error:
        return FileCheck(problems=(f"{name}: {error}",))
    listed = {shard.name: shard for shard in dataset.manifest.shards}.get(name)
    expected = dataset.manifest.image_shape if listed is None else (listed.rows, *dataset.manifest.image_shape)
    if shape != expected or dtype != dataset.dtype or len(data) - offset != math.prod(shape) * dtype.itemsize:
        problem = f"{name}: {dtype} {shape}, {len(data)} bytes; {dataset.dtype} {expected} expected"
        return FileCheck(problems=(problem,))
    problems = []
    if listed is not None and hashlib.sha256(data).hexdigest() != listed.sha256:
        problems.append(f"{name}: its SHA-256 is not the manifest's")
    images: Images = np.frombuffer(data, dtype=dtype, offset=offset).reshape(-1, *dataset.manifest.image_shape)
    problems += _check_images(name, images, rows)
    values = images.astype(np.float64).ravel() / dataset.scale
    if not (values.min() >= 0.0 and values.max() <= 1.0):  # also false for NaN
        problems.append(f"{name}: holds values outside 0 to {dataset.scale:g}")
    return FileCheck(problems=tuple(problems), sum=float(values.sum()), square_sum=float(values @ values))


def _check_images(name: str, images: Images, rows: pd.DataFrame) -> list[str]:
    """Compare each image with its hash in the index."""
    if sorted(rows["row"]) != list(range(len(images))):
        return [f"{name}: {len(images)} images, the index lists {len(rows)}"]
    hashes: NDArray[np.str_] = np.array([hashlib.sha256(image.data).hexdigest()[:16] for image in images])
    wrong = rows["image_id"][hashes[rows["row"].to_numpy()] != rows["pixel_hash"].to_numpy(dtype=str)]
    return [f"{name}: the pixels of {len(wrong)} images are not those that were written"] if len(wrong) else []


def _check_index(dataset: Dataset) -> list[str]:
    """Counts, unknown shards and leaks, from the index alone."""
    index, manifest = dataset.index, dataset.manifest
    counts, none = label_counts(index), {"0": 0, "1": 0}
    problems = [
        f"index.csv: {found} images by label in {split}, the manifest says otherwise"
        for split in SPLITS
        if (found := counts.get(split, none)) != manifest.counts.get(split, none)
    ]
    missing = {shard.name for shard in manifest.shards} - set(index["shard"])
    problems += [f"{name}: no image of the index is in it" for name in sorted(missing)]
    if shared := overlap_of_splits(index, "group"):
        problems.append(f"index.csv: {shared} groups are in more than one split")
    return problems


def _check_statistics(dataset: Dataset, train: list[FileCheck]) -> list[str]:
    """Mean and standard deviation of the train split, padding left out, worked out anew."""
    pixels = dataset.train_pixels
    mean = math.fsum(check.sum for check in train) / pixels
    std = math.sqrt(max(0.0, math.fsum(check.square_sum for check in train) / pixels - mean**2))
    problems = []
    for name, found, stated in (("mean", mean, dataset.mean), ("std", std, dataset.std)):
        if abs(found - stated) > TOLERANCE:
            problems.append(f"manifest.json: the {name} of the train split is {found!r}, it says {stated!r}")
    return problems
