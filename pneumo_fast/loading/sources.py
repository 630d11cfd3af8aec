"""Images of a dataset whose pixels stay in the source files: which file an image is in, and what it shows."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pneumo_fast.conversion.options import most_rejects
from pneumo_fast.conversion.plan import find_files, printable
from pneumo_fast.conversion.task import Source, Task
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.format import SourceFiles
from pneumo_fast.dataset.npy import Images, store_unit
from pneumo_fast.dataset.pseudonyms import key_id, load_key, pseudonym
from pneumo_fast.errors import ConfigError, ConvertError, DatasetError, RejectedImageError
from pneumo_fast.loading.reader import ShardReader
from pneumo_fast.loading.rng import Rows
from pneumo_fast.radiograph.read import read_radiograph
from pneumo_fast.run.model_input import preprocessing_of
from pneumo_fast.vocabulary import Decode

SAME: Final = ("height", "width", "bits_stored", "photometric", "spacing_mm", "sex", "age", "view", "body_part")
"""Columns of the index by which a file that was replaced by another is noticed."""


class SourceReader:
    """Decodes images of one split from their source files, as ``convert`` would have done.

    Parameters
    ----------
    dataset : Dataset
        Of layout ``source``.
    rows : DataFrame
        Rows of the index, as :meth:`pneumo_fast.dataset.folder.Dataset.rows` gives them.

    Raises
    ------
    DatasetError
        If the source files can no longer be told.
    """

    def __init__(self, dataset: Dataset, rows: pd.DataFrame) -> None:
        if (source := dataset.manifest.source) is None:
            raise DatasetError(f"dataset {dataset.path} has pixels of its own, not those of source files")
        self.shape, self.dtype, self.folder = dataset.manifest.image_shape, dataset.dtype, Path(source.folder)
        self._dataset, self._white = dataset, np.float32(dataset.scale)
        preprocessing = preprocessing_of(dataset.manifest)
        if preprocessing is None:
            raise DatasetError(f"dataset {dataset.path} does not say how its images are made: run convert again")
        self._preprocessing = preprocessing
        self.timeout_s = source.timeout_s
        self.most_rejects = most_rejects(source.max_rejects, len(rows))
        """Files of the split that may turn out unreadable."""
        self._shown = rows["shard"].tolist()
        self._known: list[tuple[Any, ...]] = list(rows[list(SAME)].itertuples(index=False, name=None))
        paths = _paths(dataset, source)
        self._paths = [paths.get(shown, "") for shown in self._shown]

    def __len__(self) -> int:
        """Images in the split."""
        return len(self._shown)

    @property
    def decode(self) -> Decode:
        """How JPEG is decoded."""
        return self._preprocessing.decode

    def shown_path(self, row: int) -> str:
        """The file of an image, as it may be written."""
        return str(self._shown[row])

    def is_same(self, row: int, found: dict[str, Any]) -> bool:
        """Whether a file's header still says what the index says of the image."""
        return self._known[row] == tuple(found[name] for name in SAME)

    def task(self, rows: Rows, places: Rows, memory: int, gpu: int | None = None) -> Task:
        """What a worker process has to do to decode some images; it knows them by their row numbers.

        Parameters
        ----------
        places : ndarray of int64, shape of ``rows``
            Where each image goes in the memory.
        memory : int
            Descriptor, open in the worker process too.
        gpu : int, optional
            Number of the GPU that decodes what it can.
        """
        known = self._preprocessing
        return Task(
            name="part", split="", images=self.folder, out=Path(),
            sources=tuple(
                Source(str(row), self._paths[row] or " ", str(row), 0, place)
                for row, place in zip(rows.tolist(), places.tolist(), strict=True)
            ),
            size=self.shape[0], dtype=self._dataset.manifest.dtype, layout="shards", decode=known.decode,
            window=known.window, max_pixels=known.max_pixels, key=b"", selection=known.selection, memory=memory,
            gpu=gpu,
        )  # fmt: skip

    def read_into(self, rows: Rows, out: Images) -> None:
        """Decode images into a buffer, here and not in a worker process.

        Parameters are those of :meth:`pneumo_fast.loading.reader.ShardReader.read_into`.

        Raises
        ------
        DatasetError
            If a file can no longer be read.
        """
        known = self._preprocessing
        for row, image in zip(rows.tolist(), out, strict=True):
            try:
                radiograph = read_radiograph(
                    self.folder / (self._paths[row] or " "), self.shape[0], decode_mode=known.decode,
                    window=known.window, max_pixels=known.max_pixels, selection=known.selection,
                )  # fmt: skip
            except RejectedImageError as error:
                raise DatasetError(
                    f"image file {self._shown[row]} cannot be read ({error.reason}: {error.detail}): bring it back, or "
                    "index the images again"
                ) from error
            if not self.is_same(row, {name: getattr(radiograph.metadata, name) for name in SAME}):
                raise DatasetError(
                    f"image file {self._shown[row]} is no longer the one that was indexed: index it again"
                )
            store_unit(radiograph.pixels, image)

    def read_unit(self, rows: Rows) -> NDArray[np.float32]:
        """Some images, float32 in [0, 1], shape (n, size, size), in the order of ``rows``; see :meth:`read_into`."""
        images: Images = np.empty((len(rows), *self.shape), dtype=self.dtype)
        self.read_into(rows, images)
        return images.astype(np.float32) / self._white

    def close(self) -> None:
        """Nothing is kept open."""


def open_reader(dataset: Dataset, rows: pd.DataFrame, whole_shards: int = 0) -> ShardReader | SourceReader:
    """A reader of some images, wherever their pixels are; parameters and errors are those of the two classes."""
    if dataset.manifest.source is not None:
        return SourceReader(dataset, rows)
    return ShardReader(dataset, rows, whole_shards)


def _paths(dataset: Dataset, source: SourceFiles) -> dict[str, str]:
    """Paths below the folder of the source files, by the name that the index has for each."""
    key = b""
    if dataset.manifest.ids == "pseudonyms":
        try:
            key = load_key(Path(source.hash_key) if source.hash_key else None)
        except ConfigError as error:
            raise DatasetError(f"dataset {dataset.path}: its source files cannot be identified ({error})") from error
        if key_id(key) not in dataset.key_ids:
            raise DatasetError(
                f"dataset {dataset.path} was made with another hash key, without which its source files cannot be "
                "told: bring the key back, or run convert again"
            )
    return _paths_in(dataset.identity, Path(source.folder), dataset.path, key)


@lru_cache(maxsize=2)
def _paths_in(_identity: str, folder: Path, out: Path, key: bytes) -> dict[str, str]:
    """One walk serves every split."""
    try:
        files = find_files(folder, out)
    except ConvertError as error:
        raise DatasetError(str(error)) from error
    return {pseudonym(key, "path", printable(path)) if key else printable(path): path for path in files}
