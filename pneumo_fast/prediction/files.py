"""Which files are to be scored, and what each one's id is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pneumo_fast.conversion.csv_table import read_csv, require_columns
from pneumo_fast.conversion.matching import read_identities
from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.conversion.plan import find_files
from pneumo_fast.errors import PredictError
from pneumo_fast.prediction.options import ScoreOptions
from pneumo_fast.run.model_input import Preprocessing


@dataclass(frozen=True, slots=True)
class File:
    """A file to score."""

    folder: str
    """What the path starts from: a folder that was given, the folder of a CSV, or that of the file itself."""
    path: str
    """Relative to the folder, or absolute."""
    id: str | None = None
    """Where a server has told it; the file itself is not there yet."""

    @property
    def full(self) -> str:
        """The path from the working directory, or absolute."""
        return os.path.normpath(os.path.join(self.folder, self.path))  # noqa: PTH118  # ten times as fast

    @property
    def shown(self) -> str:
        """What names it to people: the full path, or that among a server's instances."""
        return self.full if self.id is None else self.path


def find(paths: Sequence[Path], path_column: str, written: Sequence[Path] = ()) -> tuple[list[File], int]:
    """The files to score, each once, in order of their paths; and how often one was given again.

    A file that a CSV names need not be there: it is rejected when it is read.

    Parameters
    ----------
    paths : sequence of Path
        Files, folders, or CSVs with a column of paths.
    written : sequence of Path
        Folders for what is found, whose files are not to be scored.

    Raises
    ------
    PredictError
        If a path is not there, or there is no file at all.
    LabelError
        If a CSV cannot be read or has no such column.
    ConvertError
        If a folder cannot be read.
    """
    found: dict[str, File] = {}
    given = 0
    for path in paths:
        for file in _below(path, path_column, written):
            found.setdefault(os.path.abspath(file.full), file)  # noqa: PTH100  # as above
            given += 1
    if not found:
        where = ", ".join(map(str, paths)) or "an empty list"
        raise PredictError(f"no file is in {where}: give the folder that holds the images")
    return [found[path] for path in sorted(found)], given - len(found)


def _below(path: Path, path_column: str, written: Sequence[Path]) -> Iterator[File]:
    if path.is_dir():
        yield from (File(str(path), name) for name in find_files(path, *written))
    elif not path.exists():
        raise PredictError(f"{path} is not there: give files, folders, or a CSV with a column of paths")
    elif path.suffix.lower() == ".csv":
        table = read_csv(path)
        require_columns(path, table, {path_column: "--path-column"})
        yield from (File(str(path.parent), name) for name in table[path_column] if name)
    else:
        yield File(str(path.parent), path.name)


def identify(files: Sequence[File], options: ScoreOptions, preprocessing: Preprocessing) -> list[str]:
    """The id of each file; ``""`` where it has no such attribute."""
    told = [file.id for file in files if file.id is not None]
    if told:  # by a server, that of each
        return told
    if options.match == "filename":
        names = [file.path.rpartition(os.sep)[2] for file in files]
        return [name.rpartition(".")[0] or name for name in names]
    reading = ConvertConfig(
        images=Path.cwd(),
        labels=Path(),
        match=options.match,
        workers=options.workers,
        max_pixels=preprocessing.max_pixels,
    )
    return [identity.value for identity in read_identities([file.full for file in files], reading)]
