"""One row per file: what the model says of it and in what it is unlike training images, or why it was rejected."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from pneumo_fast.conversion.task import Record
from pneumo_fast.dataset.folder import csv_line
from pneumo_fast.dataset.npy import Images
from pneumo_fast.metrics.scored import call_positive, class_at
from pneumo_fast.prediction.model import Model, Scores
from pneumo_fast.prediction.options import ScoreOptions
from pneumo_fast.prediction.outside import find_warnings

Row = dict[str, str]
"""A row of the table, by column; empty where there is nothing to tell."""
REFUSED: Final = "refused"
"""The reason of a file that was rejected for a warning."""


def columns(model: Model, thresholds: Sequence[float]) -> list[str]:
    """Columns of a table, in their order; ``docs/predicting.md`` says what they mean."""
    return [
        "image_id", "path", "logit", *(["spread"] if len(model.members) > 1 else []), "probability",
        *(["calibrated_probability"] if model.calibrated else []), *(["class"] if model.operating_point else []),
        *(class_at(threshold) for threshold in thresholds), "warnings", "reject", "detail",
    ]  # fmt: skip


def score_part(
    model: Model, record: Record, stored: Images, options: ScoreOptions
) -> tuple[dict[int, dict[str, Any]], list[int]]:
    """Cells of each file of a part, by its number; and which rows of ``stored`` were scored.

    Parameters
    ----------
    record : Record
        In which the files' ids and shown paths are their numbers.
    stored : ndarray of float16 or uint8, shape (n, size, size)
    """
    first = model.members[0].identity
    cells: dict[int, dict[str, Any]] = {
        int(reject["path"]): {"reject": reject["reason"], "detail": reject["detail"]} for reject in record.rejects
    }
    kept, numbers = [], []
    for place, row in enumerate(record.images):
        found = find_warnings(row, model.size**2, model.input, first.mean, first.std)
        cells[int(row["image_id"])] = {"warnings": " ".join(f"{kind}={value}" for kind, value in found.items())}
        if refused := [kind for kind in found if kind in options.refuse]:
            cells[int(row["image_id"])] |= {"reject": REFUSED, "detail": f"warning of {' and '.join(refused)}"}
        else:
            kept.append(place)
            numbers.append(int(row["image_id"]))
    scores = model.score(stored[kept] if len(kept) < len(stored) else stored, options.batch_size)
    for number, values in zip(numbers, _cells(model, scores, options), strict=True):
        cells[number] |= values
    return cells, kept


def _cells(model: Model, scores: Scores, options: ScoreOptions) -> list[dict[str, Any]]:
    """What is written of each scored image."""
    table: dict[str, Any] = {
        "logit": [f"{logit:.9g}" for logit in scores.logit.tolist()],
        "spread": scores.spread,
        "probability": scores.probability,
    }
    if scores.calibrated is not None:
        table["calibrated_probability"] = scores.calibrated
    if point := model.operating_point:
        table["class"] = call_positive(scores.probability, point.threshold).astype(int)
    for threshold in options.thresholds:
        table[class_at(threshold)] = call_positive(scores.probability, threshold).astype(int)
    return [
        dict(zip(table, values, strict=True))
        for values in zip(*(np.asarray(column).tolist() for column in table.values()), strict=True)
    ]


def to_rows(cells: Iterable[Mapping[str, Any]], names: Sequence[str]) -> list[Row]:
    """Rows of text, where what there is no cell for is empty."""
    return [{name: str(row.get(name, "")) for name in names} for row in cells]


def to_csv(rows: Sequence[Row], names: Sequence[str]) -> str:
    """A table with its header."""
    lines = [names, *([row[name] for name in names] for row in rows)]
    return "".join(map(csv_line, lines))


def from_csv(text: str) -> list[Row]:
    """What :func:`to_csv` was given."""
    return list(csv.DictReader(io.StringIO(text, newline="")))


def is_whole(row: Row, names: Sequence[str]) -> bool:
    """Whether a row that was read has a cell for each of these columns, and no other."""
    return list(row) == list(names) and None not in row.values()
