"""Reads what a run folder holds for its report, and says what is missing there or does not belong together."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from pneumo_fast.dataset.format import Manifest
from pneumo_fast.errors import DatasetError, RunError
from pneumo_fast.metrics.intervals import Labels
from pneumo_fast.metrics.scored import Probabilities, Scores, call_positive
from pneumo_fast.run.folder import read_config
from pneumo_fast.run.layout import (
    BEST,
    EVAL,
    EXPLAIN,
    EXPLANATION,
    EXPLANATION_FORMAT,
    EXPLANATION_VERSION,
    HISTORY,
    METRICS,
    METRICS_FORMAT,
    METRICS_VERSION,
    PREDICTIONS,
)

METRICS_PATH: Final = f"{EVAL}/{METRICS}"
KEYS: Final = frozenset({
    "created_by", "split", "selected_on_this_data", "n", "positives", "negatives", "prevalence", "ranking",
    "probability", "thresholds", "always_negative", "view_only", "parts", "calibration", "chosen_thresholds",
    "decision_curve", "prevalence_stated", "subgroups", "tradeoffs", "notes", "intervals", "run", "dataset", "device",
})  # fmt: skip
"""Keys of ``metrics.json`` that the report reads."""

_FOLDERS: Final = re.compile(r"(?<![\w./])/(?:[^\s/'\"]+/)*(?=[^\s/])")
"""The folders of a full path within a text."""

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Remark:
    """Something that is missing, or that does not belong to the rest."""

    about: str
    """``checkpoint``, ``predictions``, ``config``, ``history``, ``dataset`` or ``explanation``."""
    sentence: str
    """What, and what to do about it."""


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
class Source:
    """A dataset folder, by its manifest."""

    name: str
    """Name of the folder."""
    manifest: Manifest
    identity: str
    """SHA-256 of the manifest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFiles:
    """What a report is made of."""

    run: Path
    metrics: Json
    """Content of ``metrics.json``."""
    scored: Scored | None
    """The predictions; None where they are missing or not of these metrics."""
    config: Json
    """Content of ``config.json``; empty where it is missing."""
    history: tuple[Json, ...]
    """Lines of ``history.jsonl``."""
    explanation: Json | None
    """Content of ``explain.json``."""
    sources: tuple[Source, ...]
    """The datasets that were judged on, where they are still there."""
    remarks: tuple[Remark, ...]
    """What is missing or does not belong together."""

    @property
    def name(self) -> str:
        """Name of the run folder."""
        return self.run.resolve().name

    def remarks_about(self, *about: str) -> list[str]:
        """What has to be said of some of the files."""
        return [remark.sentence for remark in self.remarks if remark.about in about]


def read_run(run: Path) -> RunFiles:
    """Read a run folder; only ``metrics.json`` has to be there.

    Raises
    ------
    RunError
        If the run was not evaluated, or the file is damaged or of another version.
    """
    metrics = read_metrics(run)
    remarks: list[Remark] = []
    config = _config(run, remarks)
    explanation = _explanation(run, remarks)
    remarks += _check_checkpoint(run, metrics, explanation)
    return RunFiles(
        run=run,
        metrics=without_folders(metrics),
        scored=_scored(run, metrics, remarks),
        config=without_folders(config),
        history=_history(run, remarks),
        explanation=without_folders(explanation),
        sources=_sources(run, metrics, config, remarks),
        remarks=tuple(remarks),
    )


def without_folders(content: Any) -> Any:
    """JSON values with the last part alone of each path in their texts: a report does not tell of a machine."""
    if isinstance(content, dict):
        return {key: without_folders(value) for key, value in content.items()}
    if isinstance(content, list):
        return [without_folders(value) for value in content]
    if not isinstance(content, str):
        return content
    return Path(content).name if content.startswith("/") else _FOLDERS.sub("", content)


def read_metrics(run: Path) -> Json:
    """Read ``metrics.json``.

    Raises
    ------
    RunError
        If it is missing, damaged or of another version.
    """
    path = run / METRICS_PATH
    again = f"run pneumo-fast evaluate {run}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        where = f"run {run} was not evaluated (no {METRICS_PATH})" if run.is_dir() else f"there is no run {run}"
        raise RunError(f"{where}: {again if run.is_dir() else 'name a run folder'}") from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}): {again}") from error
    if not isinstance(content, dict) or content.get("format") != METRICS_FORMAT:
        raise RunError(f"{path} holds no metrics ({METRICS_FORMAT!r} expected): {again}")
    if content.get("format_version") != METRICS_VERSION:
        raise RunError(
            f"{path} has format version {content.get('format_version')!r}, this release reads {METRICS_VERSION}: "
            f"{again}"
        )
    if missing := sorted(KEYS - content.keys()):
        raise RunError(f"{path} is not complete (no {', '.join(missing)}): {again}")
    return content


def _config(run: Path, remarks: list[Remark]) -> Json:
    try:
        return asdict(read_config(run))
    except RunError:
        sentence = "The run's config.json is missing or damaged: options, versions and the training data are not known."
        remarks.append(Remark(about="config", sentence=sentence))
        return {}


def _history(run: Path, remarks: list[Remark]) -> tuple[Json, ...]:
    """Epochs that are whole; one that is cut off ends them."""
    try:
        lines = (run / HISTORY).read_text(encoding="utf-8").splitlines()
        history = tuple(json.loads(line) for line in lines)
        if not all(isinstance(record, dict) and "epoch" in record for record in history):
            raise ValueError("a line is no epoch")
    except (OSError, ValueError):
        history = ()
    if not history:
        remarks.append(Remark(about="history", sentence=f"The run's {HISTORY} is missing, empty or damaged."))
    return history


