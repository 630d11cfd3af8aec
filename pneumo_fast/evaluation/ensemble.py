"""One run or several as one model, from images to probabilities: the logits of several are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pneumo_fast.errors import RunError
from pneumo_fast.evaluation import operating_points as points
from pneumo_fast.evaluation.identity import RunIdentity, identify
from pneumo_fast.evaluation.inference import best_of, load_model
from pneumo_fast.evaluation.operating_points import Operating
from pneumo_fast.metrics.calibration import Calibration
from pneumo_fast.run.folds import is_cross_validation, open_folds
from pneumo_fast.run.model_input import ModelInput


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One run of an ensemble."""

    run: Path
    model: nn.Module
    size: int
    """Image height and width in pixels."""
    input: ModelInput | None
    """How files become such images; None where the checkpoint does not say."""
    identity: RunIdentity
    operating: Operating | None
    """Its calibration and thresholds; None where it was not evaluated on its own data."""


def open_members(runs: Sequence[Path]) -> tuple[Member, ...]:
    """Open the best checkpoint of each run; of a cross-validation, that of every fold.

    Raises
    ------
    RunError
        If a run or a file of it is missing, damaged or of another release, or the runs were trained on images of
        different sizes.
    """
    members = tuple(_open(member) for run in runs for member in _folders(run))
    for other in members[1:]:
        if other.size != members[0].size:
            raise RunError(
                f"run {other.run} was trained on {other.size} x {other.size} images, {members[0].run} on "
                f"{members[0].size} x {members[0].size}: one model takes images of one size; give them one by one"
            )
    return members


def _folders(run: Path) -> list[Path]:
    return [folder for folder, _ in open_folds(run)] if is_cross_validation(run) else [run]


def _open(run: Path) -> Member:
    checkpoint = best_of(run)
    identity = identify(run, checkpoint)
    return Member(
        run=run,
        model=load_model(run, checkpoint),
        size=checkpoint.size,
        input=checkpoint.input,
        identity=identity,
        operating=points.load(run, identity.sha256),
    )


class Ensemble(nn.Module):
    """Images in [0, 1] to logit, probability and, where every run has a calibration, calibrated probability.

    Each run normalizes with its own mean and standard deviation. The logit of several runs is the mean of theirs. Their
    calibrated probability is the sigmoid of the mean of their calibrated logits: each calibration was fitted to its own
    run, and none to the mean.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__()
        self.models = nn.ModuleList(member.model for member in members)
        self._normalization = [(member.identity.mean, member.identity.std) for member in members]
        self._calibrations = calibrations(members)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Outputs in the order of :func:`output_names`, each float32, shape (N,).

        Parameters
        ----------
        image : Tensor of float32, shape (N, 1, size, size), in [0, 1]
        """
        return self.combine(self.logits(image))

    def logits(self, image: torch.Tensor) -> list[torch.Tensor]:
        """The logit of each run, float32, shape (N,), of images as :meth:`forward` takes them."""
        normalized = [(image - mean) / std for mean, std in self._normalization]
        return [model(each).squeeze(1) for model, each in zip(self.models, normalized, strict=True)]

    def combine(self, logits: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Outputs, in the order of :func:`output_names`, from the logit of each run."""
        logit = _mean(logits)
        if not self._calibrations:
            return logit, logit.sigmoid()
        pairs = zip(logits, self._calibrations, strict=True)
        calibrated = _mean([(each - by.shift) / by.temperature for each, by in pairs])
        return logit, logit.sigmoid(), calibrated.sigmoid()


def _mean(values: list[torch.Tensor]) -> torch.Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).mean(0)


def calibrations(members: Sequence[Member]) -> list[Calibration]:
    """The calibration of every run; empty where one has none."""
    found = [member.operating.calibration for member in members if member.operating]
    return found if len(found) == len(members) else []


def output_names(members: Sequence[Member]) -> tuple[str, ...]:
    """Names of the outputs, in their order."""
    return ("logit", "probability", *(("calibrated_probability",) if calibrations(members) else ()))
