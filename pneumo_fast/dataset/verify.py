"""Checks a dataset against itself, every byte of it, and names all that is damaged."""

from __future__ import annotations

import logging
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BufferedReader
from typing import NamedTuple

import numpy as np
import pandas as pd

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.format import HASHED_ONCE, ShardInfo
from pneumo_fast.dataset.leaks import overlap_of_splits
from pneumo_fast.dataset.npy import Images, image_digest, pixel_hash, read_header, shard_checksum
from pneumo_fast.dataset.splits import label_counts
from pneumo_fast.errors import DatasetError
from pneumo_fast.files import AnyPath, open_regular, sha256_of
from pneumo_fast.progress import OnProgress, silent
from pneumo_fast.resources import usable_cores
from pneumo_fast.vocabulary import SPLITS, counted

logger = logging.getLogger(__name__)

TOLERANCE = 1e-9  # of mean and std: sums are taken in another order here
AT_ONCE = 1024  # files whose rows are in memory together: in the layout folder there are as many files as images


@dataclass(frozen=True, kw_only=True, slots=True)
class FileCheck:
    """What one file of pixels holds."""

    problems: tuple[str, ...]
    sum: float = 0.0
    """Of all pixels, in [0, 1] each."""
    square_sum: float = 0.0


def verify(path: AnyPath, on_progress: OnProgress = silent) -> list[str]:
    """Check manifest, tables, shapes, ranges, checksums, counts and statistics.

    Reading and hashing release Python's lock, so one thread per core does. Each holds one image, of no more than
    4096 x 4096 pixels, and of what no row of the index describes nothing is read: whatever a dataset claims, it takes
    the memory of its tables and of these images.

    Parameters
    ----------
    path : path
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
    if dataset.manifest.source:
        logger.warning("%s: only its tables are checked; the pixels are in the source files", path)
        return _check_index(dataset)
    shards = {shard.name: shard for shard in dataset.manifest.shards}
    places = {str(name): rows for name, rows in dataset.index.groupby("shard").indices.items()}
    needed, names = dataset.index[["split", "row", "pixel_hash"]], sorted(places)

    def check_file(name: str) -> FileCheck:
        return _check_file(dataset, name, shards.get(name), needed.iloc[places[name]])

    checks: list[FileCheck] = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, len(names), AT_ONCE):
            for check in pool.map(check_file, names[start : start + AT_ONCE]):
                checks.append(check)
                on_progress(len(checks), len(names))
    problems = [problem for check in checks for problem in check.problems]
    problems += _check_index(dataset)
    if not problems:  # sums over damaged files would only say the same once more
        splits = needed["split"].to_numpy()
        train = [check for name, check in zip(names, checks, strict=True) if splits[places[name][0]] == "train"]
        problems += _check_statistics(dataset, train)
    return problems


def _check_file(dataset: Dataset, name: str, listed: ShardInfo | None, rows: pd.DataFrame) -> FileCheck:
    """Check one shard, as the manifest lists it, or one image of the folder layout."""
    try:
        with open_regular(dataset.path / name) as file:
            return _check_content(dataset, name, listed, rows, file)
    except OSError as error:
        return FileCheck(problems=(f"{name}: cannot be read ({error.strerror})",))
    except DatasetError as error:
        return FileCheck(problems=(f"{name}: {error}",))


def _check_content(
    dataset: Dataset, name: str, listed: ShardInfo | None, rows: pd.DataFrame, file: BufferedReader
) -> FileCheck:
    """Check an open file image by image: a shard of any size takes the memory of one image."""
    offset, shape, dtype = read_header(file, dataset.path / name)
    size = os.fstat(file.fileno()).st_size
    expected = dataset.manifest.image_shape if listed is None else (listed.rows, *dataset.manifest.image_shape)
    if shape != expected or dtype != dataset.dtype or size - offset != math.prod(shape) * dtype.itemsize:
        problem = f"{name}: {dtype} {shape}, {size} bytes; {dataset.dtype} {expected} expected"
        return FileCheck(problems=(problem,))
    count = 1 if listed is None else listed.rows
    if len(rows) != count or sorted(rows["row"]) != list(range(count)):  # before a file of any length is read
        return FileCheck(problems=(f"{name}: {counted(count, 'image')}, the index lists {len(rows):,}",))
    file.seek(0)
    header = file.read(offset)
    images = [_read_image(file, dataset) for _ in range(count)]
    problems = []
    if listed is not None:
        checksum = shard_checksum(header, [image.digest for image in images])
        if dataset.manifest.format_version < HASHED_ONCE:
            file.seek(0)
            checksum = sha256_of(file)
        problems += _check_listed(listed, size, checksum, rows)
    problems += _check_images(name, [pixel_hash(image.digest) for image in images], rows)
    if not all(image.in_range for image in images):
        problems.append(f"{name}: holds values outside 0 to {dataset.scale:g}")
    return FileCheck(
        problems=tuple(problems),
        sum=math.fsum(image.sum for image in images),
        square_sum=math.fsum(image.square_sum for image in images),
    )


class ImageFacts(NamedTuple):
    """What a stored image comes to."""

    digest: bytes
    sum: float
    """Of all pixels, in [0, 1] each."""
    square_sum: float
    in_range: bool


def _read_image(file: BufferedReader, dataset: Dataset) -> ImageFacts:
    """Read the next image."""
    data = file.read(math.prod(dataset.manifest.image_shape) * dataset.dtype.itemsize)
    stored: Images = np.frombuffer(data, dtype=dataset.dtype)
    values = stored.astype(np.float64) / dataset.scale
    in_range = bool(values.min() >= 0.0 and values.max() <= 1.0)  # also false for NaN
    return ImageFacts(image_digest(stored), float(values.sum()), float(values @ values), in_range)


def _check_listed(listed: ShardInfo, size: int, checksum: str, rows: pd.DataFrame) -> list[str]:
    """Compare a shard with what the manifest says of it."""
    problems = []
    if size != listed.bytes:
        problems.append(f"{listed.name}: {size} bytes, the manifest says {listed.bytes}")
    if checksum != listed.checksum:
        problems.append(f"{listed.name}: its checksum is not the manifest's")
    if set(rows["split"]) != {listed.split}:
        problems.append(f"{listed.name}: its images are not in split {listed.split!r}, as the manifest says")
    return problems


def _check_images(name: str, hashes: list[str], rows: pd.DataFrame) -> list[str]:
    """Compare each image with its hash in the index."""
    wrong = np.array(hashes)[rows["row"].to_numpy()] != rows["pixel_hash"].to_numpy(dtype=str)
    found = counted(int(wrong.sum()), "image")
    return [f"{name}: the pixels of {found} are not those that were written"] if wrong.any() else []


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
        are = "is" if shared == 1 else "are"
        problems.append(f"index.csv: {counted(shared, 'group')} {are} in more than one split")
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
