"""Boxes and classes of training images, for auxiliary supervision beside the label.

What augmentation does to an image is a pure function of (seed, epoch, row). So the targets of a batch follow from
(epoch, batch) alone: they are the same whichever engine delivers the images, and boxes move as the images do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.loading.augment import Augmentation, Floats
from pneumo_fast.loading.rng import Rows
from pneumo_fast.radiograph.resize import stored_boxes

NO_CLASS: Final = -100
"""In the place of a class that is not known: what PyTorch's cross-entropy leaves out."""
LEAST_POINTS: Final = 8
POINTS_ACROSS: Final = 64
"""Sample points along each side of a cell of a mask, at least, and of the whole mask: a cell's share is off by at most
half of their distance for each edge that crosses it."""


class Targets(NamedTuple):
    """What is known of n images beside their labels, on the device."""

    boxes: torch.Tensor
    """Float32, shape (n, k, 4): left, top, right, bottom in pixels of the stored image; zeros where there are fewer."""
    boxed: torch.Tensor
    """Float32, shape (n,): 1 where a mask is to be learnt, 0 where the image is positive and has no box."""
    matrices: torch.Tensor
    """Float32, shape (n, 2, 3): what :attr:`pneumo_fast.loading.augment.Draws.matrix` is."""
    classes: torch.Tensor
    """Int64, shape (n,): number of the class, or :data:`NO_CLASS`."""

    def parts(self, count: int) -> list[Targets]:
        """Cut into parts, as ``Tensor.tensor_split`` does."""
        return [Targets(*part) for part in zip(*(each.tensor_split(count) for each in self), strict=True)]

    def first(self, count: int) -> Targets:
        """Those of the first images."""
        return Targets(*(each[:count] for each in self))


def blank_targets(count: int, device: torch.device) -> Targets:
    """Of images without findings, all of the first class, on the device."""
    boxes, boxed = torch.zeros(count, 1, 4, device=device), torch.ones(count, device=device)
    matrices = torch.eye(2, 3, device=device).repeat(count, 1, 1)
    return Targets(boxes, boxed, matrices, torch.zeros(count, dtype=torch.int64, device=device))


def box_masks(boxes: torch.Tensor, matrices: torch.Tensor, size: int, cells: int) -> torch.Tensor:
    """The share of each cell of a grid that the boxes' union covers after augmentation.

    Parameters
    ----------
    boxes : Tensor of float32, shape (n, k, 4)
        See :class:`Targets`.
    matrices : Tensor of float32, shape (n, 2, 3)
        See :class:`Targets`.
    size : int
        Height and width of the images, in pixels.
    cells : int
        Cells along each side of the grid, which covers the image.

    Returns
    -------
    Tensor of float32, shape (n, cells, cells)
        In [0, 1], the share of :func:`points_along` squared points.
    """
    points = points_along(cells)
    side = cells * points
    at = (torch.arange(side, dtype=torch.float32, device=boxes.device) + 0.5) * (size / side)
    a, b, c, d, e, f = matrices.flatten(1).unsqueeze(2).unbind(1)
    x = (a * at)[:, None, :] + (b * at + c)[:, :, None]
    y = (d * at)[:, None, :] + (e * at + f)[:, :, None]
    covered = torch.zeros_like(x, dtype=torch.bool)
    for box in boxes.unbind(1):
        left, top, right, bottom = box[:, :, None, None].unbind(1)
        covered |= (left <= x) & (x < right) & (top <= y) & (y < bottom)
    return covered.view(len(boxes), cells, points, cells, points).float().mean((2, 4))


def points_along(cells: int) -> int:
    """Sample points along each side of a cell, where a mask has so many cells along its side."""
    return max(LEAST_POINTS, POINTS_ACROSS // cells)


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetTable:
    """Targets of all images of a split, by row."""

    boxes: Floats
    """Shape (rows, k, 4); see :class:`Targets`."""
    boxed: Floats
    """Shape (rows,); see :class:`Targets`."""
    classes: NDArray[np.int64]
    """Shape (rows,); see :class:`Targets`."""
    size: int
    """Height and width of an image, in pixels."""

    @classmethod
    def of(cls, dataset: Dataset, rows: pd.DataFrame, classes: Sequence[str]) -> TargetTable:
        """Gather the targets of some rows of the index.

        Parameters
        ----------
        rows : DataFrame
            What :meth:`~pneumo_fast.dataset.folder.Dataset.rows` gave.
        classes : sequence of str
            Names in the order of their numbers; another one counts as not known.
        """
        boxes, _ = boxes_of(dataset, rows)
        has_box = np.isin(np.arange(len(rows)), boxes["number"])
        numbers = {name: number for number, name in enumerate(classes)}
        return cls(
            boxes=_table(boxes, len(rows), dataset.size),
            boxed=((rows["label"].to_numpy() == 0) | has_box).astype(np.float32),
            classes=np.array([numbers.get(name, NO_CLASS) for name in rows["class"]], dtype=np.int64),
            size=dataset.size,
        )

    def batch(self, epoch: int, rows: Rows, augmentation: Augmentation | None, device: torch.device) -> Targets:
        """Targets of some rows in an epoch; nothing here waits for the device."""
        if augmentation is None:
            matrices = np.tile(np.eye(2, 3, dtype=np.float32), (len(rows), 1, 1))
        else:
            matrices = augmentation.draw(epoch, rows, self.size).matrix
        values = self.boxes[rows], self.boxed[rows], matrices, self.classes[rows]
        return Targets(*(_send(value, device) for value in values))


def boxes_of(dataset: Dataset, rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Boxes of some rows of the index, cut off at the edges of their images.

    Returns
    -------
    boxes : DataFrame
        Columns of ``boxes.csv``, and ``number``, the place of the box's image among the rows.
    lost : int
        Boxes that are left out, since they lie outside of their image or have no area.
    """
    keys = [name for name in ("image_id", "shard") if name in dataset.boxes]  # the shard in joined datasets
    found = rows[keys].assign(number=np.arange(len(rows))).merge(dataset.boxes, on=keys)
    inside = found.copy()
    for start, length, whole in (("x", "width", "source_width"), ("y", "height", "source_height")):
        inside[start] = found[start].clip(lower=0)
        inside[length] = (found[start] + found[length]).clip(upper=found[whole]) - inside[start]
    inside = inside[(inside["width"] > 0) & (inside["height"] > 0)]
    return inside, len(found) - len(inside)


def _table(boxes: pd.DataFrame, rows: int, size: int) -> Floats:
    """Boxes of :func:`boxes_of` as :attr:`TargetTable.boxes` has them."""
    place = boxes.groupby("number").cumcount().to_numpy()
    table = np.zeros((rows, place.max(initial=-1) + 1, 4), dtype=np.float32)
    for number, slot, corners in zip(boxes["number"], place, stored_boxes(boxes, size), strict=True):
        table[number, slot] = corners[[0, 2]].ravel()
    return table


def _send(values: NDArray[np.generic], device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
