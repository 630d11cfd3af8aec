"""Training by hand in plain PyTorch: epochs, validation, and a state that is never lost.

One call of :func:`train` makes a run folder (see :mod:`pneumo_fast.run.folder`). The step itself is in
:mod:`pneumo_fast.training.learner`. The state is saved between two steps, so a run that goes on from it is the run
that was never stopped, to the last bit on a CPU with as many threads.
"""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from pneumo_fast.devices import resolve_amp
from pneumo_fast.errors import DeviceError, RunError, TrainingError, TrainingStoppedError
from pneumo_fast.files import write_atomic
from pneumo_fast.loading.order import Rank
from pneumo_fast.metrics.catalogue import MONITORED
from pneumo_fast.metrics.ranking import auroc, average_precision
from pneumo_fast.metrics.scored import sigmoid
from pneumo_fast.progress import OnProgress
from pneumo_fast.run.checkpoint import Checkpoint, EpochRecord, save_checkpoint
from pneumo_fast.run.folder import clear_run, find_run, write_config, write_history
from pneumo_fast.run.layout import BEST, CURVES, LAST
from pneumo_fast.training import distributed
from pneumo_fast.training.batch_size import find_batch_size
from pneumo_fast.training.learner import Guard, Learner, train_step
from pneumo_fast.training.observers import OnEpoch, OnStep, observing
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.session import StopRequest
from pneumo_fast.training.setup import (
    check_options,
    choose_pos_weight,
    describe_run,
    first_checkpoint,
    make_learner,
    open_data,
    settings_of,
    training_loader,
    validation_loader,
    warm_up_compiler,
)

if TYPE_CHECKING:
    from pneumo_fast.dataset.folder import Dataset
    from pneumo_fast.loading.loader import Loader

logger = logging.getLogger(__name__)

LOOK_EVERY = 50  # steps between two looks at the figures, each of which waits for the device
SAVE = 1  # what several processes agree on beside the number of a signal, of which none is 1 here
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSummary:
    """What training did."""

    run: Path
    epochs: int
    """Finished epochs, earlier ones included."""
    best_epoch: int
    """From 1."""
    best: float
    """The monitored figure of that epoch."""
    monitor: str
    """Which figure that is."""
    history: list[EpochRecord]


def train(config: TrainConfig, on_epoch: OnEpoch | None = None, on_progress: OnProgress | None = None) -> TrainSummary:
    """Train a classifier; the best and the last checkpoint end up in ``config.out``.

    Started by ``torchrun``, each process trains on its share of the same batches, and the first of them writes.

    Parameters
    ----------
    on_epoch : callable, optional
        Called with the record of each finished epoch, in the first process.
    on_progress : callable, optional
        Called with (training images seen, training images to see in all) after each step, in the first process.

    Raises
    ------
    ConfigError
        If an option cannot work on this device or with these images.
    DatasetError
        If the dataset is missing or damaged, or a split lacks a class.
    DeviceError
        If the device is not there, or its memory is too small for the model and a batch.
    RunError
        If ``out`` holds a run and neither ``resume`` nor ``overwrite`` is given, or the run does not fit.
    TrainingError
        If the loss is no finite number, or too many steps were left out; the last good checkpoint is kept.
    TrainingStoppedError
        After SIGINT or SIGTERM, once the state is saved.
    """
    with distributed.joined(config.device) as (device, rank), StopRequest() as request:
        check_options(config, device, rank)
        amp_dtype = resolve_amp(device, amp=config.amp, dtype=config.amp_dtype)
        dataset = open_data(config)
        pos_weight = choose_pos_weight(dataset, config)
        settings = settings_of(config, dataset, pos_weight, amp_dtype)
        found = _by_first(
            rank, lambda: find_run(config.out, settings, resume=config.resume, overwrite=config.overwrite)
        )
        state = found or first_checkpoint(config, dataset, pos_weight, settings)
        if state.epoch < config.epochs and not _out_of_patience(config, state):
            if "batch-size" not in state.settings:
                state.settings["batch-size"] = find_batch_size(config, dataset, device, rank, amp_dtype)
            batch_size = int(state.settings["batch-size"])
            with (
                training_loader(config, dataset, device, rank, batch_size) as images,
                validation_loader(config, dataset, device, rank, batch_size) as validation,
            ):
                learner = make_learner(
                    config, device, rank, size=dataset.size, batches=len(images), pos_weight=pos_weight,
                    amp_dtype=amp_dtype,
                )  # fmt: skip
                run = Run(config, learner, state, images, validation, rank, request)
                resolved = {
                    "device": str(device), "amp_dtype": str(amp_dtype), "pos_weight": pos_weight,
                    "batch_size": batch_size,
                }  # fmt: skip
                # what cannot work has been said by now: only here does an earlier run go
                _by_first(rank, lambda: _make_folder(config, dataset, resolved, keep=found is not None))
                if rank.number:
                    on_epoch = on_progress = None
                with observing(config, rank) as (after_epoch, after_step), _memory_told(device, batch_size):
                    run.fit([*after_epoch, *([on_epoch] if on_epoch else [])], after_step, on_progress)
            if rank.number == 0:
                write_curves(config.out, state.history, state.best_epoch)
    return TrainSummary(
        run=config.out,
        epochs=state.epoch,
        best_epoch=state.best_epoch,
        best=state.best,
        monitor=state.monitor,
        history=state.history,
    )


