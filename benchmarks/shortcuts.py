"""What a model could score without looking at the lungs: from the mask's area, the view, or age, sex and view.

Each is fitted on the training images and scores the judged ones; a trained model has to be well above all of them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.loading.reader import ShardReader
from pneumo_fast.metrics.intervals import Bootstrap, Estimate, group_numbers
from pneumo_fast.metrics.ranking import rank
from pneumo_fast.metrics.scored import Sample

RIDGE: Final = 1e-4
"""Penalty on the squared weights, so that a view of one class alone has a finite one."""


def shortcuts(dataset: Dataset, split: str, resamples: int) -> dict[str, Estimate]:
    """AUROC of each shortcut on a split, with its interval over patients; always negative is 0.5 by definition."""
    rows, fitted = dataset.rows(split), dataset.rows("train")
    scores = {
        "mask area alone": fit(covered(dataset, fitted), labels_of(fitted), covered(dataset, rows)),
        "view alone": fit(attributes(fitted, ["view"]), labels_of(fitted), attributes(rows, ["view"])),
        "age, sex, view": fit(
            attributes(fitted, ["view", "sex", "age"]), labels_of(fitted), attributes(rows, ["view", "sex", "age"])
        ),
    }
    groups, labels = group_numbers(rows["group"]), labels_of(rows)
    found = {
        name: rank(Sample(labels=labels, logits=score, groups=groups), Bootstrap(resamples=resamples)).auroc
        for name, score in scores.items()
    }
    return {"always negative": Estimate(value=0.5), **found}


def labels_of(rows: pd.DataFrame) -> NDArray[np.int64]:
    """The labels, shape (n,)."""
    return rows["label"].to_numpy(dtype=np.int64)


def covered(dataset: Dataset, rows: pd.DataFrame) -> NDArray[np.float64]:
    """The share of each image that is not black and its square, shape (n, 2): the area that a lung mask left."""
    reader = ShardReader(dataset, rows)
    images = reader.read_unit(np.arange(len(rows)))
    reader.close()
    share = (images > 0).mean(axis=(1, 2), dtype=np.float64)
    return np.stack([share, share**2], axis=1)


def attributes(rows: pd.DataFrame, columns: list[str]) -> NDArray[np.float64]:
    """Columns of the index as numbers, shape (n, k): a unit vector for each known value; age in decades and squared."""
    parts = []
    for column in columns:
        if column == "age":
            age = pd.to_numeric(rows["age"], errors="coerce").fillna(0).to_numpy(dtype=np.float64) / 10
            parts.append(np.stack([age, age**2 / 10, age == 0], axis=1))
        else:
            parts.append(np.stack([(rows[column] == value).to_numpy() for value in VALUES[column]], axis=1))
    return np.concatenate(parts, axis=1).astype(np.float64)


VALUES: Final = {"view": ("AP", "PA"), "sex": ("F", "M")}


def fit(known: NDArray[np.float64], labels: NDArray[np.int64], asked: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logits (m,) of ``asked`` (m, k) by a logistic regression on ``known`` (n, k), standardized."""
    mean, deviation = known.mean(axis=0), np.maximum(known.std(axis=0), 1e-9)
    inputs, wanted = torch.from_numpy((known - mean) / deviation), torch.tensor(labels, dtype=torch.float64)
    weights = torch.zeros(inputs.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        logits = inputs @ weights[1:] + weights[0]
        value = binary_cross_entropy_with_logits(logits, wanted) + RIDGE * weights[1:].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value.item()

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    found = weights.detach().numpy()
    logits: NDArray[np.float64] = (asked - mean) / deviation @ found[1:] + found[0]
    return logits
