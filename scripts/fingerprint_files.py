"""What a file says, as keys with values, and how two sets of files differ; the pure part of ``fingerprints.py``.

A dataset's images and tables count to the byte, a checkpoint by each tensor of its model, JSON by each number, name
and checksum. Left out are versions and times, by key. Sentences and pages are words: their differences are told apart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

ADDED_KEYS: Final[frozenset[str]] = frozenset({
    "manifest.json/input/boxes_outside", "manifest.json/input/boxes_cut_off",
    "predictions.json/judgement/operating_point",
})  # fmt: skip
"""What the new side alone may have in its JSON, with all below it: ``metrics.json/options``, for instance."""
FIGURES: Final = {"roc.png", "precision_recall.png", "confusion.png"}
"""Drawn from numbers that are compared, and labelled in words."""
VERSION_KEYS: Final = {"created_by", "version", "versions"}
TIME_KEYS: Final = {
    "images_per_s", "wait_share", "wait_ms_per_step", "longest_wait_ms", "train_seconds", "val_seconds",
}  # fmt: skip
IDENTITY_KEYS: Final = {"identity", "dataset_identity"}
"""Checksums of manifests; those of parts and of several datasets are made from them, versions included."""
SHOWN_CHARACTERS: Final = 100


class NothingComparedError(Exception):
    """There is nothing to compare, so nothing is proven."""


class Value(NamedTuple):
    """What stands under a key."""

    text: str
    words: bool = False
    """Whether it is for people alone."""


Print = dict[str, Value]
"""What a file says, by key."""
Prints = dict[str, Print]
"""What the files of a step say, by name."""


@dataclass(kw_only=True, slots=True)
class Row:
    """How a step's files compare."""

    step: str
    files: int
    values: int
    different: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)


def read_print(path: Path, known: Mapping[str, str]) -> Print:
    """What a file says.

    Parameters
    ----------
    path : Path
        ``.pt`` is read as a checkpoint, ``.json`` and ``.jsonl`` as JSON, pages and labelled figures as words, all
        else as bytes.
    known : mapping
        What stands in the place of a text, but for tables: names for checksums of files that hold versions or times.

    Raises
    ------
    ValueError
        If a checkpoint holds no model, or more than one.
    """
    if path.suffix == ".pt":
        return state_print(find_state(torch.load(path, map_location="cpu", mmap=True, weights_only=True)))
    if path.suffix == ".json":
        return json_print(json.loads(path.read_text()), known)
    if path.suffix == ".jsonl":
        return json_print([json.loads(line) for line in path.read_text().splitlines()], known)
    if path.suffix in {".html", ".md"}:
        return words_print(path.read_text(), known)
    if path.name in FIGURES:
        return words_print(hashlib.sha256(path.read_bytes()).hexdigest(), known)
    return bytes_print(path.read_bytes(), lines=path.suffix == ".csv")


def words_print(text: str, known: Mapping[str, str]) -> Print:
    """What is for people to read, as a whole."""
    return {"text": Value(_replaced(text, known), words=True)}


def _replaced(text: str, known: Mapping[str, str]) -> str:
    for found, name in known.items():
        text = text.replace(found, name)
    return text


def bytes_print(content: bytes, *, lines: bool = False) -> Print:
    """The SHA-256 of some bytes; of a table its lines as well, so that the first that differs can be named."""
    table = content.split(b"\n") if lines else []
    found = {
        f"line {number}": Value(line.decode("utf-8", "backslashreplace")) for number, line in enumerate(table, start=1)
    }
    return {**found, "sha256": Value(hashlib.sha256(content).hexdigest())}


def json_print(content: Any, known: Mapping[str, str]) -> Print:
    """Every leaf of a JSON document, by its path; an empty list or object is a leaf, too."""
    return dict(_leaves("", content, known))


def _leaves(path: str, content: Any, known: Mapping[str, str]) -> Iterator[tuple[str, Value]]:
    if not isinstance(content, dict | list) or not content:
        yield path, _leaf(path, content, known)
        return
    for name, child in content.items() if isinstance(content, dict) else enumerate(content):
        if name not in VERSION_KEYS | TIME_KEYS:
            yield from _leaves(f"{path}/{name}".lstrip("/"), child, known)


def _leaf(path: str, content: Any, known: Mapping[str, str]) -> Value:
    if not isinstance(content, str):
        return Value(json.dumps(content))
    content = _replaced(content, known)
    if path.rpartition("/")[2] in IDENTITY_KEYS and content not in known.values():
        return Value("of a part, or of several datasets")
    return Value(content, words=any(map(str.isspace, content)))


