"""Label tables: one row per image with its label, patient group and class, and the boxes in a table of their own.

The RSNA Pneumonia Detection Challenge comes first: its ``stage_2_train_labels.csv`` has several rows per image,
its ``patientId`` is an image id, and only its mapping file tells which images are of one patient. Other tables
work by naming their columns.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import numpy as np
import pandas as pd

from pneumo_fast.errors import LabelError

BOX: Final = ["x", "y", "width", "height"]
PATIENT_DIGITS: Final = 8  # NIH file names are PPPPPPPP_NNN.png: patient, then follow-up number
LONGEST_ID: Final = 200  # leaves room for an ending in a file name of 255 bytes
_PLAIN_NAME: Final = re.compile(r"[^/\\\x00-\x1f\x7f]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelTable:
    """What the tables say, before any file is looked at."""

    images: pd.DataFrame
    """One row per image in the table's order: ``image_id`` (str), ``label`` (0 or 1), ``group`` (str, patient, ``""``
    where unknown), ``class`` (str, ``""`` where unknown), and ``path`` where a column names it."""
    boxes: pd.DataFrame
    """One row per box: ``image_id``, and ``x``, ``y``, ``width``, ``height`` in source pixels (float)."""
    group_source: str
    """Where groups come from: ``none``, ``column`` or ``mapping``."""


def read_labels(
    path: Path,
    *,
    id_column: str = "patientId",
    label_column: str = "Target",
    group_column: str | None = None,
    path_column: str | None = None,
    class_info: Path | None = None,
    groups: Path | None = None,
) -> LabelTable:
    """Read a label table, and the class and group tables where given.

    Parameters
    ----------
    path : Path
        CSV; several rows of one image give one label and as many boxes as have the columns x, y, width, height.
    id_column, label_column, group_column : str
        Names of the columns; a group is a patient.
    path_column : str, optional
        Column with the image's path below the images folder. A table without the id column then takes its ids from
        the paths, without ending and with ``__`` for ``/``.
    class_info : Path, optional
        RSNA's ``stage_2_detailed_class_info.csv``: columns ``id_column`` and ``class``.
    groups : Path, optional
        RSNA's mapping file (JSON): ``subset_img_id`` to ``img_id``, whose first eight digits are the patient.

    Raises
    ------
    LabelError
        If a table cannot be used; the message names row and column.
    """
    table = _read_csv(path)
    if path_column:
        _require_columns(path, table, [path_column])
        _check_paths(path, table, path_column)
        if id_column not in table.columns:
            table[id_column] = table[path_column].str.replace(r"\.[^./]*$", "", regex=True).str.replace("/", "__")
    _require_columns(path, table, [id_column, label_column, *([group_column] if group_column else [])])
    if group_column and groups:
        raise LabelError(f"{path}: groups come from the column {group_column!r} or from {groups}, not from both")
    _check_ids(path, table, id_column)
    label = _binary(path, table, label_column)
    _check_agreement(path, table[id_column], label, id_column, label_column)

    first = ~table[id_column].duplicated()
    images = pd.DataFrame({"image_id": table[id_column], "label": label})[first].reset_index(drop=True)
    images["group"] = ""
    images["class"] = ""
    if group_column:
        _check_agreement(path, table[id_column], table[group_column], id_column, group_column)
        images["group"] = table[group_column][first].to_numpy()
    if path_column:
        _check_agreement(path, table[id_column], table[path_column], id_column, path_column)
        images["path"] = table[path_column][first].to_numpy()
    if groups:
        images["group"] = images["image_id"].map(_read_mapping(groups)).fillna("")
    if class_info:
        images["class"] = images["image_id"].map(_read_classes(class_info, id_column)).fillna("")
    source = "mapping" if groups else "column" if group_column else "none"
    return LabelTable(images=images, boxes=_boxes(path, table, label, id_column), group_source=source)


def _read_csv(path: Path) -> pd.DataFrame:
    """Read every cell as text; nothing is guessed."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = str(error).strip().splitlines()[0]
        raise LabelError(f"table {path} cannot be read ({reason}): it must be CSV in UTF-8") from error
    if table.empty:
        raise LabelError(f"table {path} has no rows")
    return table


def _require_columns(path: Path, table: pd.DataFrame, names: list[str]) -> None:
    for name in names:
        if name not in table.columns:
            there = ", ".join(map(str, table.columns))
            raise LabelError(f"table {path} has no column {name!r}: its columns are {there}; name the right one")


