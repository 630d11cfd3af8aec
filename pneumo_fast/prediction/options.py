"""Options of ``predict``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Annotated

from pneumo_fast.configuration import Option, check, check_resume, options_of
from pneumo_fast.conversion.options import (
    COUNT_OR_SHARE,
    DIGEST,
    GroupColumn,
    HashKey,
    LabelColumn,
    LabelRule,
    Negative,
    Timeout,
    check_rejects,
)
from pneumo_fast.errors import ConfigError
from pneumo_fast.evaluation.options import BatchSize, Resamples, Thresholds
from pneumo_fast.folder_kinds import is_of_kind
from pneumo_fast.pacs.address import check_address, parse_query
from pneumo_fast.vocabulary import BodyPart, IdSource, Modality, View, WarningKind

Modalities = Annotated[
    tuple[Modality, ...],
    Option("Modality to take; may be repeated.", name="modality", default="the run's", group="Selection"),
]
Views = Annotated[tuple[View, ...], Option("View to take; may be repeated.", name="view", default="the run's")]
BodyParts = Annotated[
    tuple[BodyPart, ...], Option("Body part to take; may be repeated.", name="body-part", default="the run's")
]
Refuse = Annotated[
    tuple[WarningKind, ...],
    Option(
        "Kind of warning to reject an image for; may be repeated.",
        "A warning says that an image lies outside of those that the model was trained on.",
        default="none",
    ),
]


Match = Annotated[IdSource, Option("What an image's id is: its file's name without ending, or an attribute.")]
Workers = Annotated[
    int | None,
    Option(
        "Worker processes that read files.",
        least=1, default="one per core", decides=False, aliases=("--num-workers",),
    ),
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreOptions:
    """How files become rows: what ``predict``, a loaded model and ``serve`` have in common."""

    thresholds: Thresholds = (0.5, 0.25)
    modalities: Modalities = ()
    views: Views = ()
    body_parts: BodyParts = ()
    refuse: Refuse = ()
    match: Match = "filename"
    batch_size: BatchSize = 64
    workers: Workers = None
    timeout_s: Timeout = 10.0

    def __post_init__(self) -> None:
        """Check every option; ConfigError names the first that cannot work."""
        check(self)
        _check_once(self.thresholds)


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictConfig:
    """Which files to score, by which model."""

    # fmt: off
    inputs: Annotated[tuple[Path, ...], Option(
        "Run folders, then what to score: files, folders, or a CSV with a column of paths.",
        "Folders are searched at any depth. The logits of several runs, as of the folds of a cross-validation, are "
        "averaged. Paths in a CSV start from its folder.",
        positional=True, default="required", recorded=DIGEST,
    )] = ()
    out: Annotated[Path, Option("Folder to write.", aliases=("-o",), decides=False)] = Path("predictions")
    thresholds: Thresholds = (0.5, 0.25)
    explain: Annotated[bool, Option("Draw Grad-CAM over every image that is scored.")] = False
    dicom_out: Annotated[Path | None, Option(
        "Folder for a structured report and an overlay of each image, as DICOM.",
        "They carry the identity of their source's patient, and go into its study.",
        default="none written", recorded=DIGEST,
    )] = None
    path_column: Annotated[str, Option("Column of a CSV that names the files.")] = "path"
    dicomweb: Annotated[str | None, Option(
        "Address of a DICOMweb server whose instances to score, in place of paths.",
        "As https://pacs.example/dicom-web. Instances are retrieved while those before are scored, and not kept.",
        default="none", group="PACS", recorded=DIGEST,
    )] = None
    query: Annotated[tuple[str, ...], Option(
        "Query KEYWORD=VALUE that instances match; may be repeated, required with --dicomweb.",
        "A keyword or tag of DICOM that the server searches by, for instance StudyDate=20260101-20260131.",
        default="none", recorded=DIGEST,
    )] = ()
    store: Annotated[bool, Option(
        "Send a structured report and an overlay of each image back to it.",
        "They carry the identity of their source's patient, and go into its study.",
    )] = False
    credentials: Annotated[Path | None, Option(
        "File (JSON) with user and password or token, and with certificates.",
        "Readable by its owner alone. Without one the environment is asked: PNEUMO_FAST_DICOMWEB_USER and so on.",
        default="the environment", decides=False,
    )] = None
    network_timeout_s: Annotated[float, Option(
        "Seconds that the server may be silent.", "A whole answer may take ten times as long.",
        above=0, below=math.inf, unit="seconds", decides=False,
    )] = 30.0
    modalities: Modalities = ()
    views: Views = ()
    body_parts: BodyParts = ()
    refuse: Refuse = ()
    labels: Annotated[Path | None, Option(
        "Label table (CSV), to evaluate the scores.", decides=False, group="Labels"
    )] = None
    match: Match = "filename"
    id_column: Annotated[str, Option("Column with the image id.")] = "patientId"
    label_column: LabelColumn = "Target"
    positive: Annotated[tuple[str, ...], Option("Label that is positive; may be repeated.", default="1")] = ()
    negative: Negative = ()
    ignore: Annotated[tuple[str, ...], Option(
        "Label whose rows are left out; may be repeated.", default="none"
    )] = ()
    group_column: GroupColumn = None
    resamples: Resamples = 2000
    device: Annotated[str, Option("auto, cpu, cuda or cuda:N.", decides=False, group="Work")] = "auto"
    batch_size: BatchSize = 64
    workers: Workers = None
    max_rejects: Annotated[int | float, Option(
        "Rejected files allowed: a count, or a share as 0.01 or 1%.",
        "Files of other kinds than are wanted do not count.",
        least=0, range=COUNT_OR_SHARE, default="100%", decides=False,
    )] = 1.0
    timeout_s: Timeout = 10.0
    resume: Annotated[bool, Option(
        "Resume what was interrupted.", "Starts anew where there is nothing.", decides=False
    )] = False
    overwrite: Annotated[bool, Option("Replace the predictions in OUT.", decides=False)] = False
    keep_ids: Annotated[bool, Option("Write ids and paths as they are, not pseudonyms.", group="Privacy")] = False
    hash_key: HashKey = None
    # fmt: on

    def __post_init__(self) -> None:
        """Check every option, and which go together; ConfigError names the first that cannot work."""
        check(self)
        _ = self.label_rule
        if not self.runs:
            found = f"{self.inputs[0]} is not a run folder" if self.inputs else "nothing is given"
            raise ConfigError(f"expected a run folder first, then what to score: {found}")
        self._check_source()
        if self.labels is None:
            columns = "id_column", "label_column", "positive", "negative", "ignore", "group_column"
            for name in (name for name in columns if getattr(self, name) != options_of(PredictConfig)[name].default):
                raise ConfigError(f"{name.replace('_', '-')} without labels: give --labels as well")
        _check_once(self.runs)
        _ = self.scoring
        check_resume(resume=self.resume, overwrite=self.overwrite)
        check_rejects(self.max_rejects)

    def _check_source(self) -> None:
        """Refuse a prediction that has nothing to score, or two kinds of it."""
        if self.dicomweb is None:
            names = {"query": self.query, "store": self.store, "credentials": self.credentials}
            if given := [name for name, value in names.items() if value]:
                raise ConfigError(f"{given[0]} is for a server: name one with --dicomweb")
            if not self.paths:
                raise ConfigError(f"nothing to score is given after {self.runs[-1]}: name files, folders or a CSV")
            return
        if self.paths:
            raise ConfigError(f"{self.paths[0]} and --dicomweb exclude each other: give paths or a server")
        check_address(self.dicomweb)
        if not parse_query(self.query):
            raise ConfigError("dicomweb without a query: say what to score, for instance --query StudyDate=20260101")

    @property
    def scoring(self) -> ScoreOptions:
        """Those of how files become rows."""
        return ScoreOptions(**{name: getattr(self, name) for name in options_of(ScoreOptions)})

    @property
    def makes_dicom(self) -> bool:
        """Whether DICOM objects are made of what is found."""
        return self.store or self.dicom_out is not None

    @property
    def runs(self) -> tuple[Path, ...]:
        """The run folders: what is given before the first path that is none."""
        return tuple(takewhile(is_run, self.inputs))

    @property
    def paths(self) -> tuple[Path, ...]:
        """What is to be scored."""
        return self.inputs[len(self.runs) :]

    @property
    def label_rule(self) -> LabelRule:
        """Which cells of the label column mean what."""
        return LabelRule(column=self.label_column, positive=self.positive, negative=self.negative, ignore=self.ignore)


def _check_once(values: Sequence[object]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise ConfigError(f"{value} is given more than once: give each run and threshold once")


def is_run(path: Path) -> bool:
    """Whether a path is a run folder, or that of a cross-validation."""
    return is_of_kind(path, "run")
