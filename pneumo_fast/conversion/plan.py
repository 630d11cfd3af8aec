"""What is to be converted: the label table matched with the files, split, shuffled and cut into tasks."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from pneumo_fast.conversion.labels import LabelTable
from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.dataset.leaks import refuse_overlap
from pneumo_fast.dataset.pseudonyms import pseudonym
from pneumo_fast.dataset.splits import assign_splits, seeded_order
from pneumo_fast.errors import ConvertError
from pneumo_fast.vocabulary import SPLITS

SHARDS_WANTED = 64  # enough for some dozen workers to finish together
SMALLEST_SHARD, LARGEST_SHARD = 32, 4096  # images; the largest takes 400 MB at 224 pixels in float16


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Every image to convert, in the order in which it will be stored."""

    images: pd.DataFrame
    """``image_id``, ``label``, ``group``, ``class``, ``path`` (relative to the images folder), ``shown_path`` (as
    it is written if the file is rejected), ``split``, ``task``."""
    rejects: tuple[dict[str, str], ...]
    """Files that cannot be matched with one row: path, reason, detail."""
    rows_without_file: int
    files_without_row: int
    ungrouped: int
    """Images without a group, where groups are known at all."""


def make_plan(labels: LabelTable, config: ConvertConfig) -> Plan:
    """Match, split, shuffle and cut; a pure function of tables, file names and options.

    What lies in ``config.out`` is not looked at, so that a dataset may lie below the images.

    Raises
    ------
    ConvertError
        If the folder is missing or no file matches a row of the table.
    """
    files = find_files(config.images, config.out)
    found, files_without_row = _match(files, labels.images)
    ids = labels.images["image_id"]
    table = labels.images.assign(path=ids.map({i: paths[0] for i, paths in found.items() if len(paths) == 1}))
    table = table[table["path"].notna()].reset_index(drop=True)
    if table.empty:
        raise ConvertError(
            f"none of the {len(files)} files in {config.images} belongs to one of the {len(ids)} rows of the label "
            "table: an image's file name without its ending must be its id"
        )
    ungrouped = int((table["group"] == "").sum()) if labels.group_source != "none" else 0
    if ungrouped and config.ungrouped == "drop":
        table = table[table["group"] != ""].reset_index(drop=True)
    if table.empty:
        raise ConvertError(f"none of the {ungrouped} images has a group: give the right groups, or --ungrouped keep")
    table["shown_path"] = table["path"].map(printable)
    table["split"] = assign_splits(
        table, val_fraction=config.val_fraction, test_fraction=config.test_fraction, seed=config.seed
    )
    refuse_overlap(table)
    return Plan(
        images=cut_into_shards(table.iloc[seeded_order(table["image_id"], config.seed, "storage")], config.shard_size),
        rejects=tuple(
            {"path": printable(path), "reason": "ambiguous", "detail": f"{len(paths)} files match one row"}
            for paths in found.values()
            if len(paths) > 1
            for path in paths
        ),
        rows_without_file=int((~ids.isin(list(found))).sum()),
        files_without_row=files_without_row,
        ungrouped=ungrouped,
    )


def find_files(folder: Path, out: Path) -> list[str]:
    """Every file that is not hidden, below the folder but not below ``out``; relative, sorted, with links to files."""
    if not folder.is_dir():
        raise ConvertError(f"images folder {folder} is not there: give the folder that holds the DICOM files")
    found, dataset = [], out.resolve()
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and Path(parent, name).resolve() != dataset]
        below = os.path.relpath(parent, folder)
        prefix = "" if below == os.curdir else below + os.sep
        found += [prefix + name for name in names if not name.startswith(".")]
    return sorted(found)


def _match(files: list[str], images: pd.DataFrame) -> tuple[dict[str, list[str]], int]:
    """The files of each image id, which has to be one; and how many match none.

    Where the table has paths, they tell. Else an image belongs to the row whose id is its file name without the
    ending, or the whole name: an id may itself hold dots.
    """
    if "path" in images:
        there = set(files)
        found = {i: [path] for i, path in zip(images["image_id"], images["path"], strict=True) if path in there}
        return found, len(there - set(images["path"]))
    ids = set(images["image_id"])
    candidates: dict[str, list[str]] = {}
    unmatched = 0
    for path in files:
        name = path.rpartition(os.sep)[2]
        image_id = name if name in ids else name.rpartition(".")[0] or name
        if image_id in ids:
            candidates.setdefault(image_id, []).append(path)
        else:
            unmatched += 1
    return candidates, unmatched


def printable(path: str) -> str:
    """A path as text for a table, whatever bytes it is made of."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def hide_ids(labels: LabelTable, plan: Plan, key: bytes) -> tuple[LabelTable, Plan]:
    """Put pseudonyms in the place of image ids and of the paths that rejections name."""
    image, path = partial(pseudonym, key, "image"), partial(pseudonym, key, "path")
    images = plan.images.assign(
        image_id=plan.images["image_id"].map(image), shown_path=plan.images["shown_path"].map(path)
    )
    rejects = tuple({**reject, "path": path(reject["path"])} for reject in plan.rejects)
    boxes = labels.boxes.assign(image_id=labels.boxes["image_id"].map(image))
    return replace(labels, boxes=boxes), replace(plan, images=images, rejects=rejects)


def cut_into_shards(images: pd.DataFrame, shard_size: int | None) -> pd.DataFrame:
    """Name the shard each image goes to; sizes depend on the counts alone, never on the number of workers."""
    parts = []
    for split in SPLITS:
        part = images[images["split"] == split].reset_index(drop=True)
        rows = shard_size or min(max(math.ceil(len(part) / SHARDS_WANTED), SMALLEST_SHARD), LARGEST_SHARD)
        parts.append(part.assign(task=[f"{split}-{number:05d}" for number in np.arange(len(part)) // rows]))
    return pd.concat(parts, ignore_index=True)
