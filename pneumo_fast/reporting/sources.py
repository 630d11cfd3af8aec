"""Reads what a run folder holds for its report, and says what is missing there or does not belong together."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numpy as np
import pandas as pd

from pneumo_fast.dataset.format import MANIFEST, Manifest
from pneumo_fast.errors import DatasetError, RunError
from pneumo_fast.evaluation.folders import evaluations_of, find_evaluation
from pneumo_fast.evaluation.results import MetricsFile, read_metrics
from pneumo_fast.explanation.results import ExplanationFile, read_explanation
from pneumo_fast.files import joint_checksum, open_regular, read_regular
from pneumo_fast.metrics.intervals import Labels
from pneumo_fast.metrics.scored import Probabilities, Scores, call_positive
from pneumo_fast.records import LARGEST_BYTES, Fault, build, read
from pneumo_fast.reporting.remarks import Remark, check_checkpoint, check_images, remark_with_command
from pneumo_fast.run.folder import RunDescription, read_config
from pneumo_fast.run.layout import EXPLAIN, EXPLANATION, HISTORY, METRICS, PREDICTIONS, fold_folder
from pneumo_fast.training.options import TrainConfig

_FOLDERS: Final = re.compile(r"(?<![\w./])/(?:[^\s/'\"]+/)*(?=[^\s/])")
"""The folders of a full path within a text."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scored:
    """What ``predictions.csv`` says of the images."""

    labels: Labels
    """int64, shape (n,): 0 or 1."""
    logits: Scores
    """float32, shape (n,)."""
    probabilities: Probabilities
    """float64, shape (n,), as the file has them to the last digit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Epoch:
    """A line of ``history.jsonl``; what an earlier release did not record is None."""

    epoch: int
    """From 1."""
    train_loss: float | None = None
    val_loss: float | None = None
    val_auroc: float | None = None
    val_ap: float | None = None
    val_accuracy: float | None = None
    lr: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitFacts:
    """How a dataset was divided: ``split`` of its manifest, as far as it is shown."""

    seed: int | None = None
    by: str = ""
    group_source: str = ""
    groups: int | None = None
    ungrouped_images: int | None = None
    leaks: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedDataset:
    """A dataset folder, by its manifest."""

    name: str
    manifest: Manifest
    split: SplitFacts
    identity: str
    """SHA-256 of the manifest."""
    written: str
    """Date of the manifest's file, year first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFiles:
    """What a report is made of; no text in it names a folder of the machine."""

    run: Path
    folder: Path
    """Of the evaluation that is shown."""
    others: tuple[str, ...]
    """Names of the run's other evaluations."""
    evaluated: str
    """Date of ``metrics.json``, year first."""
    metrics: MetricsFile
    scored: Scored | None
    """The predictions; None where they are missing or not of these metrics."""
    description: RunDescription | None
    training: TrainConfig | None
    """The options in the description."""
    training_split: SplitFacts | None
    """How the data trained on were divided."""
    history: tuple[Epoch, ...]
    """Of a cross-validation none: each fold has its own."""
    explanation: ExplanationFile | None
    sources: tuple[JudgedDataset, ...]
    """The datasets that were judged on, where they are still there."""
    remarks: tuple[Remark, ...]

    @property
    def name(self) -> str:
        """Name of the run folder."""
        return self.run.resolve().name

    def remarks_about(self, *about: str) -> list[str]:
        """What has to be said of some of the files."""
        return [remark.on_page or remark.sentence for remark in self.remarks if remark.about in about]


def read_run(run: Path, evaluation: str | None = None) -> RunFiles:
    """Read a run folder; only an evaluation's ``metrics.json`` has to be there.

    Parameters
    ----------
    evaluation : str, optional
        Name of the evaluation's folder; by default the run's own.

    Raises
    ------
    RunError
        If the run was not evaluated, or the file is damaged or of another version.
    """
    folder = find_evaluation(run, evaluation)
    metrics = read_metrics(folder)
    remarks: list[Remark] = []
    description, training, training_split = _config(fold_folder(run, 1) if metrics.run.folds else run, remarks)
    if training is not None and metrics.run.folds:
        training = replace(training, fold=None)
    explanation = _explanation(run, remarks)
    remarks += check_checkpoint(run, metrics, explanation) + check_images(run, metrics, explanation)
    return RunFiles(
        run=run,
        folder=folder,
        others=tuple(other.name for other in evaluations_of(run) if other != folder),
        evaluated=_date_of(folder / METRICS),
        metrics=without_folders(metrics),
        scored=_scored(folder, metrics, remarks),
        description=without_folders(description),
        training=without_folders(training),
        training_split=training_split,
        history=() if metrics.run.folds else _history(run, remarks),
        explanation=without_folders(explanation),
        sources=_sources(run, metrics, training, remarks),
        remarks=tuple(remarks),
    )


def without_folders(content: T) -> T:
    """A record with the last part alone of each path in its texts: a report does not tell of a machine."""
    return cast("T", _without_folders(content))


