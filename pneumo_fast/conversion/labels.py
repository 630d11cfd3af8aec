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
from typing import Final, NoReturn, cast

import numpy as np
import pandas as pd

from pneumo_fast.conversion.csv_table import read_csv, require_columns
from pneumo_fast.conversion.options import ConvertConfig, LabelRule
from pneumo_fast.errors import LabelError
from pneumo_fast.files import read_regular

BOX: Final = ["x", "y", "width", "height"]
BINARY: Final = LabelRule()
PATIENT_DIGITS: Final = 8  # NIH file names are PPPPPPPP_NNN.png: patient, then follow-up number
SHOWN_CHARACTERS: Final = 3  # of a bad cell, in messages
LONGEST_ID: Final = 200  # bytes; leaves room for an ending in a file name of 255 bytes
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
    left_out: pd.DataFrame
    """The images whose label is to be ignored, with the columns of ``images``."""


def labels_of(config: ConvertConfig) -> LabelTable:
    """Read the tables of a conversion; see :func:`read_labels`."""
    by_path = config.path_column or (config.id_column if config.match == "path" else None)
    return read_labels(
        config.labels,
        images=config.images,
        id_column=config.id_column,
        label=config.label_rule,
        group_column=config.group_column,
        path_column=by_path,
        class_info=config.class_info,
        groups=config.groups,
    )


def read_labels(
    path: Path,
    *,
    id_column: str = "patientId",
    label: LabelRule = BINARY,
    group_column: str | None = None,
    path_column: str | None = None,
    class_info: Path | None = None,
    groups: Path | None = None,
    images: Path | None = None,
) -> LabelTable:
    """Read a label table, and the class and group tables where given.

    Parameters
    ----------
    path : Path
        CSV, divided by commas, semicolons or tabs. Several rows of one image give one label and as many boxes as have
        the columns x, y, width, height.
    id_column, group_column : str
        Names of the columns; a group is a patient.
    label : LabelRule
        Column of the label, and what its values mean.
    path_column : str, optional
        Column with the image's path below the images folder. A table without the id column, or whose id column it is,
        then takes its ids from the paths, without ending and with ``__`` for ``/``.
    class_info : Path, optional
        RSNA's ``stage_2_detailed_class_info.csv``: columns ``id_column`` and ``class``.
    groups : Path, optional
        RSNA's mapping file (JSON): ``subset_img_id`` to ``img_id``, whose first eight digits are the patient.
    images : Path, optional
        The images folder: full paths that begin with it are taken as well.

    Raises
    ------
    LabelError
        If a table cannot be used; the message names row and column.
    """
    table, id_source = read_csv(path), id_column
    if path_column:
        require_columns(path, table, {path_column: "--path-column"})
        below = _paths_below(path, table, path_column, images)
        if id_column == path_column or id_column not in table.columns:
            id_source = path_column
            table[id_column] = below.str.replace(r"\.[^./]*$", "", regex=True).str.replace("/", "__")
    options = {id_column: "--id-column", label.column: "--label-column"}
    require_columns(path, table, options | ({group_column: "--group-column"} if group_column else {}))
    if group_column and groups:
        raise LabelError(f"{path}: groups come from the column {group_column!r} or from {groups}, not from both")
    _check_ids(path, table[id_column], id_source)
    meant = _meant(path, table, label)
    for key in (table[id_column], *([below] if path_column else [])):
        _check_agreement(path, key, meant, label.column)
    if (meant < 0).all():
        raise LabelError(f"table {path}: every row is ignored by its label")

    first = ~table[id_column].duplicated()
    rows = pd.DataFrame({"image_id": table[id_column], "label": meant, "group": "", "class": ""})[first]
    known = {"group": table[group_column].str.strip()} if group_column else {}  # DICOM pads to an even length
    known |= {"path": below} if path_column else {}
    for name, cells in known.items():
        _check_agreement(path, table[id_column], cells, str(cells.name))
        rows[name] = cells[first].to_numpy()
    if groups:
        patients = _read_mapping(groups)
        rows["group"] = [patients.get(image_id, "") for image_id in rows["image_id"]]
    if class_info:
        classes = _read_classes(class_info, id_column)
        rows["class"] = [classes.get(image_id, "") for image_id in rows["image_id"]]
    source = "mapping" if groups else "column" if group_column else "none"
    kept = rows["label"] >= 0
    boxes = _boxes(path, table[meant >= 0], meant, id_column)
    return LabelTable(images=rows[kept].reset_index(drop=True), boxes=boxes, group_source=source, left_out=rows[~kept])


def _fail(path: Path, row: int, column: str, value: object, expected: str, remedy: str = "") -> NoReturn:
    """Raise for one cell."""
    text = str(value)  # a long one may name a patient, so only its length is told
    shown = repr(text) if text else "an empty cell"
    if len(text) > SHOWN_CHARACTERS:
        shown = f"a text of {len(text)} characters"
    raise LabelError(f"table {path}, line {row}, column {column!r}: {shown} found, {expected} expected{remedy}")


