"""Which file belongs to which row of the label table: by its name, its path, or an attribute of its header."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Final

import pandas as pd

from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.conversion.supervisor import start_child
from pneumo_fast.errors import ConvertError
from pneumo_fast.radiograph.header import BYTES_PER_PIXEL
from pneumo_fast.radiograph.identity import Identity, read_identity
from pneumo_fast.radiograph.selection import Selection

FEW_FILES: Final = 256
"""As many are read sooner here than by processes that have to be started first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Matches:
    """The files of the rows."""

    images: pd.DataFrame
    """The rows of the label table that have a file, with ``path``; with several files, as the rule has it."""
    others: dict[str, list[str]]
    """By image id: files of the row to take, the first that can be read, where its own cannot."""
    rejects: tuple[dict[str, str], ...]
    """Files of rows that are not taken: path, reason, detail."""
    unmatched: tuple[str, ...]
    """Image ids of the rows without a file, in the table's order."""
    files_without_row: tuple[str, ...]
    """Paths that no row claims, sorted."""


def match(files: list[str], images: pd.DataFrame, left_out: pd.DataFrame, config: ConvertConfig) -> Matches:
    """Find the files of each row.

    Parameters
    ----------
    files : list of str
        Relative to the images folder, sorted.
    images : DataFrame
        One row per image: ``image_id``, and ``path`` where the table names files.
    left_out : DataFrame
        The same of rows that are not wanted, whose files are not without a row.

    Raises
    ------
    ConvertError
        If a row that has boxes has several files, or an id made for one of several is another row's.
    """
    if "path" in images:
        there = set(files)
        found = {i: [path] for i, path in zip(images["image_id"], images["path"], strict=True) if path in there}
        return _matches(files, images.drop(columns="path"), found, [], set(left_out["path"]), config)
    ids, others = set(images["image_id"]), set(left_out["image_id"])
    known = ids | others
    if config.match in {"filename", "path"}:
        found = {}
        for path in files:
            name = path.rpartition(os.sep)[2]
            found.setdefault(name if name in known else name.rpartition(".")[0] or name, []).append(path)
        unwanted, claimed = [], set()
    else:
        identities = [one for one in read_identities(files, config) if one.value]
        unwanted = [one for one in identities if one.unwanted and one.value in ids]
        claimed = {one.path for one in identities if one.unwanted and one.value in others}
        found = {}
        for one in sorted(identities, key=lambda each: (each.series, each.instance, each.path)):
            if not one.unwanted:
                found.setdefault(one.value, []).append(one.path)
    of_rows = {image_id: paths for image_id, paths in found.items() if image_id in ids}
    claimed.update(*(paths for image_id, paths in found.items() if image_id in others))
    return _matches(files, images, of_rows, unwanted, claimed, config)


def read_identities(files: list[str], config: ConvertConfig) -> Iterator[Identity]:
    """Read the headers of files, in their order; many of them by several processes."""
    selection = Selection(modalities=config.modalities, views=config.views, body_parts=config.body_parts)
    most = BYTES_PER_PIXEL * config.max_pixels
    read = partial(read_identity, config.images, attribute=config.match, selection=selection, max_bytes=most)
    if len(files) <= FEW_FILES:
        yield from map(read, files)
        return
    try:
        yield from _by_processes(read, files, config.workers or len(os.sched_getaffinity(0)))
    except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
        raise ConvertError("a process that read headers ended unexpectedly: is there memory enough?") from error


def _by_processes(read: Callable[[str], Identity], files: list[str], processes: int) -> Iterator[Identity]:
    """Give each process its share of the files; none is left however this ends."""
    share = -(-len(files) // processes)
    with ExitStack() as stack:
        readers = [stack.enter_context(start_child("apply")) for _ in range(0, len(files), share)]
        for reader in readers:
            stack.callback(reader.kill)
        pipes = [(reader.stdin, reader.stdout) for reader in readers if reader.stdin and reader.stdout]
        for number, (questions, _) in enumerate(pipes):
            pickle.dump((read, files[number * share : (number + 1) * share]), questions)
            questions.flush()
        for _, answers in pipes:
            yield from pickle.load(answers)  # noqa: S301  # from a process that we started


def _matches(
    files: list[str],
    images: pd.DataFrame,
    found: dict[str, list[str]],
    unwanted: list[Identity],
    claimed: set[str],
    config: ConvertConfig,
) -> Matches:
    """Apply the rule for several files of a row."""
    rejects = [
        {"path": one.path, "reason": one.unwanted[0], "detail": one.unwanted[1]} for one in unwanted if one.unwanted
    ]
    taken: dict[str, list[str]] = {}
    others: dict[str, list[str]] = {}
    for image_id, paths in found.items():
        if len(paths) == 1 or config.several == "all":
            taken[image_id] = paths
        elif config.several == "first":
            taken[image_id], others[image_id] = paths[:1], paths[1:]
        else:
            detail = f"{len(paths)} files match one row: see --several"
            rejects += [{"path": path, "reason": "ambiguous", "detail": detail} for path in paths]
    matched = {*found, *(one.value for one in unwanted)}
    claimed = {*claimed, *chain.from_iterable(found.values()), *(one.path for one in unwanted)}
    ids = images["image_id"]
    return Matches(
        images=_with_paths(images, taken),
        others=others,
        rejects=tuple(rejects),
        unmatched=tuple(ids[~ids.isin(list(matched))]),
        files_without_row=tuple(path for path in files if path not in claimed),
    )


def _with_paths(images: pd.DataFrame, taken: dict[str, list[str]]) -> pd.DataFrame:
    """The rows with their paths; each file of several becomes a row, whose id has its number, in one group."""
    rows = images[images["image_id"].isin(list(taken))]
    paths = rows["image_id"].map(taken)
    counts = paths.map(len)
    several = rows["image_id"][counts > 1]
    rows = rows.assign(group=rows["group"].where((counts == 1) | (rows["group"] != ""), rows["image_id"]))
    spread = rows.assign(path=paths).explode("path", ignore_index=True)
    number = spread.groupby("image_id").cumcount() + 1
    ids = spread["image_id"]
    spread["image_id"] = ids.where(~ids.isin(several), ids + "-" + number.astype(str))
    if spread["image_id"].duplicated().any():
        raise ConvertError(
            "an id that --several all makes of a row's id and a number is another row's id: use --several first"
        )
    return spread
