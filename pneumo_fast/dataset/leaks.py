"""Every check for leaks: patients and images on both sides of a split, or seen in training."""

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
    """Images whose stored pixels are those of a training or validation image; None where those data are not there."""
    note: str
    """The same in a sentence."""


def find_overlap(trained_on: Sequence[Path], dataset: Dataset, rows: pd.DataFrame) -> Overlap:
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
        note = "The data that the run was trained on are not there: whether it has seen these patients cannot be known."
        return Overlap(patients=None, images=None, note=note)
    seen = pd.concat([source.index[source.index["split"].isin(SEEN)] for source in sources])
    images = int(rows["pixel_hash"].isin(seen["pixel_hash"]).sum())
    same = f"{counted(images, 'image')} of these {'has' if images == 1 else 'have'} the pixels of one seen in training"
    keys = {source.manifest.split.get("hash_key_id") for source in (*sources, dataset)}
    known = rows.loc[rows["group"] != "", "group"]
    if len(keys) > 1 or known.empty or (seen["group"] == "").all():
        return Overlap(patients=None, images=images, note=f"Which patients were in training cannot be known; {same}.")
    patients = known[known.isin(seen["group"])].nunique()
    note = f"Of {counted(known.nunique(), 'patient')}, training has seen {patients}; {same}."
    return Overlap(patients=patients, images=images, note=note)


def report_shared_patients(datasets: list[Dataset], index: pd.DataFrame) -> None:
    """Say which patients stand in different splits of different datasets."""
    if len({dataset.manifest.split.get("hash_key_id") for dataset in datasets}) > 1:
        logger.warning("the datasets were made with different hash keys: patients they share cannot be known")
        return
    splits = index[index["group"] != ""].groupby("group")["split"].nunique()
    if shared := int((splits > 1).sum()):
        logger.warning("%d patients stand in more than one split of the joint datasets: figures will flatter", shared)


def prove_disjoint(images: pd.DataFrame) -> None:
    """Check once more, on the finished table, that no group and no image stands in two splits.

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
        known = images[images[column] != ""]
        spread = known.groupby(column)["split"].nunique()
        if (spread > 1).any():
            raise ConvertError(f"{int((spread > 1).sum())} values of {column} stand in more than one split")
