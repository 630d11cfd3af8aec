"""Train, validation and test: seeded, stratified, and by patient where patients are known.

The choice depends on the seed and the ids alone, never on the order of the table, so a table with its rows
shuffled gives the same split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pneumo_fast.vocabulary import SPLITS


def seeded_order(ids: Iterable[str], seed: int, purpose: str) -> NDArray[np.int64]:
    """Positions of the ids in a random order that depends on nothing but seed, purpose and the ids.

    Returns
    -------
    ndarray of int64, shape (n,)
    """
    key = hashlib.sha256(f"{seed} {purpose}".encode()).digest()
    marks = b"".join(_mark(text, key) for text in list(ids))
    first, second = np.frombuffer(marks, dtype=">u8").reshape(-1, 2).T
    return np.lexsort((second, first))


def _mark(text: str, key: bytes) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=key, digest_size=16).digest()


def assign_splits(images: pd.DataFrame, *, val_fraction: float, test_fraction: float, seed: int) -> NDArray[np.object_]:
    """Give every image a split so that each keeps the share of positives, and no group is divided.

    Groups with the same numbers of negatives and positives are interchangeable: each split gets its share of
    them, whole groups only, and the few that are left over go where they are missed most, large groups first.
    An image without a group is a group of its own.

    Parameters
    ----------
    images : DataFrame
        Columns ``image_id``, ``label`` (0 or 1), ``group`` (``""`` where unknown).
    val_fraction, test_fraction : float
        Shares of the images, each at least 0, together below 1.

    Returns
    -------
    ndarray of str, shape (images,)
        ``train``, ``val`` or ``test``.
    """
    fractions = {"train": 1.0 - val_fraction - test_fraction, "val": val_fraction, "test": test_fraction}
    return divide(images, fractions, seed, "split")


def divide(images: pd.DataFrame, shares: Mapping[str, float], seed: int, purpose: str) -> NDArray[np.object_]:
    """Give every image one of several names, each with its share of the images; see :func:`assign_splits`.

    Parameters
    ----------
    images : DataFrame
        Columns ``image_id``, ``label`` (0 or 1), ``group`` (``""`` where unknown).
    shares : mapping
        Share of the images by name; they add up to 1.
    purpose : str
        Another purpose, another choice.

    Returns
    -------
    ndarray of str, shape (images,)
    """
    fractions = np.array(list(shares.values()))
    unit = patient_units(images)
    label = images["label"].to_numpy()
    units = pd.DataFrame({"unit": unit, "neg": label == 0, "pos": label == 1}).groupby("unit", sort=False).sum()
    units = units.iloc[seeded_order(units.index, seed, purpose)]
    want = np.outer(fractions, [(label == 0).sum(), (label == 1).sum()])
    have = np.zeros_like(want)
    choice = pd.Series("", index=units.index, dtype=object)
    kinds = units.drop_duplicates().to_numpy(dtype=np.int64).tolist()
    for neg, pos in sorted(kinds, key=lambda kind: (-sum(kind), kind)):
        alike = units.index[(units["neg"] == neg) & (units["pos"] == pos)]
        counts = np.floor(fractions * len(alike)).astype(int)
        for _ in range(len(alike) - counts.sum()):
            have_now = have + np.outer(counts, [neg, pos])
            counts[_most_missing(want - have_now, fractions, np.array([neg, pos]))] += 1
        have += np.outer(counts, [neg, pos])
        choice[alike] = np.repeat(np.array(list(shares), dtype=object), counts)
    return choice[unit].to_numpy()


def patient_units(images: pd.DataFrame) -> NDArray[Any]:
    """A name (str) for each image's patient, shape (images,); an image without a group is a unit of its own."""
    return np.where(images["group"] == "", "i" + images["image_id"], "g" + images["group"])


def label_counts(index: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Images by split and label (``"0"``, ``"1"``), of the splits that hold any."""
    return {
        split: {str(label): int((labels == label).sum()) for label in (0, 1)}
        for split in SPLITS
        if len(labels := index["label"][index["split"] == split])
    }


def _most_missing(missing: NDArray[np.float64], fractions: NDArray[np.float64], size: NDArray[np.int64]) -> int:
    """The split that lacks most, relative to its share, of what one more group would bring."""
    need = (missing * size).sum(axis=1) / np.maximum(fractions, 1e-12)
    need[fractions == 0] = -np.inf
    return int(np.argmax(need))
