"""One reader for our JSON files: what was written comes back, and what is wrong is told by its place, in one line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo_fast import records
from pneumo_fast.errors import ConfigError
from pneumo_fast.records import Fault, json_line, path_text, plain, read
from tests.support.strategies import JSON


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    value: float | None
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Thing:
    name: str
    figures: tuple[Figure, ...]
    size: tuple[int, int] = (1, 1)
    where: Path | None = None

    def __post_init__(self) -> None:
        if self.name == "odd":
            raise ConfigError("name 'odd': another expected")


def written(**values: Any) -> str:
    return json.dumps({"name": "a", "figures": [{"value": 0.5}], **values})


def test_what_was_written_comes_back() -> None:
    thing = Thing(name="a", figures=(Figure(value=None), Figure(value=2.0)), size=(3, 4), where=Path("/x/y"))
    assert read(json.dumps(plain(thing)), Thing, closed=True) == thing


def test_keys_of_others_are_passed_over_unless_the_record_is_closed() -> None:
    text = written(more=1)
    assert read(text, Thing) == Thing(name="a", figures=(Figure(value=0.5),))
    with pytest.raises(Fault, match=r"^\$\.more: unknown key$"):
        read(text, Thing, closed=True)
    with pytest.raises(Fault, match=r"^\$\.figures\[0\]\.more: unknown key$"):
        read(written(figures=[{"value": 1, "more": 2}]), Thing, closed=True)


def test_of_equal_keys_the_last_counts() -> None:
    assert read('{"value": "x", "value": 1}', Figure) == Figure(value=1.0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "Expecting value"),
        (b"\xff", "can't decode byte"),
        (b"{", "Expecting property name"),
        (b"[]", r"^\$: expected `object`, got `array`$"),
        (b"[" * 100_000, "recursion"),
        ("1" * 5000, "Exceeds the limit"),
        (written(name=None), r"^\$\.name: expected `str`, got `null`$"),
        (written(figures=[{}]), r"^\$\.figures\[0\]: object missing required field `value`$"),
        (written(figures=[{"value": "1"}]), r"^\$\.figures\[0\]\.value: expected `float \| null`, got `str`$"),
        (written(figures=[{"value": True}]), r"got `bool`$"),
        (written(figures=[{"value": float("nan")}]), r"^\$\.figures\[0\]\.value: nan found, a finite number expected$"),
        (written().replace("0.5", "1e999"), r"^\$\.figures\[0\]\.value: inf found"),
        (written(figures=[{"value": 10**400}]), "out of range"),
        (written(size=[1]), r"^\$\.size: expected `array` of length 2, got 1$"),
        (written(size=[1.0, 2]), r"^\$\.size\[0\]: expected `int`, got `float`$"),
        (written(where=3), r"^\$\.where: "),
        (written(name="odd"), "^name 'odd': another expected$"),
        (written(deep=json.loads("[" * 80 + "]" * 80)), r"^\$\.deep(\[0\])+: nested too deeply$"),
    ],
)
def test_faults_are_told_in_one_line_by_their_place(text: bytes | str, told: str) -> None:
    with pytest.raises(Fault, match=told) as fault:
        read(text, Thing)
    assert "\n" not in str(fault.value)


def test_a_file_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "LARGEST_BYTES", 10)
    with pytest.raises(Fault, match=r"bytes, at most 10 expected"):
        read(written(), Thing)


def test_numbers_that_are_none_may_be_allowed() -> None:
    assert str(read('{"value": NaN}', Figure, finite=False).value) == "nan"


@given(st.sampled_from(["name", "figures", "size", "where"]), JSON)
def test_no_value_is_a_traceback(key: str, value: Any) -> None:
    try:
        thing = read(written(**{key: value}), Thing, closed=True)
    except Fault as fault:
        assert str(fault)  # noqa: PT017  # either ending is right, a traceback is not
    else:
        assert isinstance(thing.name, str)


def test_a_path_of_any_bytes_is_text() -> None:
    assert path_text(Path("/a/\udcff")) == "/a/\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [float("nan"), {"b": float("-inf")}], "c": 1.5}, '{"a": [null, {"b": null}], "c": 1.5}'),
        (Figure(value=None, note="\n\x9b\udcff"), '{"value": null, "note": "\\n\\u009b?"}'),
        ({"p": Path("/a/\udcff"), "n": (1, True)}, '{"p": "/a/\\ufffd", "n": [1, true]}'),
    ],
)
def test_a_line_of_json_is_valid_whatever_is_in_it(value: Any, text: str) -> None:
    assert json_line(value) == text


@given(JSON)
def test_a_line_of_json_can_be_read(value: Any) -> None:
    line = json_line({"value": value})
    assert line.isascii()
    assert "\n" not in line
    read(line, dict)
