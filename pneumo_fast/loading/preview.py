"""Draws a contact sheet: images as they are stored, and what augmentation makes of them, with their boxes.

A person can see there whether the orientation, the labels and the boxes are right, and whether the changes are still
ones that a radiograph may undergo.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.drawing.contact_sheet import Panel, Strip, draw_contact_sheet
from pneumo_fast.errors import ConfigError
from pneumo_fast.files import write_atomic
from pneumo_fast.loading.augment import Augmentation, apply, move_points, noise_field
from pneumo_fast.loading.options import ShowConfig
from pneumo_fast.loading.rng import Rows, permute
from pneumo_fast.loading.sources import open_reader
from pneumo_fast.radiograph.resize import stored_boxes

EPOCHS: Final = 4  # versions of each image, which are those of a training run's first epochs
TWO_ABREAST: Final = 4  # images from which two stand in a row


@dataclass(frozen=True, kw_only=True, slots=True)
class ShowSummary:
    """What is on the sheet."""

    images: int
    boxes: int
    """Boxes of these images, as stored."""
    versions: int
    """Versions of each image, the stored one included."""


def show(config: ShowConfig) -> ShowSummary:
    """Write the contact sheet to ``config.out``.

    Raises
    ------
    ConfigError
        If the folder to write into does not exist.
    DatasetError
        If the dataset is missing or damaged, or has no such split.
    """
    if not config.out.parent.is_dir():
        raise ConfigError(f"out {config.out}: folder {config.out.parent} does not exist: make it, or name another file")
    dataset = Dataset.open(config.dataset)
    index = dataset.rows(config.split)
    rows = choose_rows(index["label"].to_numpy(dtype=np.int64), config.count, config.seed)
    with closing(open_reader(dataset, index)) as reader:
        stored = reader.read_unit(rows)
    augmentation = Augmentation(strength=config.augment, flip=config.flip, seed=config.seed)
    draws = [augmentation.draw(epoch, rows, dataset.size) for epoch in range(EPOCHS)]
    images, field = torch.from_numpy(stored)[:, None], torch.tensor(noise_field(dataset.size))
    versions = [apply(images, torch.from_numpy(drawn.table()), field)[:, 0].numpy() for drawn in draws]
    strips, count = [], 0
    for place, row in enumerate(rows.tolist()):
        image = index.loc[row]
        boxes = stored_boxes(dataset.boxes[dataset.boxes["image_id"] == image["image_id"]], dataset.size)
        count += len(boxes)
        panels = [Panel(image=stored[place], boxes=boxes)]
        for drawn, pixels in zip(draws, versions, strict=True):
            moved = tuple(move_points(corners, drawn.matrix[place]) for corners in boxes)
            panels.append(Panel(image=pixels[place], boxes=moved))
        strips.append(Strip(label=int(image["label"]), image_id=image["image_id"], panels=tuple(panels)))
    headings = ("stored", *(f"epoch {epoch + 1}" for epoch in range(EPOCHS)))
    title = f"{config.split} split  ·  augmentation {config.augment}{', flips' if config.flip else ''}"
    write_atomic(config.out, draw_contact_sheet(strips, headings, title, 1 + (len(strips) >= TWO_ABREAST)))
    return ShowSummary(images=len(strips), boxes=count, versions=len(headings))


def choose_rows(labels: NDArray[np.int64], count: int, seed: int) -> Rows:
    """Rows to show: as many of each label as there are and fit, the positive ones first.

    Parameters
    ----------
    labels : ndarray of int64, shape (n,)
        0 or 1.

    Returns
    -------
    ndarray of int64, shape (at most ``count``,)
    """
    shuffled = permute(np.arange(len(labels), dtype=np.int64), len(labels), seed, 0)
    positive, negative = shuffled[labels[shuffled] == 1], shuffled[labels[shuffled] == 0]
    most = max(count - count // 2, count - len(negative))
    positive = positive[:most]
    return np.concatenate([positive, negative[: count - len(positive)]])
