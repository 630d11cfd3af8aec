"""Reads JSON that this package wrote back into the dataclass that wrote it, and names the place of what is wrong.

::

    values = parse_file(path)               JSON values, none of which can do harm
    record = build(values, Manifest)        checked against the dataclass, field by field

A file of somebody else's is text like any other: it may be cut off, nested a million times or hold ``NaN``. All of it
ends in one :class:`Fault`, whose line says where: ``$.ranking.auroc.value: expected `float | null`, got `str```.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import msgspec

from pneumo_fast.errors import PneumoError
from pneumo_fast.files import read_regular

LARGEST_BYTES: Final = 1 << 28
"""A larger file is none of ours."""
DEEPEST: Final = 50
"""Values are never nested more deeply in a file of ours."""

T = TypeVar("T")


class Fault(ValueError):  # noqa: N818  # of a file, told by whoever knows what to do about it
    """What is wrong with a record, and where in it, in one line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """What each of our files begins with."""

    format: Any
    """What the file is."""
    format_version: Any = None
    """Which version of that."""


def read(data: bytes | str, kind: type[T], *, closed: bool = False, finite: bool = True) -> T:
    """Read a record: :func:`parse` and :func:`build` in one.

    Raises
    ------
    Fault
        If the text is no JSON, or not such a record.
    """
    return build(parse(data, finite=finite), kind, closed=closed)


def parse_file(path: Path, *, finite: bool = True) -> Any:
    """JSON values of a file, as :func:`parse` gives them.

    Raises
    ------
    OSError
        If the file is missing, cannot be read, is no regular file or too large.
    Fault
        If it is no JSON.
    """
    return parse(read_regular(path, LARGEST_BYTES), finite=finite)


def is_of(path: Path, kind: str) -> bool:
    """Whether a file can be read and begins as those of a format do, of whatever version."""
    try:
        return bool(build(parse_file(path), Head).format == kind)
    except (OSError, Fault):
        return False


def parse(data: bytes | str, *, finite: bool = True) -> Any:
    """JSON values of a text; of equal keys the last counts.

    Parameters
    ----------
    data : bytes or str
        UTF-8 where it is bytes.
    finite : bool
        Whether ``NaN``, infinities and numbers too large for a float64 are refused.

    Raises
    ------
    Fault
        If the text is no JSON, too large or nested too deeply.
    """
    if len(data) > LARGEST_BYTES:
        raise Fault(f"{len(data):,} bytes, at most {LARGEST_BYTES:,} expected")
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Fault(" ".join(str(error).split())) from error
    if fault := next(_faults(values, "$", DEEPEST, finite=finite), None):
        raise Fault(fault)
    return values


def build(values: Any, kind: type[T], *, closed: bool = False) -> T:
    """A dataclass, or a type made of such, from JSON values; numbers and texts are not taken for one another.

    Parameters
    ----------
    closed : bool
        Whether keys that the dataclass does not have are refused; else they are passed over.

    Raises
    ------
    Fault
        If a value is missing, of another type, or refused by its dataclass.
    """
    try:
        record = msgspec.convert(values, kind, dec_hook=_decode)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at ")
        raise Fault(f"{where.replace('`', '') or '$'}: {what[:1].lower()}{what[1:]}") from error
    except PneumoError as error:
        raise Fault(str(error)) from error
    except AttributeError as error:  # a tensor in the place of a dictionary
        raise Fault(f"$: {error}") from error
    if closed and (unknown := next(_unknown(values, record, "$"), None)):
        raise Fault(f"{unknown}: unknown key")
    return record


def plain(record: Any) -> dict[str, Any]:
    """A dataclass as JSON values; a path becomes text that UTF-8 can hold, whatever bytes it is made of."""
    return cast("dict[str, Any]", msgspec.to_builtins(record, enc_hook=path_text))


def json_line(record: Any) -> str:
    """A record as one line of JSON in ASCII that any reader takes: what is no finite number becomes ``null``."""
    return json.dumps(_portable(msgspec.to_builtins(record, enc_hook=path_text)), allow_nan=False)


def _portable(value: Any) -> Any:
    """JSON values without NaN, infinities and what is no Unicode text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_portable(key): _portable(item) for key, item in value.items()}
    return [_portable(item) for item in value] if isinstance(value, list | tuple) else value


def path_text(path: Path) -> str:
    """A path as text that JSON can hold."""
    return os.fsencode(path).decode("utf-8", "replace")


def _decode(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    if isinstance(value, kind):
        return value
    raise TypeError(f"expected `{kind.__name__}`, got `{type(value).__name__}`")


def _faults(value: Any, path: str, room: int, *, finite: bool) -> Iterator[str]:
    """Places of what no reader further on expects."""
    if isinstance(value, float) and finite and not math.isfinite(value):
        yield f"{path}: {value} found, a finite number expected"
    inside = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    if inside and not room:
        yield f"{path}: nested too deeply"
        return
    for key, item in inside:
        if isinstance(item, float | list | dict):
            place = f"{path}[{key}]" if isinstance(value, list) else f"{path}.{key}"
            yield from _faults(item, place, room - 1, finite=finite)


def _unknown(values: Any, record: Any, path: str) -> Iterator[str]:
    """Keys that a record's dataclasses do not have."""
    if is_dataclass(record):
        names = {field.name for field in fields(record)}
        for key, value in values.items():
            if key not in names:
                yield f"{path}.{key}"
            else:
                yield from _unknown(value, getattr(record, key), f"{path}.{key}")
    elif isinstance(record, tuple):
        for place, (value, item) in enumerate(zip(values, record, strict=True)):
            yield from _unknown(value, item, f"{path}[{place}]")
