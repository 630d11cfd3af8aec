"""Which checkpoint was judged, and on which images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pneumo_fast.files import joint_checksum, open_regular, sha256_of
from pneumo_fast.records import path_text
from pneumo_fast.run.checkpoint import Trained
from pneumo_fast.run.layout import BEST, FOLD_PREFIX


@dataclass(frozen=True, kw_only=True, slots=True)
class RunIdentity:
    """Which checkpoint was judged."""

    path: str
    """The run folder, as it was named."""
    checkpoint: str
    """File name of the checkpoint in it."""
    sha256: str
    """In hexadecimal; of a cross-validation that of the folds' checksums, with spaces between."""
    arch: str
    """Name of the torchvision classifier."""
    epoch: int | None
    """Finished epochs at the checkpoint; None of a cross-validation, whose folds have each their own."""
    mean: float
    """What the images were normalized with, in [0, 1], as ``std``."""
    std: float
    dataset_identity: str
    """Identity of the dataset that the run was trained on."""
    folds: tuple[RunIdentity, ...] = ()
    """Of a cross-validation: the checkpoint of each fold, from the first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetIdentity:
    """Which images it was judged on."""

    path: str
    """The dataset folder, as it was named."""
    identity: str
    """SHA-256 of its manifest."""
    trained_on: bool
    """Whether it is the dataset that the run was trained on."""
    name: str = ""
    """Name of the folder; of several datasets as one, all names, joined by ``+``. An earlier release left it out."""


def identify(run: Path, checkpoint: Trained) -> RunIdentity:
    """Which checkpoint a run's best one is, by its checksum among others."""
    with open_regular(run / BEST) as file:
        sha256 = sha256_of(file)
    return RunIdentity(
        path=path_text(run),
        checkpoint=BEST,
        sha256=sha256,
        arch=checkpoint.arch,
        epoch=checkpoint.epoch,
        mean=checkpoint.mean,
        std=checkpoint.std,
        dataset_identity=checkpoint.dataset_identity,
    )


def identify_all(run: Path, folds: tuple[RunIdentity, ...]) -> RunIdentity:
    """All checkpoints of a cross-validation as one, by those of its folds."""
    return replace(
        folds[0],
        path=path_text(run),
        checkpoint=f"{FOLD_PREFIX}*/{BEST}",
        sha256=joint_checksum(fold.sha256 for fold in folds),
        epoch=None,
        folds=folds,
    )
