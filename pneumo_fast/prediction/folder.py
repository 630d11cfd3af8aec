"""The folder that ``predict`` writes, and who may write into it.

::

    OUT/predictions.csv     one row per file, in order of the paths
    OUT/predictions.json    the model, the options and the counts; written last
    OUT/explain/*.png       overlays, named by the row's number from 0
    OUT/.predict/           while it is not finished: the parts that are done, and what decides them; of a server also
                            its ``instances.json``, and in ``retrieved`` the files that are just being read
"""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pneumo_fast.configuration import settings
from pneumo_fast.errors import PredictError
from pneumo_fast.files import sweep_partials, write_atomic
from pneumo_fast.folders import LOCK
from pneumo_fast.prediction.files import File
from pneumo_fast.prediction.model import Model
from pneumo_fast.prediction.options import PredictConfig
from pneumo_fast.records import Fault, build, is_of, parse_file

FORMAT: Final = "pneumo-fast predictions"
FORMAT_VERSION: Final = 1
TABLE: Final = "predictions.csv"
SUMMARY: Final = "predictions.json"
OVERLAYS: Final = "explain"
WORK: Final = ".predict"
READING: Final = "reading"
"""Folder in it that the worker processes write into."""
RETRIEVED: Final = "retrieved"
"""Folder in it for the files of a server; these alone name patients."""
INSTANCES: Final = "instances.json"
"""File in it with what a server has said of its instances, for its owner alone."""
ARGUMENTS: Final = "arguments.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """What decides every row."""

    options: dict[str, Any]
    runs: list[str]
    """SHA-256 of each run's checkpoint."""
    calibrations: str
    """Digest of what was fitted to them."""
    files: str
    """Keyed hash of the paths, and of the server that they are of and the query."""

    @classmethod
    def of(cls, config: PredictConfig, model: Model, files: list[File], key: bytes) -> Arguments:
        """Work them out."""
        paths, outputs = (hmac.new(key, digestmod=hashlib.sha256) for _ in range(2))
        for name in (*(file.shown for file in files), config.dicomweb or "", *config.query):
            paths.update(name.encode("utf-8", "surrogateescape") + b"\0")
        outputs.update(str(config.dicom_out).encode("utf-8", "surrogateescape"))
        return cls(
            options=json.loads(json.dumps({**settings(config), "dicom_out": outputs.hexdigest()})),  # as read back
            runs=[member.identity.sha256 for member in model.members],
            calibrations=hashlib.sha256(repr([member.operating for member in model.members]).encode()).hexdigest(),
            files=paths.hexdigest(),
        )

    def differences(self, other: Arguments) -> list[str]:
        """What differs, in words."""
        names = sorted(self.options.keys() | other.options.keys())
        found = [name.replace("_", "-") for name in names if self.options.get(name) != other.options.get(name)]
        found += ["the runs"] if (self.runs, self.calibrations) != (other.runs, other.calibrations) else []
        return found + (["the files, the query or the hash key"] if self.files != other.files else [])


def claim(config: PredictConfig, arguments: Arguments, instances: str = "") -> None:
    """Make the folder ready to be written; other people's files in it are left alone.

    Parameters
    ----------
    instances : str
        What is to be kept of a server's instances.

    Raises
    ------
    PredictError
        If it is taken, or holds predictions of other arguments that cannot be resumed with these; or if they are not
        resumed, and the folder for DICOM objects, whose names begin with 0 each time, holds files.
    """
    out, work = config.out, config.out / WORK
    finished, begun = is_of(out / SUMMARY, FORMAT), work.is_dir()
    if (finished or begun) and not (config.overwrite or config.resume):
        state = "predictions" if finished else "unfinished predictions (--resume resumes them)"
        raise PredictError(f"{out} holds {state}: give --overwrite to replace them, or name another folder with --out")
    if not (finished or begun) and _holds_files(out):
        raise PredictError(f"{out} holds files other than predictions: name an empty or a new folder with --out")
    if config.resume and (work / ARGUMENTS).exists():
        _check_resumed(work / ARGUMENTS, arguments, out)
        sweep_partials(work)
        return
    if finished and config.resume:
        raise PredictError(f"{out} is finished: there is nothing to resume; --overwrite replaces it")
    if config.dicom_out and _holds_files(config.dicom_out):
        raise PredictError(f"{config.dicom_out} holds files: name an empty or a new folder with --dicom-out")
    work.mkdir(exist_ok=True)  # first, or a kill would leave files that are nobody's
    _remove(out)
    if instances:
        write_atomic(work / INSTANCES, instances, mode=0o600)
    write_atomic(work / ARGUMENTS, json.dumps(asdict(arguments)))


def _check_resumed(path: Path, arguments: Arguments, out: Path) -> None:
    try:
        before = build(parse_file(path), Arguments)
    except (OSError, Fault) as error:
        raise PredictError(f"{out} cannot be resumed ({error}): give --overwrite to replace it") from error
    if different := arguments.differences(before):
        raise PredictError(
            f"{out} was begun with other arguments; what differs: {', '.join(different)}. Resume with the same, or "
            "give --overwrite"
        )


def _holds_files(folder: Path) -> bool:
    return folder.is_dir() and any(path.name != LOCK for path in folder.iterdir())


def _remove(out: Path) -> None:
    """Remove what ``predict`` has written and nothing else."""
    for path in (out / SUMMARY, out / TABLE, *(out / OVERLAYS).glob("[0-9]*.png")):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # it is not there, or holds other people's files
        (out / OVERLAYS).rmdir()
    for path in (out / WORK).iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
