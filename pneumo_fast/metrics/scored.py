"""Images that are judged together: labels, logits and patients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from pneumo_fast.metrics.intervals import Groups, Labels

Probabilities = NDArray[np.float64]
Scores = NDArray[np.floating]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """Images that are judged together."""

    labels: Labels
    """int64, shape (n,), n at least 1: 0 or 1."""
    logits: Scores
    """Floating, shape (n,), finite."""
    groups: Groups
    """int64, shape (n,): number of each image's patient, from 0, without gaps."""

    def __post_init__(self) -> None:
        """Check the values; ValueError where the arrays are empty, differ in length, or hold other values."""
        if self.labels.ndim != 1 or not self.labels.shape == self.logits.shape == self.groups.shape or not self.n:
            raise ValueError(
                f"labels {self.labels.shape}, logits {self.logits.shape} and groups {self.groups.shape}: expected the "
                "same shape (n,), n >= 1"
            )
        if not np.isin(self.labels, (0, 1)).all():
            raise ValueError(f"labels hold {np.unique(self.labels)[:5].tolist()}: expected 0 and 1 only")
        if not np.isfinite(self.logits).all():
            raise ValueError("logits hold NaN or infinity: expected finite numbers")

    @property
    def n(self) -> int:
        """Images."""
        return len(self.labels)

    @property
    def positives(self) -> int:
        """Images labelled 1."""
        return int(self.labels.sum())

    @property
    def two_classes(self) -> bool:
        """Whether both labels are there."""
        return 0 < self.positives < self.n

    @cached_property
    def probabilities(self) -> Probabilities:
        """Sigmoid of the logits, shape (n,), in [0, 1]; float64, so that the class follows without further rounding."""
        return sigmoid(self.logits)

    def take(self, chosen: NDArray[np.bool_], logits: Scores | None = None) -> Sample:
        """Some of the images, perhaps with other logits.

        Parameters
        ----------
        chosen : ndarray of bool, shape (n,)
        logits : ndarray of float, shape (n,), optional
            Of all images, the chosen ones and the others.
        """
        groups = np.unique(self.groups[chosen], return_inverse=True)[1]
        values = self.logits if logits is None else logits
        return Sample(labels=self.labels[chosen], logits=values[chosen], groups=groups)


def sigmoid(logits: Scores) -> Probabilities:
    """Probabilities, float64 in [0, 1], of the shape of ``logits``."""
    return torch.tensor(logits, dtype=torch.float64).sigmoid().numpy()


def call_positive(probabilities: Probabilities, threshold: float) -> NDArray[np.bool_]:
    """Which images are called positive, bool, shape (n,): those with ``probability >= threshold``, both in [0, 1]."""
    return probabilities >= threshold


def class_at(threshold: float) -> str:
    """Name of the column of a table that says whether an image is called positive at a threshold."""
    return f"class_at_{threshold}"