def _fail(path: Path, row: int, column: str, value: object, expected: str) -> NoReturn:
    """Raise for one cell; rows are counted as lines of the file, the header being line 1."""
    raise LabelError(f"table {path}, line {row + 2}, column {column!r}: {value!r} found, {expected} expected")


def _check_ids(path: Path, table: pd.DataFrame, column: str) -> None:
    """An id becomes part of a file name, so it must be a plain one."""
    ids = table[column]
    plain = ids.str.fullmatch(_PLAIN_NAME) & ~ids.isin([".", ".."]) & (ids.str.len() <= LONGEST_ID)
    if not plain.all():
        row = int(np.argmin(plain))
        _fail(path, row, column, ids[row], f"a plain file name (no path, 1 to {LONGEST_ID} characters)")


def _check_paths(path: Path, table: pd.DataFrame, column: str) -> None:
    """A path must stay below the images folder."""
    for row, value in enumerate(table[column]):
        steps = value.split("/")
        if not value or "\0" in value or value.startswith("/") or {"", ".", ".."} & set(steps):
            _fail(path, row, column, value, "a relative path below the images folder, written with /")


def _binary(path: Path, table: pd.DataFrame, column: str) -> pd.Series[int]:
    label = table[column].str.strip().map({"0": 0, "1": 1, "0.0": 0, "1.0": 1})
    if label.isna().any():
        row = int(np.argmax(label.isna()))
        _fail(path, row, column, table[column][row], "0 or 1")
    return label.astype(int)


def _check_agreement(path: Path, ids: pd.Series[str], values: pd.Series, id_column: str, column: str) -> None:
    """All rows of one id must say the same."""
    first = values.groupby(ids).transform("first")
    if not (values == first).all():
        row = int(np.argmax(values != first))
        _fail(path, row, column, values[row], f"{first[row]!r}, as in the first row with that {id_column},")


def _boxes(path: Path, table: pd.DataFrame, label: pd.Series[int], id_column: str) -> pd.DataFrame:
    """Boxes of the positive images; a row with four empty cells has none."""
    if not set(BOX) <= set(table.columns):
        return pd.DataFrame({"image_id": pd.Series(dtype=str), **{name: pd.Series(dtype=float) for name in BOX}})
    rows = table[(table[BOX] != "").any(axis=1)]
    boxes = pd.DataFrame({"image_id": rows[id_column]})
    for name in BOX:
        values = pd.to_numeric(rows[name], errors="coerce").astype(float)
        good = np.isfinite(values) & (values > 0 if name in {"width", "height"} else values >= 0)
        if not good.all():
            row = int(rows.index[int(np.argmin(good))])
            _fail(path, row, name, table[name][row], "a number of pixels")
        boxes[name] = values
    if (label[rows.index] == 0).any():
        row = int(rows.index[int(np.argmax(label[rows.index] == 0))])
        _fail(path, row, "x", table["x"][row], "no box on an image whose label is 0")
    return boxes.reset_index(drop=True)


def _read_classes(path: Path, id_column: str) -> dict[str, str]:
    table = _read_csv(path)
    _require_columns(path, table, [id_column, "class"])
    _check_agreement(path, table[id_column], table["class"], id_column, "class")
    return dict(zip(table[id_column], table["class"], strict=True))


def _read_mapping(path: Path) -> dict[str, str]:
    """RSNA's mapping file: image id to patient."""
    try:
        entries = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise LabelError(f"groups file {path} cannot be read ({error}): RSNA's mapping file (JSON) expected") from error
    groups: dict[str, str] = {}
    for number, entry in enumerate(entries if isinstance(entries, list) else [None]):
        try:
            image_id, name = str(entry["subset_img_id"]), str(entry["img_id"])
        except (TypeError, KeyError) as error:
            raise LabelError(f"groups file {path}, entry {number}: no subset_img_id and img_id there") from error
        patient = name[:PATIENT_DIGITS]
        if not re.fullmatch(r"\d{8}", patient):
            raise LabelError(f"groups file {path}, entry {number}, img_id: {name!r} does not begin with 8 digits")
        if groups.setdefault(image_id, patient) != patient:
            raise LabelError(f"groups file {path}, entry {number}: image {image_id!r} is given two patients")
    return groups
