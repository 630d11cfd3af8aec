"""How a run's probabilities are to be used: its calibration, and thresholds chosen for a purpose.

Both are fitted on validation images and judged on others: on the test split, or, where the validation split itself
is judged, on the half of its patients that took no part. ``RUN/operating.json`` keeps them, for other data.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pneumo_fast.dataset.splits import divide
from pneumo_fast.errors import RunError
from pneumo_fast.evaluation.options import EvaluateConfig
from pneumo_fast.files import write_atomic
from pneumo_fast.metrics.calibration import Calibration, calibrate
from pneumo_fast.metrics.scored import Sample
from pneumo_fast.metrics.thresholds import Chosen, choose
from pneumo_fast.records import Fault, Head, build, parse_file
from pneumo_fast.run.layout import OPERATING, OPERATING_FORMAT


@dataclass(frozen=True, kw_only=True, slots=True)
class Operating:
    """A calibration and thresholds on the plain probability, and what they come from."""

    checkpoint: str
    """SHA-256 of the one that they belong to."""
    chosen_on: str
    """The images, in words."""
    calibration: Calibration
    thresholds: tuple[Chosen, ...]


def halve(rows: pd.DataFrame, seed: int) -> NDArray[np.bool_] | None:
    """Divide a split by patient into a half to choose on (true) and one to report on; None if it is a single patient.

    Parameters
    ----------
    rows : DataFrame
        Columns ``image_id``, ``label`` and ``group``. Each half keeps the share of positives.

    Returns
    -------
    ndarray of bool, shape (images,), or None
    """
    chosen = divide(rows, {"choose": 0.5, "report": 0.5}, seed, "halves") == "choose"
    return chosen if 0 < chosen.sum() < len(chosen) else None


def fit(
    sample: Sample, shift: float | None, config: EvaluateConfig, checkpoint: str, chosen_on: str
) -> Operating | None:
    """Fit a calibration and choose thresholds; None where the sample is of one class.

    Parameters
    ----------
    shift : float or None
        As of :func:`~pneumo_fast.metrics.calibration.calibrate`.
    """
    calibration = calibrate(sample, shift)
    if calibration is None:
        return None
    thresholds = choose(sample, config.target_sensitivity, config.target_specificity, config.cost_ratio)
    return Operating(checkpoint=checkpoint, chosen_on=chosen_on, calibration=calibration, thresholds=thresholds)


def save(run: Path, operating: Operating) -> None:
    """Write ``operating.json``."""
    content = {"format": OPERATING_FORMAT, **asdict(operating)}
    write_atomic(run / OPERATING, json.dumps(content, indent=1, allow_nan=False) + "\n")


def load(run: Path, checkpoint: str) -> Operating | None:
    """What was fitted for a checkpoint; None where nothing was, or for another one.

    Raises
    ------
    RunError
        If the file is damaged.
    """
    path = run / OPERATING
    try:
        values = parse_file(path)
        if build(values, Head).format != OPERATING_FORMAT:
            return None
        if values.get("checkpoint") != checkpoint:
            return None
        return build({key: value for key, value in values.items() if key != "format"}, Operating, closed=True)
    except FileNotFoundError:
        return None
    except (OSError, Fault) as error:
        raise RunError(f"{path} is damaged ({error}): remove it and evaluate the run again") from error
