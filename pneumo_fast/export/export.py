"""Writes a trained model as a file that runs without this package, once it has been checked against PyTorch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from pneumo_fast.dataset.selection import open_datasets
from pneumo_fast.errors import DatasetError, ExportError, RunError
from pneumo_fast.evaluation.ensemble import Ensemble, Member, open_members, output_names
from pneumo_fast.evaluation.inference import named_datasets
from pneumo_fast.export import formats
from pneumo_fast.export.formats import Images, Run
from pneumo_fast.export.metadata import describe
from pneumo_fast.export.options import ExportConfig
from pneumo_fast.files import atomic_file
from pneumo_fast.formatting import shell_command
from pneumo_fast.loading.sources import open_reader
from pneumo_fast.run.folder import writing

_log = logging.getLogger(__name__)

BATCHES: Final = (1, 3, 16)
"""Batch sizes that are checked."""
TOLERANCE: Final = 1e-5
"""Largest difference allowed: of a probability, and of a logit in units of max(1, its magnitude)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportSummary:
    """What was written, and how it was checked."""

    path: Path
    size_bytes: int
    size: int
    """Height and width of the images that it takes, in pixels."""
    outputs: tuple[str, ...]
    runtime: str
    """What ran the file to check it."""
    checked_on: str
    """The images, in words."""
    difference: float
    """Largest difference from PyTorch: of a probability, or of a logit in units of max(1, its magnitude)."""
    notes: tuple[str, ...]
    """What a reader has to know, one sentence each."""


def export_model(config: ExportConfig) -> ExportSummary:
    """Write the best checkpoint of a run, or of several as one model, in ONNX or in PyTorch's export format.

    The model takes images as they are stored, float32 (N, 1, size, size) in [0, 1], and normalizes them itself. Its
    outputs are ``logit``, ``probability`` and, where every run was evaluated on its own data,
    ``calibrated_probability``, each float32 (N,). The logits of several runs are averaged, and so are their calibrated
    logits; no calibration is fitted to the average. The file appears under its name only after it has been run at
    three batch sizes, on stored images where the dataset is there, and has given what PyTorch gives. The same runs give
    the same bytes.

    Raises
    ------
    RunError
        If a run is missing, damaged or of another release, the runs take images of different sizes, or the file cannot
        be written.
    ExportError
        If a package is not installed, the model cannot be exported, or the exported one gives other values than
        PyTorch.
    """
    formats.check_installed(config.format)
    members = open_members(config.runs)
    images, checked_on = images_to_check(members[0])
    _log.info("exporting %s to %s", ", ".join(str(run) for run in config.runs), config.file)
    outputs, model = output_names(members), Ensemble(members).eval()
    with writing(config.file), atomic_file(config.file) as file:
        program = formats.trace(model, members[0].size)
        file.write(formats.serialize(config.format, program, outputs, describe(members)))
        size_bytes = file.tell()
        file.flush()
        difference = largest_difference(model, formats.load(config.format, file), images)
        if not difference <= TOLERANCE:  # NaN as well
            raise ExportError(
                f"{config.file} was not written: {formats.RUNTIMES[config.format]} and PyTorch differ by "
                f"{difference:.1e}, at most {TOLERANCE:g} expected; try another version of it, or the other --format"
            )
    return ExportSummary(
        path=config.file,
        size_bytes=size_bytes,
        size=members[0].size,
        outputs=outputs,
        runtime=formats.RUNTIMES[config.format],
        checked_on=checked_on,
        difference=difference,
        notes=_notes(members),
    )


def images_to_check(member: Member) -> tuple[Images, str]:
    """Images of the dataset that a run was trained on, or random ones where that is not there; and these in words.

    Returns
    -------
    images : ndarray of float32, shape (16, 1, size, size), in [0, 1]
        Fewer stored images are repeated.
    checked_on : str
    """
    size = member.size
    try:
        dataset = open_datasets(named_datasets(member.run))
        if dataset.identity != member.identity.dataset_identity:
            raise DatasetError("another dataset has taken the place of the run's")
        rows = dataset.index.head(max(BATCHES))
        with closing(open_reader(dataset, rows)) as reader:
            stored = reader.read_unit(np.arange(len(rows)))
    except (DatasetError, RunError):
        random = np.random.default_rng(0).random((max(BATCHES), 1, size, size), dtype=np.float32)
        return random, "random images, since the run's dataset is not there"
    return np.resize(stored[:, None], (max(BATCHES), 1, size, size)), f"{len(rows)} images of the run's dataset"


def largest_difference(model: Callable[[torch.Tensor], tuple[torch.Tensor, ...]], run: Run, images: Images) -> float:
    """Largest difference between PyTorch and a runtime over all batch sizes, as :data:`TOLERANCE` counts it."""
    found = []
    for count in BATCHES:
        batch = images[:count]
        with torch.inference_mode():
            expected = [output.numpy() for output in model(torch.from_numpy(batch))]
        for one, other in zip(expected, run(batch), strict=True):
            if one.shape != other.shape:
                return float("inf")
            found.append((np.abs(one - other) / np.maximum(1, np.abs(one))).max())  # no probability is above 1
    return float(np.max(found))


def _notes(members: Sequence[Member]) -> tuple[str, ...]:
    without = [member.run for member in members if member.operating is None]
    if without:
        reason = f"not evaluated on the data they were trained on: {', '.join(map(str, without))}"
        which = "each by itself" if len(without) > 1 else "it"
        commands = " && ".join(shell_command("evaluate", run) for run in without)
        return (f"No calibrated probability, since {reason}. Evaluate {which}, then export again: {commands}",)
    if len(members) > 1:
        return ("The calibrated probability averages what was fitted to each run; none is fitted to the average.",)
    return ()
