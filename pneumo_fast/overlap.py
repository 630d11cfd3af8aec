"""What another dataset shares with the one that a run was trained on: patients, and equal pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pneumo_fast.errors import DatasetError
from pneumo_fast.shards import Dataset
from pneumo_fast.wording import counted

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
