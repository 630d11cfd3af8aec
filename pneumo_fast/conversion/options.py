"""Options of ``convert``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from pneumo_fast.errors import ConfigError
from pneumo_fast.vocabulary import Decode, Dtype, Layout, Ungrouped, Window


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertConfig:
    """What to convert and how."""

    images: Path
    """Folder with the DICOM files, of any depth."""
    labels: Path
    """Label table (CSV)."""
    out: Path = Path("dataset")
    """Dataset folder to write."""
    id_column: str = "patientId"
    """Column of the label table that holds the image id."""
    label_column: str = "Target"
    """Column that holds 0 or 1."""
    group_column: str | None = None
    """Column that holds the patient, if any."""
    path_column: str | None = None
    """Column that holds the image's path below ``images``, for tables that name files rather than ids."""
    class_info: Path | None = None
    """RSNA's table of three classes (CSV), if any."""
    groups: Path | None = None
    """RSNA's mapping file (JSON), which tells the patients, if any."""
    ungrouped: Ungrouped = "keep"
    """What to do with images that the groups leave out."""
    val_fraction: float = 0.1
    """Share of the images for validation, in [0, 1)."""
    test_fraction: float = 0.0
    """Share of the images for a test split, in [0, 1)."""
    seed: int = 0
    """Chooses the split and the order of storage."""
    size: int = 224
    """Height and width of the stored images, 16 to 4096 pixels."""
    dtype: Dtype = "float16"
    """Stored data type: float16 in [0, 1], or uint8 in 0..255."""
    layout: Layout = "shards"
    """Shards of many images, or one file per image in folders by split and label."""
    shard_size: int | None = None
    """Images in a shard, at least 1; by default a 64th of the split, but 32 to 1024."""
    decode: Decode = "fast"
    """JPEG Baseline at the smallest scale that is at least twice the stored size, or in full."""
    window: Window = "auto"
    """Whether a VOI LUT or window in a file is applied."""
    workers: int | None = None
    """Worker processes, at least 1; by default one per core."""
    scheduler: str | None = None
    """Address of a Dask scheduler, as ``tcp://HOST:PORT``; by default worker processes of this machine."""
    max_rejects: int | float = 0.01
    """Rejected files beyond which the conversion fails: a count, or (as float) a share of the images."""
    timeout_s: float = 10.0
    """Seconds that reading one file may take, above 0."""
    max_pixels: int = 64_000_000
    """Pixels (rows times columns) beyond which a file is rejected unread; twice the largest radiographs in use."""
    resume: bool = False
    """Go on with the unfinished conversion in ``out``, or start where there is none."""
    overwrite: bool = False
    """Replace a dataset that lies in ``out``."""
    hash_ids: bool = False
    """Write pseudonyms in the place of image ids and of the paths of rejected files."""
    hash_key: Path | None = None
    """File with the key for pseudonyms; by default one in the user's configuration folder."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises
        ------
        ConfigError
            If a value is out of its range.
        """
        fractions = self.val_fraction, self.test_fraction
        if min(fractions) < 0 or not sum(fractions) < 1:
            raise ConfigError(f"val and test fractions {fractions}: each must be at least 0 and both together below 1")
        if not 16 <= self.size <= 4096:
            raise ConfigError(f"size {self.size}: 16 to 4096 pixels expected")
        if self.resume and self.overwrite:
            raise ConfigError("resume and overwrite exclude each other: give one of them")
        if not 0 < self.timeout_s < math.inf:
            raise ConfigError(f"timeout-s {self.timeout_s}: a number of seconds above 0 expected")
        for name in ("shard_size", "workers", "max_pixels"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name.replace('_', '-')} {value}: at least 1 expected")
        if self.max_rejects < 0 or (isinstance(self.max_rejects, float) and not self.max_rejects <= 1):
            raise ConfigError(
                f"max-rejects {self.max_rejects}: a count of at least 0, or a share from 0.0 to 1.0 expected"
            )
