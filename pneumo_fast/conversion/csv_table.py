"""A table that people hand in: CSV, read as text, with lines and columns that messages can name."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pandas as pd

from pneumo_fast.errors import LabelError
from pneumo_fast.files import read_regular

DELIMITERS: Final = (",", ";", "\t")
UTF_16_MARKS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
WORKBOOK_MARKS: Final = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
"""How files of Excel begin: .xlsx, a ZIP archive, and .xls, an OLE file."""
_NO_COLUMN: Final = re.compile(r"^$|^[-+.\d]|[\^,@]|\d{4}")
"""What no name of a column holds: a number at its beginning, a person's name in DICOM's form, a date."""
_SURPLUS: Final = r"Expected (?P<before>\d+) fields in line (?P<line>\d+), saw (?P<cells>\d+)"
"""What pandas says of a row with too many cells."""


def read_csv(path: Path) -> pd.DataFrame:
    """Read every cell as text; rows are numbered as lines of the file, the header being line 1."""
    if path.is_dir():
        raise LabelError(
            f"table {path} cannot be read (it is a folder): name the folder of images first, then the table"
        )
    try:
        data = read_regular(path)
        if data.startswith(WORKBOOK_MARKS):
            raise LabelError(f"table {path} is an Excel workbook or a ZIP archive: save it as CSV UTF-8")
        text = io.StringIO(data.decode("utf-16" if data.startswith(UTF_16_MARKS) else "utf-8-sig"), newline="")
        delimiter = _delimiter(path, header := text.readline())
        _check_names(path, next(csv.reader([header], delimiter=delimiter), []))
        text.seek(0)
        table = pd.read_csv(text, dtype=str, keep_default_na=False, skip_blank_lines=False, sep=delimiter)
    except FileNotFoundError as error:
        raise LabelError(f"table {path} does not exist: name a CSV file") from error
    except OSError as error:
        raise LabelError(f"table {path} cannot be read ({error.strerror or type(error).__name__})") from error
    except (ValueError, csv.Error) as error:  # what pandas raises on bad text is a ValueError
        reason = str(error).strip().splitlines()[0].removeprefix("Error tokenizing data. C error: ")
        if found := re.fullmatch(_SURPLUS, reason):
            raise LabelError(
                f"table {path}, line {found['line']}: {found['cells']} cells, but the lines above it have "
                f"{found['before']}; each row must have as many"
            ) from error
        raise LabelError(
            f"table {path} cannot be read ({reason}): it must be CSV in UTF-8, or in UTF-16 with its mark"
        ) from error
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes surplus cells for names of the rows
        raise LabelError(f"table {path}, line 2: more cells than the header has; each row must have as many")
    table.index += 2
    table = table[(table != "").any(axis=1)]
    if table.empty:
        raise LabelError(f"table {path} has no rows")
    return table


def _delimiter(path: Path, header: str) -> str:
    """The delimiter that gives the header the most columns; a comma where none of them occurs."""
    columns = {mark: len(next(csv.reader([header], delimiter=mark), [])) for mark in DELIMITERS}
    most = max(columns.values())
    found = [mark for mark in DELIMITERS if columns[mark] == most]
    if len(found) > 1 and most > 1:
        raise LabelError(f"table {path}: {' and '.join(map(repr, found))} both divide its header: keep one delimiter")
    return found[0]


def _check_names(path: Path, names: list[str]) -> None:
    """Refuse two columns of one name, of which only the first would be read."""
    for place, name in ((place, name) for place, name in enumerate(names) if name):
        if name in names[:place]:
            raise LabelError(f"table {path}: columns {names.index(name) + 1} and {place + 1} have one name: keep one")


def require_columns(path: Path, table: pd.DataFrame, names: Mapping[str, str]) -> None:
    """Refuse a table that lacks a column, each with the option that names it; LabelError tells which ones it has."""
    for name, option in names.items():
        if name not in table.columns:
            there = [str(column) for column in table.columns]
            if any(map(_NO_COLUMN.search, there)):  # a row of data, which may name a patient, is not quoted
                raise LabelError(
                    f"table {path} has no column {name!r}, and its first line seems to be no header: put one before it"
                )
            found = f"its columns are {', '.join(there)}"
            if len(there) == 1:
                found = f"its one column is {there[0]}, since no comma, semicolon or tab divides its header"
            raise LabelError(
                f"table {path} has no column {name!r}: {found}; "
                + (f"name the right one with {option}" if option else "give a table that has it")
            )