def _without_folders(content: Any) -> Any:
    if is_dataclass(content) and not isinstance(content, type):
        return replace(content, **{f.name: _without_folders(getattr(content, f.name)) for f in fields(content)})
    if isinstance(content, dict):
        return {key: _without_folders(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(map(_without_folders, content))
    if isinstance(content, Path):
        return Path(_without_folders(str(content)))
    if not isinstance(content, str):
        return content
    written = content.encode("utf-8", "replace").decode()  # a file name may hold bytes that are no text
    return Path(written).name if written.startswith("/") else _FOLDERS.sub("", written)


def _config(run: Path, remarks: list[Remark]) -> tuple[RunDescription | None, TrainConfig | None, SplitFacts | None]:
    try:
        description = read_config(run)
        split = None if description.dataset is None else build(description.dataset.split, SplitFacts)
        return description, build(description.config, TrainConfig), split
    except (RunError, Fault):
        sentence = "The run's config.json is missing or damaged: options, versions and the training data are not known."
        remarks.append(Remark("config", sentence))
        return None, None, None


def _history(run: Path, remarks: list[Remark]) -> tuple[Epoch, ...]:
    """Epochs that are whole; one that is cut off ends them."""
    try:
        lines = read_regular(run / HISTORY, LARGEST_BYTES).splitlines()
        history = tuple(read(line, Epoch, finite=False) for line in lines)
    except (OSError, Fault):
        history = ()
    if not history:
        remarks.append(Remark("history", f"The run's {HISTORY} is missing, empty or damaged."))
    return history


def _scored(folder: Path, metrics: MetricsFile, remarks: list[Remark]) -> Scored | None:
    """Labels, logits and probabilities, if they give the counts of the metrics."""
    types = {"label": np.int64, "logit": np.float32, "probability": np.float64}
    try:
        # as text first: pandas' own reader of numbers may miss the last bit, and with it the side of a threshold
        with open_regular(folder / PREDICTIONS) as file:
            table = pd.read_csv(file, usecols=list(types), dtype=str).astype(types)
        labels, logits, probabilities = (table[name].to_numpy() for name in types)
        scored = Scored(labels=labels, logits=logits, probabilities=probabilities)
        if _agrees(scored, metrics):
            return scored
        problem = "does not belong to metrics.json"
    except FileNotFoundError:
        problem = "is missing"
    except (OSError, ValueError, OverflowError) as error:
        problem = f"cannot be read ({type(error).__name__})"
    needed = "curves and the threshold slider need it; run pneumo-fast evaluate again."
    remarks.append(Remark("predictions", f"{folder.name}/{PREDICTIONS} {problem}: {needed}"))
    return None


def _agrees(scored: Scored, metrics: MetricsFile) -> bool:
    """Whether predictions give the counts that the metrics have."""
    positive = scored.labels == 1
    calls = [call_positive(scored.probabilities, entry.threshold) for entry in metrics.thresholds]
    found = [
        (len(positive), int(positive.sum())),
        *((int((called & positive).sum()), int((called & ~positive).sum())) for called in calls),
    ]
    return found == [(metrics.n, metrics.positives), *((e.confusion.tp, e.confusion.fp) for e in metrics.thresholds)]


def _explanation(run: Path, remarks: list[Remark]) -> ExplanationFile | None:
    try:
        explanation = read_explanation(run)
    except RunError as error:
        what = str(error).removeprefix(f"{run / EXPLAIN / EXPLANATION} ")
        before, after = f"{EXPLAIN}/{EXPLANATION} {what}, and nothing is shown of it: run ", " again."
    else:
        if explanation is not None:
            return explanation
        before, after = "No heat maps were drawn yet: run ", ", then the report again."
    remarks.append(remark_with_command("explanation", before, ["explain", run], after))
    return None


def _sources(
    run: Path, metrics: MetricsFile, training: TrainConfig | None, remarks: list[Remark]
) -> tuple[JudgedDataset, ...]:
    """The datasets judged on, if they are there and unchanged."""
    paths = [Path(metrics.dataset.path)]
    trained_on = list(training.datasets) if training is not None and metrics.dataset.trained_on else []
    if len(trained_on) > 1 or (trained_on and not (_place(paths[0], run) / MANIFEST).exists()):
        paths = trained_on  # several as one have no path of their own
    names = " and ".join(path.name for path in paths)
    try:
        sources = tuple(_source(path, run) for path in paths)
    except (OSError, ValueError, DatasetError):
        problem = "is not where it was: duplicates, rejected files and preprocessing are not shown."
    else:
        identities = [source.identity for source in sources]
        joint = identities[0] if len(sources) == 1 else joint_checksum(identities)
        if joint == metrics.dataset.identity:
            return sources
        problem = "is no longer the one that was evaluated on: nothing is taken from it."
    remarks.append(Remark("dataset", f"Dataset {names} {problem}"))
    return ()


def _place(path: Path, run: Path) -> Path:
    """Where a dataset is: where it was, or else beside the run."""
    return path if (path / MANIFEST).exists() else run.resolve().parent / path.name


def _source(path: Path, run: Path) -> JudgedDataset:
    folder = _place(path, run)
    content = read_regular(folder / MANIFEST, LARGEST_BYTES)
    manifest = Manifest.from_json(content)
    build(manifest.input, dict[str, int])
    return JudgedDataset(
        name=folder.resolve().name,
        manifest=manifest,
        split=build(manifest.split, SplitFacts),
        identity=hashlib.sha256(content).hexdigest(),
        written=_date_of(folder / MANIFEST),
    )


def _date_of(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, timezone.utc).date().isoformat()
