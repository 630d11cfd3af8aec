"""How many images are in a batch: by default, or the most that a GPU's memory has room for, found by trying."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import replace

import torch

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.errors import DeviceError
from pneumo_fast.loading.batches import Rank
from pneumo_fast.loading.targets import blank_targets
from pneumo_fast.training import distributed
from pneumo_fast.training.options import BATCH_SIZE, TrainConfig
from pneumo_fast.training.setup import TrainingData, make_learner

logger = logging.getLogger(__name__)

UNIT = 8  # images; matrix products on GPUs like multiples of it
SPARE = 0.1  # share of the free memory that stays free, for the loader's batches and what a GPU's memory loses in gaps


def largest_batch(fits: Callable[[int], bool], most: int) -> int:
    """The largest multiple of 8 that fits: doubled until one does not, then the gap is halved.

    Parameters
    ----------
    fits : callable
        Says of a number of images whether a step on them fits; if it does, so must any smaller number.
    most : int
        Images, at least 1, that are never exceeded. Fewer than 8 are tried as they are.

    Returns
    -------
    int
        0 if nothing fits.
    """
    unit = min(UNIT, most)
    good, bad, trial = 0, most // unit + 1, 1
    while trial < bad:
        good, bad = (trial, bad) if fits(trial * unit) else (good, trial)
        trial *= 2
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle * unit) else (good, middle)
    return good * unit


def fits_in_memory(step: Callable[[int], object], batch_size: int) -> bool:
    """Say whether a step of so many images finds the memory it needs; what it took is given back."""
    fits = True
    try:
        step(batch_size)
    except torch.OutOfMemoryError:
        fits = False
    gc.collect()  # here, outside of the handler, nothing of the step is held any more
    torch.cuda.empty_cache()
    return fits


def choose_batch_size(
    config: TrainConfig, data: TrainingData, device: torch.device, rank: Rank, amp_dtype: torch.dtype | None
) -> int:
    """Images in a batch of all processes together, where the options give no number.

    Raises
    ------
    DeviceError
        As :func:`find_batch_size`, if the number is ``auto``.
    """
    if config.batch_size is not None:
        return find_batch_size(config, data, device, rank, amp_dtype)
    if data.epoch_length < BATCH_SIZE and rank.number == 0:
        logger.info("batch-size %d: as many images as an epoch has, fewer than %d", data.epoch_length, BATCH_SIZE)
    return min(BATCH_SIZE, data.epoch_length)


def find_batch_size(
    config: TrainConfig, data: TrainingData, device: torch.device, rank: Rank, amp_dtype: torch.dtype | None
) -> int:
    """The largest batch of all processes together of which each has room for its share.

    Raises
    ------
    DeviceError
        If not even the smallest one fits.
    """
    step = trial_step(config, data.dataset.size, device, amp_dtype, len(data.classes))
    spare = torch.empty(_spare_bytes(config, data.dataset, device), dtype=torch.uint8, device=device)
    most = max(2, data.epoch_length // rank.world_size)
    found = largest_batch(lambda size: fits_in_memory(step, size), most)
    del spare
    found = -distributed.highest(-found, device)
    if not found:
        raise DeviceError(
            f"not even the smallest batch fits into the memory of {device}: raise --accumulate, give --amp, or choose "
            "a smaller --model"
        )
    logger.info("batch-size auto: %d images", found * rank.world_size)
    return found * rank.world_size


def trial_step(
    config: TrainConfig, size: int, device: torch.device, amp_dtype: torch.dtype | None, classes: int = 0
) -> Callable[[int], None]:
    """A function that takes two steps, as a process alone, on batches of a given number of images of zeros.

    In the second step the optimizer's state is in memory already.
    """
    config = replace(config, compile=False, weights="none")

    def step(batch_size: int) -> None:
        learner = make_learner(
            config, device, Rank(), size=size, batches=1, pos_weight=1.0, amp_dtype=amp_dtype, classes=classes
        )
        images = torch.zeros(batch_size, 1, size, size, device=device)
        targets = blank_targets(batch_size, device) if config.teach else None
        for _ in range(2):
            learner.step(images, images[:, 0, 0, 0], targets=targets)

    return step


def _spare_bytes(config: TrainConfig, dataset: Dataset, device: torch.device) -> int:
    """What the steps are not to take: a share, and room for the images where they may be kept on the device."""
    free, _ = torch.cuda.mem_get_info(device)
    images = len(dataset.index) * dataset.size**2 * dataset.dtype.itemsize
    kept = images if config.loader == "resident" or config.resident_share else 0
    return int(SPARE * free) + min(kept, free // 2)
