"""Which file belongs to which row of the label table: by its name, its path, or an attribute of its header."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final

import pandas as pd

from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.conversion.supervisor import start_child
from pneumo_fast.dataset.format import REJECT_COLUMNS
from pneumo_fast.errors import ConvertError
from pneumo_fast.radiograph.header import BYTES_PER_PIXEL
from pneumo_fast.radiograph.identity import Identity, read_identity
from pneumo_fast.radiograph.selection import Selection
from pneumo_fast.resources import usable_cores

FEW_FILES: Final = 256
"""As many are read sooner here than by processes that have to be started first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Matches:
    """The files of the rows."""

    images: pd.DataFrame
    """The rows of the label table that have a file, with ``path``; with several files, as the rule has it."""
    others: pd.DataFrame
    """``image_id`` and ``path`` of files to take, the first that can be read, where the row's own cannot."""
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
        If an id made for one of several files of a row is another row's, or a process that reads headers ends.
    """
    if "path" in images:
        named = pd.concat([images, left_out])[["image_id", "path"]]
        there = set(files)
        found = named[[path in there for path in named["path"].tolist()]]
        images = images.drop(columns="path")
    elif config.match == "filename":
        found = _by_name(files, {*images["image_id"].tolist(), *left_out["image_id"].tolist()})
    else:
        found = _by_attribute(files, config)
    found = found.reindex(columns=["image_id", *REJECT_COLUMNS], fill_value="")
    of_rows = found[found["image_id"].isin(images["image_id"])]
    of_others = found["path"][found["image_id"].isin(left_out["image_id"])]
    claimed = {*of_rows["path"].tolist(), *of_others.tolist()}
    wanted = of_rows.loc[of_rows["reason"] == "", ["image_id", "path"]]
    unwanted = of_rows[of_rows["reason"] != ""].sort_values("path")[list(REJECT_COLUMNS)]
    taken, others, ambiguous = _choose(wanted, config)
    return Matches(
        images=_with_paths(images, taken),
        others=others,
        rejects=(*(dict(zip(REJECT_COLUMNS, row, strict=True)) for row in unwanted.to_numpy()), *ambiguous),
        unmatched=tuple(images["image_id"][~images["image_id"].isin(of_rows["image_id"])]),
        files_without_row=tuple(path for path in files if path not in claimed),
    )


def _by_name(files: list[str], ids: set[str]) -> pd.DataFrame:
    """The id that each file's name says, with or without its ending."""
    names = [path.rpartition(os.sep)[2] for path in files]
    said = [name if name in ids else name.rpartition(".")[0] or name for name in names]
    return pd.DataFrame({"image_id": said, "path": files}, dtype=object)  # paths need not be Unicode, as str has to be


def _by_attribute(files: list[str], config: ConvertConfig) -> pd.DataFrame:
    """The id that each file's header says, by series and instance number; why a file is not wanted, or ``""``."""
    identities = [one for one in read_identities(files, config) if one.value]
    identities.sort(key=lambda each: (each.series, each.instance, each.path))
    rows = [(one.value, one.path, *(one.unwanted or ("", ""))) for one in identities]
    return pd.DataFrame(rows, columns=["image_id", *REJECT_COLUMNS], dtype=object)


def _choose(wanted: pd.DataFrame, config: ConvertConfig) -> tuple[pd.DataFrame, pd.DataFrame, list[dict[str, str]]]:
    """Apply the rule for several files of a row: those taken, those that may take their place, and rejections."""
    ids = wanted["image_id"]
    if config.several == "all":
        return wanted, wanted[:0], []
    if config.several == "first":
        later = ids.duplicated()
        return wanted[~later], wanted[later], []
    several = ids.duplicated(keep=False)
    ambiguous = [
        {"path": path, "reason": "ambiguous", "detail": f"{len(paths)} files match one row: see --several"}
        for _, paths in wanted["path"][several].groupby(ids[several], sort=False)
        for path in paths
    ]
    return wanted[~several], wanted[:0], ambiguous


def read_identities(files: list[str], config: ConvertConfig) -> Iterator[Identity]:
    """Read the headers of files, in their order; many of them by several processes."""
    selection = Selection(modalities=config.modalities, views=config.views, body_parts=config.body_parts)
    most = BYTES_PER_PIXEL * config.max_pixels
    read = partial(read_identity, config.images, attribute=config.match, selection=selection, max_bytes=most)
    if len(files) <= FEW_FILES:
        yield from map(read, files)
        return
    try:
        yield from _by_processes(read, files, config.workers or usable_cores())
    except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
        raise ConvertError(
            "a process that read headers ended unexpectedly: is there memory enough? See pneumo-fast doctor"
        ) from error


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


def _with_paths(images: pd.DataFrame, taken: pd.DataFrame) -> pd.DataFrame:
    """The rows with their paths; each file of several becomes a row, whose id has its number, in one group."""
    rows = images.merge(taken, on="image_id")
    ids = rows["image_id"]
    several = ids.duplicated(keep=False)
    if not several.any():
        return rows
    number = rows.groupby("image_id", sort=False).cumcount() + 1
    rows["group"] = rows["group"].where(~several | (rows["group"] != ""), ids)
    rows["image_id"] = ids.where(~several, ids + "-" + number.astype(str))
    if rows["image_id"].duplicated().any():
        raise ConvertError(
            "an id that --several all makes of a row's id and a number is another row's id: use --several first"
        )
    return rows