def _by_first(rank: Rank, act: Callable[[], T]) -> T:
    """What the first process finds, or fails with, is that of all."""
    found, failure = None, None
    if rank.number == 0:
        try:
            found = act()
        except RunError as error:
            failure = str(error)
    found, failure = distributed.from_first((found, failure))
    if failure:
        raise RunError(failure)
    return cast("T", found)


def _make_folder(config: TrainConfig, dataset: Dataset, resolved: dict[str, Any], *, keep: bool) -> None:
    clear_run(config.out, keep=keep)
    write_config(config.out, describe_run(config, dataset, resolved))


@contextmanager
def _memory_told(device: torch.device, batch_size: int) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"a batch of {batch_size} images does not fit into the memory of {device}: lower --batch-size (auto finds "
            "the largest that fits), raise --accumulate or give --amp; the last checkpoint, if any, is kept"
        ) from error


def _out_of_patience(config: TrainConfig, state: Checkpoint) -> bool:
    return config.patience is not None and state.epoch - state.best_epoch >= config.patience


class Run:
    """One run under way: a learner, where it is, and what it is fed with."""

    def __init__(
        self,
        config: TrainConfig,
        learner: Learner,
        state: Checkpoint,
        images: Loader,
        validation: Loader,
        rank: Rank,
        request: StopRequest,
    ) -> None:
        self._config, self._learner, self._state = config, learner, state
        self._images, self._validation, self._batch_size = images, validation, images.order.batch_size
        self._rank, self._request = rank, request
        self._sums = torch.zeros(3, dtype=torch.float64, device=learner.device)  # loss, right answers, images counted
        self._saved_s = time.monotonic()
        if state.model:
            self._restore()
        self._guard = Guard(learner)
        if state.buffers:
            self._guard.kept = [buffer.to(learner.device) for buffer in state.buffers]
        self._guard.skipped = state.skipped[1]

    def fit(self, on_epoch: Sequence[OnEpoch], after_step: OnStep, on_progress: OnProgress | None) -> None:
        """Run the epochs that are left."""
        config, state = self._config, self._state
        if config.compile:
            warm_up_compiler(self._learner, self._batch_size // self._rank.world_size, self._images.size)
        while state.epoch < config.epochs and not _out_of_patience(config, state):
            record: EpochRecord = {"epoch": state.epoch + 1}
            record |= self._train_epoch(after_step, on_progress)
            record |= self._validate()
            self._finish_epoch(record)
            for observer in on_epoch:
                observer(record)
        if _out_of_patience(config, state):
            logger.info("stopped early: no better %s for %d epochs", config.monitor, config.patience)

    def _train_epoch(self, after_step: OnStep, on_progress: OnProgress | None) -> EpochRecord:
        learner, images, epoch = self._learner, self._images, self._state.epoch
        first, n = images.position(epoch), images.order.length
        learner.model.train()
        begin = time.perf_counter()
        for batch, (pixels, labels) in enumerate(images.epoch(epoch), start=first + 1):
            size = images.order.rows_in(batch - 1)
            losses, logits = train_step(learner, pixels, labels, size)
            self._count(losses, logits, labels)
            after_step()
            if on_progress:
                on_progress(epoch * n + min(batch * self._batch_size, n), self._config.epochs * n)
            if batch % LOOK_EVERY == 0:
                self._look(batch)
            if batch < len(images):
                self._attend(batch)
        self._look(len(images))
        loss, right, counted = distributed.total(self._sums).tolist()
        if not counted:
            raise TrainingError(f"no step of epoch {epoch + 1} had a finite loss: lower --lr or leave --amp away")
        self._sums.zero_()
        seconds, steps = time.perf_counter() - begin, len(images) - first
        return {
            "train_loss": loss / counted,
            "train_accuracy": right / n,
            "lr": learner.optimizer.param_groups[0]["lr"],
            "skipped_steps": self._guard.skipped - self._state.skipped[0],
            "images_per_s": (n - first * self._batch_size) / seconds,
            "wait_share": images.wait_s / seconds,
            "wait_ms_per_step": 1000 * images.wait_s / steps,
            "longest_wait_ms": 1000 * images.longest_wait_s,
            "train_seconds": seconds,
        }

    def _count(self, losses: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Add a batch's figures up, on the device; what is not finite does not count."""
        finite = losses.isfinite()
        loss = torch.where(finite, losses, 0.0).sum(dtype=torch.float64)
        right = ((logits > 0) == (labels > 0.5)).sum()
        self._sums += torch.stack([loss, right.double(), finite.sum().double()])

    def _look(self, batch: int) -> None:
        """See whether all is well; this waits for the device."""
        skipped, allowed = self._guard.look() - self._state.skipped[0], self._config.max_skipped
        if skipped > allowed:
            raise TrainingError(
                f"{skipped} of the first {batch} steps of epoch {self._state.epoch + 1} had a gradient that is not "
                f"finite, {allowed} are allowed: lower --lr, leave --amp away or raise --max-skipped; the last "
                "checkpoint is kept"
            )

    def _attend(self, batch: int) -> None:
        """Save or stop between two steps, when the clock or a signal asks for it."""
        if self._rank.world_size > 1 and batch % LOOK_EVERY:
            return  # several processes ask each other, which waits for the device
        due = time.monotonic() - self._saved_s > 60 * self._config.checkpoint_minutes
        wish = distributed.highest(self._request.signal or (SAVE if due else 0), self._learner.device)
        if wish:
            self._save(self._images.state_dict())
        if wish > SAVE:
            at = f"step {batch} of epoch {self._state.epoch + 1}"
            raise TrainingStoppedError(f"stopped by {signal.Signals(wish).name} after {at}: go on with --resume", wish)

    @torch.inference_mode()
    def _validate(self) -> EpochRecord:
        learner = self._learner
        network = (learner.ema.model if learner.ema else learner.model).eval()
        begin, batches = time.perf_counter(), self._validation.epoch(self._state.epoch)
        parts = [(learner.logits(images, network), labels.clone()) for images, labels in batches]
        logits = distributed.gathered(torch.cat([part for part, _ in parts])).cpu()
        labels = distributed.gathered(torch.cat([part for _, part in parts])).cpu()
        weight = torch.tensor(self._state.pos_weight, dtype=torch.float64)
        loss = binary_cross_entropy_with_logits(logits.double(), labels.double(), pos_weight=weight).item()
        if not math.isfinite(loss):
            raise TrainingError(
                f"the validation loss became {loss} in epoch {self._state.epoch + 1}: lower --lr or leave --amp away; "
                "the last checkpoint, if any, is kept"
            )
        truth, scores = labels.numpy().astype(np.int64), logits.numpy()
        return {
            "val_loss": loss,
            "val_accuracy": float(((sigmoid(scores) >= 0.5) == truth).mean()),
            "val_auroc": auroc(truth, scores),
            "val_ap": average_precision(truth, scores),
            "val_seconds": time.perf_counter() - begin,
        }

    def _finish_epoch(self, record: EpochRecord) -> None:
        """Bring the state up to date and write it; the last checkpoint last, so that a kill before loses nothing."""
        state, learner = self._state, self._learner
        state.epoch, state.step = int(record["epoch"]), learner.step
        state.history = [*state.history, record]
        state.skipped = [self._guard.skipped] * 2
        key, direction = f"val_{state.monitor}", 1 if MONITORED[state.monitor].higher_is_better else -1
        is_best = not state.best_epoch or direction * record[key] > direction * state.best
        if is_best:
            state.best, state.best_epoch = float(record[key]), state.epoch
        if self._rank.number == 0:
            write_history(self._config.out, state.history)
            if is_best:
                judged = learner.ema.model if learner.ema else learner.model
                save_checkpoint(replace(state, model=judged.state_dict(), **_EMPTY), self._config.out / BEST)
        self._save({})
        if (number := distributed.highest(self._request.signal, learner.device)) and state.epoch < self._config.epochs:
            name = signal.Signals(number).name
            raise TrainingStoppedError(f"stopped by {name} after epoch {state.epoch}: go on with --resume", number)

    def _save(self, loader: dict[str, Any]) -> None:
        """Write the state between two steps."""
        learner, state = self._learner, self._state
        sums = distributed.total(self._sums)
        self._saved_s = time.monotonic()
        if self._rank.number:
            return
        random = [torch.get_rng_state()]
        if learner.device.type == "cuda":
            random.append(torch.cuda.get_rng_state(learner.device))
        ema = {"model": learner.ema.model.state_dict(), "updates": learner.ema.updates} if learner.ema else {}
        save_checkpoint(
            replace(
                state,
                model=learner.model.state_dict(),
                loader=loader,
                sums=sums.tolist(),
                step=learner.step,
                skipped=[state.skipped[0], self._guard.skipped],
                optimizer=learner.optimizer.state_dict(),
                scaler=learner.scaler.state_dict(),
                ema=ema,
                buffers=self._guard.kept,
                random=random,
                machine=self._machine(),
            ),
            self._config.out / LAST,
        )

    def _restore(self) -> None:
        """Put the learner and the loader where the state says."""
        learner, state = self._learner, self._state
        try:
            learner.model.load_state_dict(state.model)
        except RuntimeError as error:
            raise RunError(
                f"the checkpoint of run {self._config.out} does not fit model {state.arch!r}: train again"
            ) from error
        learner.optimizer.load_state_dict(state.optimizer)
        learner.scaler.load_state_dict(state.scaler)
        learner.step = state.step
        if learner.ema is not None:
            learner.ema.model.load_state_dict(state.ema["model"])
            learner.ema.updates = state.ema["updates"]
        if state.loader:
            self._images.load_state_dict(state.loader)
        if self._rank.number == 0:  # the sums are those of all processes
            self._sums += torch.tensor(state.sums, dtype=torch.float64, device=learner.device)
            torch.set_rng_state(state.random[0].cpu())
            if learner.device.type == "cuda" and len(state.random) > 1:
                torch.cuda.set_rng_state(state.random[1].cpu(), learner.device)
        changed = [name for name, value in self._machine().items() if state.machine.get(name) != value]
        if changed:
            logger.warning("resumed with other %s: the result will not be the same to the last bit", ", ".join(changed))

    def _machine(self) -> dict[str, Any]:
        return {
            "threads": torch.get_num_threads(),
            "processes": self._rank.world_size,
            "device": self._learner.device.type,
            "loader": self._images.engine,
            "torch": str(torch.__version__),
        }


_EMPTY: dict[str, Any] = {
    "loader": {}, "sums": [], "optimizer": {}, "scaler": {}, "ema": {}, "buffers": [], "random": [], "machine": {}
}  # fmt: skip
"""What a checkpoint that is only to be judged does without."""


def write_curves(run: Path, history: list[EpochRecord], best_epoch: int) -> None:
    """Draw the history into ``learning_curves.png``."""
    from pneumo_fast.drawing.curves import draw_learning_curves  # noqa: PLC0415  # matplotlib takes a third of a second

    write_atomic(run / CURVES, draw_learning_curves(history, best_epoch))
