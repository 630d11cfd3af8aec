"""What is to be converted: the label table matched with the files, split, shuffled and cut into tasks."""

from __future__ import annotations

import math
import os
import shlex
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from pneumo_fast.conversion.labels import LabelTable
from pneumo_fast.conversion.matching import match
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
    it is written if the file is rejected), ``split``, ``task``. An image with several rows, one after the other, comes
    from the first of their files that can be read."""
    rejects: tuple[dict[str, str], ...]
    """Files that cannot be matched with one row: path, reason, detail."""
    unmatched: tuple[str, ...]
    """Image ids of the rows without a file, as they will be written."""
    files_without_row: tuple[str, ...]
    """Their paths, as they will be written."""
    ungrouped: int
    """Images without a group, where groups are known at all."""


def make_plan(labels: LabelTable, config: ConvertConfig) -> Plan:
    """Match, split, shuffle and cut; a pure function of tables, file names and options.

    What lies in ``config.out`` is not looked at, so that a dataset may lie below the images.

    Raises
    ------
    ConvertError
        If the folder is missing, no file matches a row of the table, or several files of one cannot be told apart.
    """
    files = find_files(config.images, config.out)
    if not files:
        raise ConvertError(f"images folder {config.images} holds no files: give the folder that holds the DICOM files")
    matches = match(files, labels.images, labels.left_out, config)
    table = matches.images.reset_index(drop=True)
    if table.empty and (left_out := Counter(reject["reason"] for reject in matches.rejects)):
        told = ", ".join(f"{reason} {count}" for reason, count in left_out.most_common())
        raise ConvertError(
            f"all {left_out.total()} files that belong to a row of the label table were left out ({told}): see "
            "--several, --modality, --view, --body-part"
        )
    if table.empty:
        raise ConvertError(
            f"none of the {len(files)} files in {config.images} belongs to one of the {len(labels.images)} rows of the "
            f"label table by its {'path' if config.path_column else config.match}: name the right column with "
            "--id-column or --path-column, or see --match"
        )
    if (spread := set(table["image_id"]) - set(labels.images["image_id"])) and not labels.boxes.empty:
        raise ConvertError(
            f"{len(spread)} images are of rows with several files, and the boxes cannot be assigned to files: use "
            "--several first, or a table without boxes"
        )
    ungrouped = int((table["group"] == "").sum()) if labels.group_source != "none" else 0
    if ungrouped and config.ungrouped == "drop":
        table = table[table["group"] != ""].reset_index(drop=True)
    if table.empty:
        raise ConvertError(f"none of the {ungrouped} images has a group: give the right groups, or --ungrouped keep")
    table["shown_path"] = ""
    table["split"] = assign_splits(
        table, val_fraction=config.val_fraction, test_fraction=config.test_fraction, seed=config.seed
    )
    refuse_overlap(table)
    table = table.iloc[seeded_order(table["image_id"], config.seed, "storage")]
    return Plan(
        images=_with_others(cut_into_shards(table, config.shard_size), matches.others),
        rejects=tuple({**reject, "path": printable(reject["path"])} for reject in matches.rejects),
        unmatched=matches.unmatched,
        files_without_row=tuple(map(printable, matches.files_without_row)),
        ungrouped=ungrouped,
    )


def _with_others(images: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """Below each image's row one for each file that may take its place; paths as they will be written."""
    if not others.empty:
        both = pd.concat([images, others.merge(images.drop(columns="path"), on="image_id")])
        images = both.iloc[np.argsort(pd.factorize(both["image_id"])[0], kind="stable")].reset_index(drop=True)
    return images.assign(shown_path=[printable(path) for path in images["path"].tolist()])


def find_files(folder: Path, *left_out: Path) -> list[str]:
    """Every file that is not hidden, below the folder but not below what is left out; relative and sorted.

    Links to files and to folders are followed; a folder is searched once, by its own path if it lies below this one.

    Raises
    ------
    ConvertError
        If it is no folder or does not exist, or it or one below it cannot be read.
    """
    try:
        if not stat.S_ISDIR(folder.stat().st_mode):
            raise ConvertError(f"images folder {folder} is a file: name the folder that holds it")
        return sorted(_walk(folder, {path.resolve() for path in left_out}))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConvertError(
            f"images folder {folder} does not exist: give the folder that holds the DICOM files"
        ) from error
    except OSError as error:  # which folder it is may name a patient
        raise ConvertError(
            f"a folder in {folder} cannot be read ({error.strerror}), and its files would be missing: make it readable "
            f"or move it away; find -L {shlex.quote(str(folder))} -type d >/dev/null says which it is"
        ) from error


def _walk(folder: Path, left_out: set[Path]) -> Iterator[str]:
    searched: set[tuple[int, int] | None] = {None}
    starts = [folder]
    for start in starts:  # links to folders are added to it, and searched when all else is
        linked = start != folder
        target = start.resolve()
        if linked and (_place(start) in searched or left_out & {target, *target.parents}):
            continue
        for parent, folders, names in os.walk(start, onerror=_raise_unless_gone):
            searched.add(_place(Path(parent)))
            below = os.path.relpath(parent, folder)
            prefix = "" if below == os.curdir else below + os.sep
            yield from (prefix + name for name in names if not name.startswith("."))
            inside = [Path(parent, name) for name in sorted(folders) if not name.startswith(".")]
            starts += [path for path in inside if path.is_symlink()]
            own = [path for path in inside if not path.is_symlink() and path.resolve() not in left_out]
            # without links none comes twice, whatever the file system says: some give folders the same number
            folders[:] = [path.name for path in own if not linked or _place(path) not in searched]


def _place(folder: Path) -> tuple[int, int] | None:
    """What tells a folder from every other one; None where it has gone."""
    try:
        status = folder.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # what has gone holds no file
        raise error


def printable(path: str) -> str:
    """A path as text for a table, whatever bytes it is made of."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def hide_ids(labels: LabelTable, plan: Plan, key: bytes) -> tuple[LabelTable, Plan]:
    """Put pseudonyms in the place of image ids and of the paths that rejections name."""
    image, path = partial(pseudonym, key, "image"), partial(pseudonym, key, "path")
    names, paths = plan.images["image_id"].tolist(), plan.images["shown_path"].tolist()
    images = plan.images.assign(image_id=list(map(image, names)), shown_path=list(map(path, paths)))
    rejects = tuple({**reject, "path": path(reject["path"])} for reject in plan.rejects)
    boxes = labels.boxes.assign(image_id=labels.boxes["image_id"].map(image))
    hidden = replace(
        plan,
        images=images,
        rejects=rejects,
        unmatched=tuple(map(image, plan.unmatched)),
        files_without_row=tuple(map(path, plan.files_without_row)),
    )
    return replace(labels, boxes=boxes), hidden


def cut_into_shards(images: pd.DataFrame, shard_size: int | None) -> pd.DataFrame:
    """Name the shard each image goes to; sizes depend on the counts alone, never on the number of workers."""
    parts = []
    for split in SPLITS:
        part = images[images["split"] == split].reset_index(drop=True)
        rows = shard_size or min(max(math.ceil(len(part) / SHARDS_WANTED), SMALLEST_SHARD), LARGEST_SHARD)
        parts.append(part.assign(task=[f"{split}-{number:05d}" for number in np.arange(len(part)) // rows]))
    return pd.concat(parts, ignore_index=True)
