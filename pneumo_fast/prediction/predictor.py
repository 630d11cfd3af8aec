"""A trained model for Python: ``pf.load("run").predict(paths)``."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from pneumo_fast.configuration import options_of
from pneumo_fast.errors import ConfigError
from pneumo_fast.files import AnyPath
from pneumo_fast.prediction.files import find
from pneumo_fast.prediction.model import Model, open_model
from pneumo_fast.prediction.options import PredictConfig, ScoreOptions
from pneumo_fast.prediction.scoring import Outputs, Scoring


class Predictor:
    """One run or several, opened to score files; made by :func:`load`."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def predict(self, paths: AnyPath | Iterable[AnyPath], *, path_column: str = "path", **options: Any) -> pd.DataFrame:
        """Score files, folders, or the files of a CSV.

        Parameters
        ----------
        paths : path or iterable of paths
        path_column : str
            Column of a CSV that names the files.
        **options
            Options of :class:`PredictConfig` that say how files become rows, for instance ``thresholds=(0.3,)``.

        Returns
        -------
        DataFrame
            One row per file with the columns of ``predictions.csv``, ids and paths as they are; numbers are floats,
            classes 0, 1 or missing.

        Raises
        ------
        PredictError
            If there is no file.
        ConfigError
            If an option is for :func:`pneumo_fast.predict`, as those of servers, labels and DICOM objects.
        """
        if foreign := sorted(options.keys() & options_of(PredictConfig).keys() - options_of(ScoreOptions).keys()):
            raise ConfigError(
                f"{' and '.join(foreign)}: not for a loaded model, which scores files and returns their table; use "
                "predict(PredictConfig(…))"
            )
        chosen = ScoreOptions(**options)
        files, _ = find([Path(paths)] if isinstance(paths, str | PathLike) else [*map(Path, paths)], path_column)
        with tempfile.TemporaryDirectory(prefix="pneumo-fast-") as work:
            scoring = Scoring.of(
                self.model, chosen, files, Path(work), secrets.token_bytes(32), Outputs(), keep_ids=True
            )
            rows = [row for _, part in scoring.tables(scoring.tasks) for row in part]
        return _typed(pd.DataFrame(rows, columns=scoring.columns, dtype=str))


def load(*runs: AnyPath, device: str = "auto") -> Predictor:
    """Open the best checkpoint of a run, or of several whose logits are averaged, to score files.

    Parameters
    ----------
    *runs : path
        Run folders.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises
    ------
    RunError
        If a run is missing or damaged, or takes other images than the others.
    DeviceError
        If the device is not there.
    """
    model = open_model(tuple(map(Path, runs)), device)
    model.warm_up()
    return Predictor(model)


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers as numbers; missing where a file was rejected."""
    for name in table.columns:
        if name in {"logit", "spread", "probability", "calibrated_probability"}:
            table[name] = pd.to_numeric(table[name])
        elif name.startswith("class"):
            table[name] = pd.to_numeric(table[name]).astype("Int64")
    return table