def _first(bad: pd.Series[bool]) -> int:
    """Line of the first bad cell."""
    return int(bad.index[int(np.argmax(bad))])


def _check_ids(path: Path, ids: pd.Series[str], column: str) -> None:
    """An id becomes part of a file name, so it must be a plain one."""
    short = ids.map(lambda image_id: len(image_id.encode()) <= LONGEST_ID)
    plain = ids.str.fullmatch(_PLAIN_NAME) & ~ids.isin([".", ".."]) & short
    if not plain.all():
        row = _first(~plain)
        _fail(path, row, column, ids[row], f"an id of 1 to {LONGEST_ID} bytes without / and \\")


def _paths_below(path: Path, table: pd.DataFrame, column: str, images: Path | None) -> pd.Series[str]:
    """Paths relative to the images folder, below which they must stay."""
    starts = sorted({f"{folder}/" for folder in (images.absolute(), images.resolve())}) if images else []
    below = []
    for row, value in table[column].items():
        start = next((start for start in starts if value.startswith(start)), "")
        below.append(value.removeprefix(start))
        if "\0" in value or {"", ".", ".."} & set(below[-1].split("/")):
            _fail(path, cast("int", row), column, value, "a path below the images folder, written with /,")
    return pd.Series(below, index=table.index, name=column, dtype=str)


def _meant(path: Path, table: pd.DataFrame, rule: LabelRule) -> pd.Series[int]:
    """The label of each row, 0 or 1, and -1 where it is ignored."""
    cells = table[rule.column]
    label = cells.map({cell: rule.label_of(cell) for cell in cells.unique()})
    if label.isna().any():
        row = _first(label.isna())
        remedy = "; name other labels with --positive, --negative, --ignore"
        if not cells[row].strip():
            remedy = "; --ignore '' leaves such rows out"
        _fail(path, row, rule.column, cells[row], rule.expected, remedy)
    if absent := rule.find_absent(cells.unique()):
        option, value = absent
        raise LabelError(f"table {path}, column {rule.column!r}: no cell is {value!r}: correct or omit --{option}")
    return label.astype(int)


def _check_agreement(path: Path, ids: pd.Series[str], values: pd.Series, column: str) -> None:
    """All rows of one id must say the same."""
    values = values[ids.duplicated(keep=False)]
    first = values.groupby(ids).transform("first")
    if not (values == first).all():
        row = _first(values != first)
        raise LabelError(
            f"table {path}, line {row}, column {column!r}: not the same as in line {_first(ids == ids[row])}, which is "
            "of the same image; all rows of an image must agree"
        )


def _boxes(path: Path, table: pd.DataFrame, label: pd.Series[int], id_column: str) -> pd.DataFrame:
    """Boxes of the positive images; a row with four empty cells has none."""
    if not set(BOX) <= set(table.columns):
        return pd.DataFrame({"image_id": pd.Series(dtype=str), **{name: pd.Series(dtype=float) for name in BOX}})
    rows = table[(table[BOX] != "").any(axis=1)]
    boxes = pd.DataFrame({"image_id": rows[id_column]})
    for name in BOX:
        values = pd.to_numeric(rows[name], errors="coerce").astype(float)
        is_side = name in {"width", "height"}
        good = (values > 0 if is_side else values >= 0) & (values < np.inf)
        if not good.all():
            row = _first(~good)
            _fail(path, row, name, table[name][row], f"a number of pixels, {'above' if is_side else 'at least'} 0,")
        boxes[name] = values
    if (negative := label[rows.index] == 0).any():
        row = _first(negative)
        _fail(path, row, "x", table["x"][row], "no box on an image whose label is 0")
    return boxes.reset_index(drop=True)


def _read_classes(path: Path, id_column: str) -> dict[str, str]:
    table = read_csv(path)
    require_columns(path, table, {id_column: "--id-column", "class": ""})
    _check_agreement(path, table[id_column], table["class"], "class")
    return dict(zip(table[id_column], table["class"], strict=True))


def _read_mapping(path: Path) -> dict[str, str]:
    """RSNA's mapping file: image id to patient."""
    try:
        entries = json.loads(read_regular(path))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise LabelError(
            f"groups file {path} cannot be read ({reason}): RSNA's mapping file (JSON) expected"
        ) from error
    groups: dict[str, str] = {}
    for number, entry in enumerate(entries if isinstance(entries, list) else [None]):
        try:
            image_id, name = str(entry["subset_img_id"]), str(entry["img_id"])
        except (TypeError, KeyError) as error:
            raise LabelError(f"groups file {path}, entry {number}: no subset_img_id and img_id there") from error
        patient = name[:PATIENT_DIGITS]
        if not re.fullmatch(r"\d{8}", patient):
            raise LabelError(f"groups file {path}, entry {number}, img_id: it does not begin with 8 digits")
        if groups.setdefault(image_id, patient) != patient:
            raise LabelError(f"groups file {path}, entry {number}: its image has another patient already")
    return groups
