"""The model that scores: one run or several, on a device, and what it takes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pneumo_fast.dataset.npy import SCALES, Images
from pneumo_fast.dataset.selection import open_datasets
from pneumo_fast.devices import resolve_device, too_large
from pneumo_fast.errors import DatasetError, PredictError, RunError
from pneumo_fast.evaluation.ensemble import Ensemble, Member, calibrations, open_members
from pneumo_fast.evaluation.inference import named_datasets
from pneumo_fast.metrics.thresholds import Chosen
from pneumo_fast.records import plain
from pneumo_fast.run.model import for_inference
from pneumo_fast.run.model_input import ModelInput


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """What the model says of some images; each is float64, shape (n,)."""

    logit: NDArray[np.float64]
    """Mean over the runs."""
    probability: NDArray[np.float64]
    calibrated: NDArray[np.float64] | None
    """None where a run has no calibration."""
    spread: NDArray[np.float64]
    """Standard deviation of the logit over the runs; 0 for a single one."""


@dataclass(frozen=True, kw_only=True)  # without slots: the ensemble has none before it is asked for
class Model:
    """Runs, opened to score images."""

    members: tuple[Member, ...]
    input: ModelInput
    """What the files have to become; what was seen in training is that of all runs together."""
    device: torch.device

    @cached_property
    def ensemble(self) -> Ensemble:
        """On the device, in evaluation mode; put there when it is asked for first, and tried on a black image."""
        ensemble = Ensemble(self.members).eval()
        for_inference(ensemble, self.device, self.size)
        with torch.inference_mode():
            ensemble(torch.zeros(1, 1, self.size, self.size, device=self.device))  # a GPU's libraries start with it
        return ensemble

    def warm_up(self) -> None:
        """Put the ensemble on the device now, if it is not there yet: starting a GPU takes a while."""
        _ = self.ensemble

    @property
    def size(self) -> int:
        """Height and width of an image, in pixels."""
        return self.members[0].size

    @property
    def decoding_gpu(self) -> int | None:
        """Number of the GPU that decodes files as in training; None where the CPU does."""
        uses_gpu = self.input.preprocessing.decode == "gpu" and self.device.type == "cuda"
        return self.device.index or 0 if uses_gpu else None

    @property
    def calibrated(self) -> bool:
        """Whether every run has a calibration."""
        return bool(calibrations(self.members))

    @property
    def operating_point(self) -> Chosen | None:
        """The first threshold that ``evaluate`` chose; None for several runs, to whose mean none was fitted."""
        operating = self.members[0].operating
        return operating.thresholds[0] if len(self.members) == 1 and operating and operating.thresholds else None

    def threshold(self, default: float) -> float:
        """The probability that makes an image positive in a report: the run's operating threshold, where it has one."""
        point = self.operating_point
        return point.threshold if point else default

    def digest(self, default: float) -> str:
        """What tells the figures of a report from others': checkpoints, calibrations and threshold, in hexadecimal."""
        checksums = [member.identity.sha256 for member in self.members]
        decided = checksums, [plain(each) for each in calibrations(self.members)], self.threshold(default)
        return hashlib.sha256(json.dumps(decided).encode()).hexdigest()

    def batch(self, stored: Images) -> torch.Tensor:
        """Images as the ensemble takes them, float32 (n, 1, size, size) in [0, 1], on the device."""
        return torch.from_numpy(stored).to(self.device)[:, None].float() / SCALES[stored.dtype.name]

    def score(self, stored: Images, batch_size: int) -> Scores:
        """Score images as a dataset stores them, (n, size, size).

        Raises
        ------
        PredictError
            If a batch does not fit into memory, or a logit is no number.
        """
        ensemble = self.ensemble  # put on the device outside of inference mode, in which Grad-CAM could not use it
        batches = [stored[start : start + batch_size] for start in range(0, len(stored), batch_size)]
        try:
            with torch.inference_mode():
                parts = [torch.stack(ensemble.logits(self.batch(batch))).cpu() for batch in batches]
        except torch.OutOfMemoryError as error:
            raise PredictError(too_large(batch_size, self.device)) from error
        logits = torch.cat([torch.empty(len(self.members), 0), *parts], dim=1).double()
        if not logits.isfinite().all():
            raise PredictError(
                f"{', '.join(str(member.run) for member in self.members)}: the logit of an image is no number: train "
                "again, with a smaller --lr or without --amp"
            )
        logit, probability, *calibrated = (each.numpy() for each in ensemble.combine(list(logits)))
        return Scores(
            logit=logit,
            probability=probability,
            calibrated=calibrated[0] if calibrated else None,
            spread=(logits.std(dim=0, correction=0) if logits.numel() else logits[0]).numpy(),  # torch warns of none
        )


def open_model(runs: Sequence[Path], device: str) -> Model:
    """Open the best checkpoint of each run; the device is not used yet (:meth:`Model.warm_up`).

    Raises
    ------
    RunError
        If a run or a file of it is missing or damaged, does not say how files become images, or takes other images
        than the others.
    DeviceError
        If the device is not there.
    """
    members, place = open_members(runs), resolve_device(device)
    inputs = [_input_of(member) for member in members]
    for member, other in zip(members[1:], inputs[1:], strict=True):
        if other.preprocessing != inputs[0].preprocessing:
            raise RunError(
                f"run {member.run} was trained on images that were made in another way (--dtype, --decode, --window "
                f"or the selection) than those of {members[0].run}: score them one by one"
            )
    return Model(members=members, input=_together(inputs), device=place)


def _input_of(member: Member) -> ModelInput:
    """What a run takes: by its checkpoint, or where an earlier release wrote that, by its dataset."""
    found, run = member.input, member.run
    try:
        if found is None:
            dataset = open_datasets(named_datasets(run))
            found = ModelInput.of(dataset) if dataset.identity == member.identity.dataset_identity else None
    except DatasetError as error:
        raise RunError(
            f"run {run} does not say how files become its images, and neither does its dataset ({error}): train again"
        ) from error
    if found is None:
        raise RunError(f"run {run} does not say how files become its images: train again on one converted dataset")
    return found


def _together(inputs: Sequence[ModelInput]) -> ModelInput:
    """What was seen in the training of any run."""
    ages = [each.ages for each in inputs if each.ages]
    return replace(
        inputs[0],
        views=tuple(sorted({view for each in inputs for view in each.views})),
        ages=(min(low for low, _ in ages), max(high for _, high in ages)) if ages else None,
        aspects=(min(each.aspects[0] for each in inputs), max(each.aspects[1] for each in inputs)),
    )
