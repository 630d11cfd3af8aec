"""What a training is about to do, before its first step, and what is needed to repeat it."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.splits import label_counts
from pneumo_fast.extras import installed_dali, version_of
from pneumo_fast.training.learner import Learner
from pneumo_fast.training.options import TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """What the options came to on this machine and with these images."""

    device: torch.device
    amp_dtype: torch.dtype | None
    """Data type of mixed precision; None for float32 alone."""
    pos_weight: float
    batch_size: int
    """Images of all processes together."""
    loader: str
    """The engine that loads the batches."""
    processes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainPlan:
    """What a training is about to do."""

    config: TrainConfig
    resolved: Resolved
    counts: dict[str, dict[str, int]]
    """Images by split and label (``"0"``, ``"1"``)."""
    patients: int | None
    """Patients of the training images; None where none is known."""
    size: int
    """Height and width of an image, in pixels."""
    parameters: int
    """Of the model."""
    taught: tuple[str, ...]
    """What is taught beside the label, in words."""
    epochs_done: int
    """Above 0 where the training is resumed."""

    @classmethod
    def of(
        cls, config: TrainConfig, resolved: Resolved, dataset: Dataset, learner: Learner, epochs_done: int
    ) -> TrainPlan:
        """What a training of this learner on this dataset is about to do."""
        patients = set(dataset.index.loc[dataset.index["split"] == "train", "group"]) - {""}
        return cls(
            config=config,
            resolved=resolved,
            counts=label_counts(dataset.index),
            patients=len(patients) or None,
            size=dataset.size,
            parameters=sum(parameter.numel() for parameter in learner.model.parameters()),
            taught=learner.taught.describe() if learner.taught else (),
            epochs_done=epochs_done,
        )


OnStart = Callable[[TrainPlan], object]

PACKAGES = (
    "pneumo-fast", "torch", "torchvision", *installed_dali().modules, "torchmetrics", "numpy", "pydicom", "pillow",
)  # fmt: skip


def describe_run(config: TrainConfig, dataset: Dataset, resolved: Resolved) -> dict[str, Any]:
    """Everything needed to repeat the run: options, what was chosen for them, the dataset, and versions."""
    options = asdict(config) | {"datasets": [path.resolve() for path in config.datasets]}
    options["batch_size"] = config.batch_size or resolved.batch_size
    return {
        "config": options,
        "resolved": {
            **asdict(resolved),
            "device": str(resolved.device),
            "amp_dtype": str(resolved.amp_dtype),
            "threads": torch.get_num_threads(),
        },
        "dataset": {"identity": dataset.identity, "counts": dataset.manifest.counts, "split": dataset.manifest.split},
        "versions": {
            "python": platform.python_version(),
            **{name: version_of(name) or "not installed" for name in PACKAGES},
        },
    }
