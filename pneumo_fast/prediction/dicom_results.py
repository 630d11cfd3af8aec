"""Makes DICOM objects of what was found in an image: files named by the number of its row, or for a server."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pydicom

from pneumo_fast.dicom_out.source import NO_DICOM, quietly, read_source
from pneumo_fast.errors import PredictError, RejectedImageError
from pneumo_fast.extras import DICOM_OUT
from pneumo_fast.files import write_atomic
from pneumo_fast.folders import mode_for_others
from pneumo_fast.prediction.model import Model
from pneumo_fast.prediction.options import PredictConfig
from pneumo_fast.radiograph.header import BYTES_PER_PIXEL
from pneumo_fast.radiograph.rejection import rejecting

WRITTEN, STORED, NOT_STORED = "written", "stored", "not_stored"
"""States of an image's DICOM objects: written to the folder, stored by the server, or not stored."""
NAMES: Final = ("{:07d}-capture.dcm", "{:07d}-report.dcm")

_log = logging.getLogger(__name__)

Store = Callable[[Sequence[bytes]], None]
"""Sends objects to a server; RejectedImageError where it takes them not, PacsError where it takes none at all."""


class DicomResults:
    """Where DICOM objects go.

    Parameters
    ----------
    folder : Path, optional
    store : callable, optional
        One of the two has to be there.
    threshold : float
        That makes an image positive where the run has no operating threshold.
    key : bytes
        The hash key, which the objects' UIDs are derived with.
    """

    def __init__(self, folder: Path | None, store: Store | None, model: Model, threshold: float, key: bytes) -> None:
        self._folder, self._store, self._model, self._key = folder, store, model, key
        self._threshold, self._scorer = model.threshold(threshold), model.digest(threshold)
        self._most = BYTES_PER_PIXEL * model.input.preprocessing.max_pixels
        if folder:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # its files name patients

    def write(self, number: int, path: Path, scored: dict[str, Any], png: bytes) -> str:
        """Make the objects of one image; where they are and what was mended in its header, or why there are none."""
        from pneumo_fast.dicom_out.objects import Finding, make_capture, make_report  # noqa: PLC0415  # an extra

        finding = Finding(
            probability=float(scored["probability"]),
            calibrated=float(scored["calibrated_probability"]) if "calibrated_probability" in scored else None,
            threshold=self._threshold,
            model=", ".join(sorted({member.identity.arch for member in self._model.members})),
            checksums=tuple(member.identity.sha256 for member in self._model.members),
            scorer=self._scorer,
        )
        try:
            source = read_source(path, self._most)
            with quietly(), rejecting(NO_DICOM, "no object can be made"):
                made = make_capture(source, finding, png, self._key), make_report(source, finding, self._key)
                files = [_encoded(one) for one in made]
        except RejectedImageError as error:
            return error.reason
        return " ".join((*self._place(number, files), *source.notes))

    def _place(self, number: int, files: Sequence[bytes]) -> Iterator[str]:
        if self._folder:
            for name, data in zip(NAMES, files, strict=True):
                write_atomic(self._folder / name.format(number), data, sync=False)
            yield WRITTEN
        if self._store:
            try:
                self._store(files)
            except RejectedImageError:
                yield NOT_STORED
            else:
                yield STORED


def check_results(config: PredictConfig) -> None:
    """Look whether the DICOM objects that are asked for can be made; PredictError if not."""
    folder = config.dicom_out
    if config.makes_dicom and find_spec("highdicom") is None:
        option = "--dicom-out" if folder else "--store"
        raise PredictError(DICOM_OUT.needed_by(option, "highdicom"))
    if folder and folder.exists() and not folder.is_dir():
        raise PredictError(f"{folder} is a file: name a folder with --dicom-out")


def warn_of_identities(folder: Path) -> None:
    """Say loudly what lies in the folder of DICOM objects, and whether other users can look at it."""
    mode = mode_for_others(folder) if folder.exists() else ""
    _log.warning(
        "the DICOM objects in %s carry the identity of their source's PATIENT%s", folder,
        f", and the folder is OPEN TO OTHER USERS (mode {mode})" if mode else "",
    )  # fmt: skip


def _encoded(dataset: pydicom.Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
