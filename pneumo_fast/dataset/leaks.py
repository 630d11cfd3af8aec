"""Every check for leaks: patients and images in two splits (overlap), or seen in training.

Patients are compared by pseudonym, which only datasets of one hash key share; images by the hash of their pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.errors import ConvertError, DatasetError
from pneumo_fast.vocabulary import counted

logger = logging.getLogger(__name__)

SEEN = ("train", "val")
"""Splits whose images trained the model or chose its checkpoint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Overlap:
    """Judged images and patients that training has seen."""

    patients: int | None
    """Patients; None where pseudonyms cannot be compared, or the training data are not there."""
    images: int | None
    """Images whose stored pixels are those of a training or validation image; None where those data are not there, or
    pixels are in source files."""
    note: str
    """The same in a sentence."""


def overlap_with_training(trained_on: Sequence[Path], dataset: Dataset, rows: pd.DataFrame) -> Overlap:
    """Compare judged images with all that the run was trained and selected on.

    Parameters
    ----------
    trained_on : sequence of Path
        The run's datasets.
    rows : DataFrame
        Rows of the index of ``dataset`` that are judged.
    """
    try:
        sources = [Dataset.open(path, check_files=False) for path in trained_on]
    except DatasetError:
        note = "The run's training data are not there: patient overlap with them cannot be checked."
        return Overlap(patients=None, images=None, note=note)
    seen = pd.concat([source.index[source.index["split"].isin(SEEN)] for source in sources])
    return _overlap(rows, seen, "training or validation", comparable=_share_a_hash_key([*sources, dataset]))


def overlap_within(dataset: Dataset, split: str) -> Overlap | None:
    """Compare a split with those that trained the model or chose its checkpoint.

    Several datasets as one may share patients and images between their splits, a single one images alone. None where
    all could be compared and nothing is shared.
    """
    splits = dataset.index["split"]
    seen = dataset.index[splits.isin(SEEN) & (splits != split)]
    where = "training" if split == "val" else "training or validation"
    found = _overlap(dataset.index[splits == split], seen, where, comparable=len(dataset.key_ids) == 1)
    return found if found.patients or found.images or len(dataset.key_ids) > 1 else None


def _overlap(rows: pd.DataFrame, seen: pd.DataFrame, where: str, *, comparable: bool) -> Overlap:
    """Compare rows of the index; patients only where their pseudonyms are comparable."""
    images = _equal_images(rows["pixel_hash"], seen["pixel_hash"])
    has = "has" if images == 1 else "have"
    same = f"{counted(images or 0, 'image')} of these {has} the pixels of a {where} image"
    if images is None:
        same = "equal pixels are not known, since they are in the source files"
    known = rows.loc[rows["group"] != "", "group"]
    if not comparable or known.empty or (seen["group"] == "").all():
        return Overlap(patients=None, images=images, note=f"Patient overlap with training cannot be checked; {same}.")
    patients = known[known.isin(seen["group"])].nunique()
    are = "is" if patients == 1 else "are"
    note = f"Of {counted(known.nunique(), 'patient')}, {patients} {are} also in {where}; {same}."
    return Overlap(patients=patients, images=images, note=note)


def _equal_images(hashes: pd.Series[str], seen: pd.Series[str]) -> int | None:
    """How many images have the pixels of one that was seen; None where either side has none of its own."""
    if (hashes == "").all() or (seen == "").all():
        return None
    return int(hashes[hashes != ""].isin(seen).sum())


def leaks_of_joint(datasets: Sequence[Dataset], index: pd.DataFrame) -> str:
    """What is known of patients on both sides of the split of several datasets as one; leaks are warned of, too.

    Parameters
    ----------
    datasets : sequence of Dataset
    index : DataFrame
        The joint index.

    Returns
    -------
    str
        A sentence, as ``leaks`` in the manifest's ``split``.
    """
    _, images = count_duplicates(index["split"], index["pixel_hash"])
    if images:
        logger.warning(
            "%s in more than one split of the joint datasets (equal pixels): metrics will be optimistic",
            counted(images, "image"),
        )
    if not _share_a_hash_key(datasets):
        logger.warning(
            "datasets %s were made with different hash keys: patient overlap cannot be checked; convert them with one "
            "--hash-key",
            " and ".join(str(dataset.path) for dataset in datasets),
        )
        return "unknown: the datasets were made with different hash keys"
    if shared := overlap_of_splits(index, "group"):
        logger.warning(
            "%s in more than one split of the joint datasets: metrics will be optimistic", counted(shared, "patient")
        )
        return f"{counted(shared, 'patient')} in more than one split of the joint datasets"
    ungrouped = int((index["group"] == "").sum())
    return describe_leaks("none" if ungrouped == len(index) else "", ungrouped)


def _share_a_hash_key(datasets: Sequence[Dataset]) -> bool:
    return len(frozenset().union(*(dataset.key_ids for dataset in datasets))) == 1


def refuse_overlap(images: pd.DataFrame) -> None:
    """Check once more, on the finished table, that no group and no image is in two splits.

    Parameters
    ----------
    images : DataFrame
        Columns ``image_id``, ``group``, ``split``.

    Raises
    ------
    ConvertError
        If one does, which would be a fault of this package.
    """
    for column in ("image_id", "group"):
        if shared := overlap_of_splits(images, column):
            raise ConvertError(f"{shared} values of {column} are in more than one split")


def overlap_of_splits(index: pd.DataFrame, column: str) -> int:
    """How many values of a column are in more than one split; ``""`` is unknown and does not count."""
    known = index[index[column] != ""]
    return int((known.groupby(column, sort=False)["split"].nunique() > 1).sum())


def count_duplicates(splits: pd.Series[str], hashes: pd.Series[str]) -> tuple[int, int]:
    """Images whose hash another image has as well, and those of them that stand in other splits than their equals.

    Parameters
    ----------
    splits, hashes : Series of str, shape (images,)
        Of the same images; a hash of ``""`` is unknown.
    """
    groups = splits.groupby(hashes[hashes != ""], sort=False)
    sizes, different = groups.size(), groups.nunique()
    return int(sizes[sizes > 1].sum()), int(sizes[different > 1].sum())


def describe_leaks(group_source: str, ungrouped: int) -> str:
    """What is known of patients on both sides of a split that keeps groups together.

    Parameters
    ----------
    group_source : str
        Where groups come from: ``none``, ``column`` or ``mapping``.
    ungrouped : int
        Images without a group.
    """
    if group_source == "none":
        return "unknown: without --groups or --group-column, patient overlap between the splits cannot be ruled out"
    if ungrouped:
        return f"none among images whose patient is known; {ungrouped} others cannot be checked"
    return "none: no patient is in two splits"
