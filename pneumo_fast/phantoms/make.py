"""Synthetic chest radiographs in real DICOM encoding, laid out like the RSNA challenge, for the demo and the tests.

A patient keeps the same anatomy in all images. Whatever else differs between images besides the opacities (mean,
contrast, view, noise, position, size, a line, a pacemaker, a tilt) is drawn without regard to the label, and mean and
contrast are set last, so that neither tells a positive from a negative: only the opacities do.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

import numpy as np

from pneumo_fast.errors import ConfigError
from pneumo_fast.files import write_atomic
from pneumo_fast.phantoms.dicom_file import write_dicom
from pneumo_fast.phantoms.options import PhantomConfig
from pneumo_fast.phantoms.thorax import NORMAL, NOT_NORMAL, NOT_NORMAL_SHARE, OPACITY, Box, draw
from pneumo_fast.progress import OnProgress, silent

IMAGES_FOLDER: Final = "stage_2_train_images"


@dataclass(frozen=True, kw_only=True, slots=True)
class PhantomSet:
    """The files that :func:`make_phantoms` wrote."""

    images: Path
    """Folder of the DICOM files."""
    labels: Path
    """Label table (CSV): patientId, x, y, width, height, Target."""
    class_info: Path
    """Table of the three classes (CSV): patientId, class."""
    mappings: Path
    """Mapping file (JSON) from image to patient."""


class Case(NamedTuple):
    """One image to be made."""

    number: int
    image_id: str
    patient: int
    visit: int
    finding: str


def make_phantoms(config: PhantomConfig, on_progress: OnProgress = silent) -> PhantomSet:
    """Write synthetic radiographs and their tables into ``config.out``.

    Each image depends on the configuration and on its own number only, so the bytes are the same on every call. A file
    is JPEG Baseline of 8 bits, MONOCHROME2, ``size_px`` x ``size_px`` pixels; boxes are in pixels of it.

    Parameters
    ----------
    config : PhantomConfig
    on_progress : callable, optional
        Called as (images made, images) after each image.

    Raises
    ------
    ConfigError
        If the image folder cannot be made, or holds DICOM files of another set.
    OSError
        If a file cannot be written.
    """
    files = PhantomSet(
        images=config.out / IMAGES_FOLDER,
        labels=config.out / "stage_2_train_labels.csv",
        class_info=config.out / "stage_2_detailed_class_info.csv",
        mappings=config.out / "mappings.json",
    )
    cases = plan_cases(config)
    _claim(files, {f"{case.image_id}.dcm" for case in cases})
    boxes: dict[str, list[Box]] = {}
    for done, case in enumerate(cases, start=1):
        boxes[case.image_id] = _make_image(files.images, config, case)
        on_progress(done, len(cases))
    _write_tables(files, cases, boxes)
    return files


def _claim(files: PhantomSet, expected: set[str]) -> None:
    """Make the folder, and remove older tables, so that tables are there only when all their images are."""
    try:
        files.images.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{files.images} cannot be made: {error.strerror}; name another folder") from error
    strangers = sorted({path.name for path in files.images.glob("*.dcm")} - expected)
    if strangers:
        raise ConfigError(
            f"{files.images} holds {len(strangers)} DICOM files of another set, for instance {strangers[0]}: "
            "name another folder or remove them"
        )
    for table in (files.labels, files.class_info, files.mappings):
        table.unlink(missing_ok=True)


def plan_cases(config: PhantomConfig) -> list[Case]:
    """Lay down ids, patients and classes, sorted by id like RSNA's tables."""
    rng = np.random.default_rng([config.seed, 0])
    positives = round(config.count * config.positive_fraction)
    negatives = config.count - positives
    not_normal = round(negatives * NOT_NORMAL_SHARE)
    findings = np.repeat([OPACITY, NOT_NORMAL, NORMAL], [positives, not_normal, negatives - not_normal])
    rng.shuffle(findings)
    visits = rng.integers(1, config.images_per_patient, size=config.count, endpoint=True)
    patients = np.repeat(np.arange(config.count), visits)[: config.count]
    starts = np.searchsorted(patients, patients)
    cases = [
        Case(index, _image_id(config.seed, index), int(patient) + 1, index - int(start), str(finding))
        for index, (patient, start, finding) in enumerate(zip(patients, starts, findings, strict=True))
    ]
    return sorted(cases, key=lambda case: case.image_id)


def _image_id(seed: int, index: int) -> str:
    return str(UUID(bytes=sha256(f"pneumo_fast phantom {seed} {index}".encode()).digest()[:16], version=4))


def _make_image(folder: Path, config: PhantomConfig, case: Case) -> list[Box]:
    patient = np.random.default_rng([config.seed, 1, case.patient])
    sex, age = patient.choice(["F", "M"]), patient.integers(18, 91)
    rng = np.random.default_rng([config.seed, 2, case.number])
    view = str(rng.choice(["AP", "PA"]))
    pixels, boxes = draw(patient, rng, config.size_px, finding=case.finding, view=view)
    write_dicom(
        folder / f"{case.image_id}.dcm",
        pixels,
        PatientName="SYNTHETIC^PHANTOM",
        PatientID=f"SYNTHETIC-{case.patient:08d}",
        PatientSex=str(sex),
        PatientAge=f"{age:03d}Y",
        ViewPosition=view,
        SeriesDescription=f"synthetic phantom, view: {view}",
        PixelSpacing=[round(360 / config.size_px, 6)] * 2,
    )
    return boxes


def _write_tables(files: PhantomSet, cases: list[Case], boxes: dict[str, list[Box]]) -> None:
    labels: list[tuple[object, ...]] = []
    classes: list[tuple[object, ...]] = []
    for case in cases:
        found = boxes[case.image_id]
        labels += [(case.image_id, *map(float, box), 1) for box in found] or [(case.image_id, "", "", "", "", 0)]
        classes += [(case.image_id, case.finding)] * max(len(found), 1)
    write_atomic(files.labels, _csv(("patientId", "x", "y", "width", "height", "Target"), labels))
    write_atomic(files.class_info, _csv(("patientId", "class"), classes))
    mappings = [
        {"subset_img_id": case.image_id, "img_id": f"{case.patient:08d}_{case.visit:03d}.png"} for case in cases
    ]
    write_atomic(files.mappings, json.dumps(mappings, indent=0) + "\n")


def _csv(header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()