def find_state(checkpoint: Any) -> dict[str, torch.Tensor]:
    """The model's state: what stands under ``model``, directly or one level down, and holds tensors alone.

    Raises
    ------
    ValueError
        If there is none, or more than one.
    """
    if not isinstance(checkpoint, dict):
        raise ValueError("a checkpoint is no dictionary")
    below = [value for key, value in checkpoint.items() if isinstance(value, dict) and key != "ema"]
    for level in ([checkpoint], below):
        found = [value["model"] for value in level if _is_state(value.get("model"))]
        if len(found) == 1:
            state: dict[str, torch.Tensor] = found[0]
            return state
        if found:
            raise ValueError(f"a checkpoint holds {len(found)} models")
    raise ValueError("a checkpoint holds no model")


def _is_state(value: object) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(one, torch.Tensor) for one in value.values())


def state_print(state: Mapping[str, torch.Tensor]) -> Print:
    """Data type, shape and SHA-256 of the bytes of each tensor, by name."""
    return {name: Value(_tensor_text(state[name])) for name in sorted(state)}


def _tensor_text(tensor: torch.Tensor) -> str:
    content = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{tensor.dtype} {list(tensor.shape)} {hashlib.sha256(content).hexdigest()}"


def compare(step: str, base: Prints, new: Prints, added: Collection[str] = ADDED_KEYS) -> Row:
    """Compare the files of a step.

    Raises
    ------
    NothingComparedError
        If there are no files, or one of them says nothing.
    """
    empty = [name for side in (base, new) for name, found in side.items() if not found]
    if not base or empty:
        raise NothingComparedError(f"{step}: nothing to compare in {empty[0] if empty else 'the base'}")
    row = Row(step=step, files=len(base), values=sum(map(len, base.values())))
    for name in sorted(base | new):
        if name not in base or name not in new:
            row.different.append(f"{name}: only the {'base' if name in base else 'new'} side has it")
            continue
        different, words = _differences(name, base[name], new[name], added)
        row.different += [f"{name}: {text}" for text in different]
        row.words += [f"{name}: {text}" for text in words]
    return row


def _differences(name: str, base: Print, new: Print, added: Collection[str]) -> tuple[list[str], list[str]]:
    different: list[str] = []
    words: list[str] = []
    for key in [*base, *(key for key in new if key not in base)]:
        one, two = base.get(key), new.get(key)
        if one is None and _is_added(f"{name.rpartition('/')[2]}/{key}", added):
            words.append(f"{key}: added, {_shown(two)}")
        elif one is None or two is None or one.text != two.text:
            both_words = one is not None and two is not None and one.words and two.words
            (words if both_words else different).append(f"{key}: {_change(one, two)}")
    return different, words


def _change(base: Value | None, new: Value | None) -> str:
    """Both values from shortly before the first character that differs."""
    if base is None or new is None:
        return f"{_shown(base)} -> {_shown(new)}"
    equal = takewhile(lambda pair: pair[0] == pair[1], zip(base.text, new.text, strict=False))
    first = max(0, sum(1 for _ in equal) - SHOWN_CHARACTERS // 2)
    return " -> ".join(f"{'...' if first else ''}{_shown(Value(value.text[first:]))}" for value in (base, new))


def _is_added(path: str, added: Collection[str]) -> bool:
    return any(path == key or path.startswith(f"{key}/") for key in added)


def _shown(value: Value | None) -> str:
    return "absent" if value is None else repr(value.text[:SHOWN_CHARACTERS])


def table(rows: list[Row]) -> Iterator[str]:
    """Lines for people: one per step, below it the first things that differ; the last line counts all.

    Raises
    ------
    NothingComparedError
        If there are no rows.
    """
    if not rows:
        raise NothingComparedError("no step was run")
    width = min(max(len(row.step) for row in rows), SHOWN_CHARACTERS)
    for row in rows:
        verdict = "DIFFERENT" if row.different else "equal"
        yield f"{row.step[:width]:{width}} {row.files:5} files {row.values:7} values  {verdict}"
        for title, texts in (("", row.different), ("words: ", row.words)):
            yield from (f"    {title}{text}" for text in texts[:3])
            if len(texts) > 3:
                yield f"    {title}and {len(texts) - 3} more"
    files, values = sum(row.files for row in rows), sum(row.values for row in rows)
    different, words = sum(bool(row.different) for row in rows), sum(len(row.words) for row in rows)
    yield (
        f"{len(rows)} steps, {files} files, {values} values compared: "
        f"{len(rows) - different} steps equal, {different} DIFFERENT; {words} differences in words alone"
    )