def _scored(run: Path, metrics: Json, remarks: list[Remark]) -> Scored | None:
    """Labels, logits and probabilities, if they give the counts of the metrics."""
    types = {"label": np.int64, "logit": np.float32, "probability": np.float64}
    try:
        # as text first: pandas' own reader of numbers may miss the last bit, and with it the side of a threshold
        table = pd.read_csv(run / EVAL / PREDICTIONS, usecols=list(types), dtype=str).astype(types)
        labels, logits, probabilities = (table[name].to_numpy() for name in types)
        scored = Scored(labels=labels, logits=logits, probabilities=probabilities)
        problem = None if _agrees(scored, metrics) else "does not belong to metrics.json"
    except FileNotFoundError:
        problem = "is missing"
    except (OSError, ValueError) as error:
        problem = f"cannot be read ({type(error).__name__})"
    if problem is None:
        return scored
    sentence = (
        f"{EVAL}/{PREDICTIONS} {problem}: curves and the threshold slider need it; run pneumo-fast evaluate again."
    )
    remarks.append(Remark(about="predictions", sentence=sentence))
    return None


def _agrees(scored: Scored, metrics: Json) -> bool:
    """Whether predictions give the counts that the metrics have."""
    ill = scored.labels == 1
    if (len(ill), int(ill.sum())) != (metrics["n"], metrics["positives"]):
        return False
    for entry in metrics["thresholds"]:
        called = call_positive(scored.probabilities, entry["threshold"])
        found = int((called & ill).sum())
        if (found, int(called.sum()) - found) != (entry["confusion"]["tp"], entry["confusion"]["fp"]):
            return False
    return True


def _explanation(run: Path, remarks: list[Remark]) -> Json | None:
    path = run / EXPLAIN / EXPLANATION
    again = f"run pneumo-fast explain {run.name}"
    try:
        content: Json | None = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        sentence = f"Where the model looked was not drawn yet: {again}, then the report again."
        remarks.append(Remark(about="explanation", sentence=sentence))
        return None
    except (OSError, ValueError):
        content = None
    found = (content.get("format"), content.get("format_version")) if isinstance(content, dict) else (None, None)
    if found == (EXPLANATION_FORMAT, EXPLANATION_VERSION):
        return content
    what = f"has format version {found[1]!r}" if found[0] == EXPLANATION_FORMAT else "is damaged"
    sentence = f"{EXPLAIN}/{EXPLANATION} {what}, and nothing is shown of it: {again} again."
    remarks.append(Remark(about="explanation", sentence=sentence))
    return None


def _check_checkpoint(run: Path, metrics: Json, explanation: Json | None) -> list[Remark]:
    """Say where metrics and explanation are of another checkpoint than the one that is there."""
    judged = metrics["run"]["sha256"]
    there = _sha256(run / BEST)
    sentences = []
    if there is None:
        sentences.append(f"The run's {BEST} is not there: whether the figures are its own cannot be checked.")
    elif there != judged:
        sentences.append(
            f"The figures are of another checkpoint ({judged[:12]}…) than the {BEST} that is there now "
            f"({there[:12]}…): run pneumo-fast evaluate again."
        )
    if explanation is not None and (explained := explanation["run"]["sha256"]) != judged:
        sentences.append(
            f"The heat maps are of another checkpoint ({explained[:12]}…) than the figures ({judged[:12]}…): run "
            "pneumo-fast explain again."
        )
    return [Remark(about="checkpoint", sentence=sentence) for sentence in sentences]


def _sha256(path: Path) -> str | None:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()


def _sources(run: Path, metrics: Json, config: Json, remarks: list[Remark]) -> tuple[Source, ...]:
    """The datasets judged on, if they are there and unchanged."""
    paths = [Path(metrics["dataset"]["path"])]
    named = config.get("config", {}).get("datasets") if metrics["dataset"]["trained_on"] else None
    if isinstance(named, list) and named:
        paths = [Path(path) for path in named]
    names = " and ".join(path.name for path in paths)
    try:
        sources = tuple(_source(path, run) for path in paths)
    except (OSError, ValueError, DatasetError):
        sentence = f"Dataset {names} is not where it was: duplicates, rejected files and preprocessing are not shown."
        remarks.append(Remark(about="dataset", sentence=sentence))
        return ()
    identities = [source.identity for source in sources]
    joint = identities[0] if len(sources) == 1 else hashlib.sha256(" ".join(identities).encode()).hexdigest()
    if joint == metrics["dataset"]["identity"]:
        return sources
    sentence = f"Dataset {names} is no longer the one that was judged on: nothing is taken from it."
    remarks.append(Remark(about="dataset", sentence=sentence))
    return ()


def _source(path: Path, run: Path) -> Source:
    """A dataset where it was, or else beside the run."""
    folder = path if (path / "manifest.json").exists() else run.resolve().parent / path.name
    content = (folder / "manifest.json").read_bytes()
    identity = hashlib.sha256(content).hexdigest()
    return Source(name=folder.resolve().name, manifest=Manifest.from_json(content.decode()), identity=identity)


def get(content: Mapping[str, Any], *keys: str) -> Any:
    """A value within nested tables; None where one is not there."""
    value: Any = content
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
