"""What happens between two steps: counting, checking, saving, stopping, and the records of the epochs."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

import torch
from torch.nn.functional import avg_pool2d

from pneumo_fast.conversion.assemble import write_rejects
from pneumo_fast.errors import RunError, TrainingError, TrainingStoppedError
from pneumo_fast.loading.batches import Rank
from pneumo_fast.loading.loader import Loader
from pneumo_fast.loading.targets import Targets
from pneumo_fast.metrics.catalogue import MONITORED
from pneumo_fast.records import build
from pneumo_fast.run.checkpoint import EpochRecord, Resumable, Trained, save_checkpoint
from pneumo_fast.run.folder import write_history
from pneumo_fast.run.layout import BEST, LAST
from pneumo_fast.signals import StopRequest
from pneumo_fast.training import distributed
from pneumo_fast.training.learner import Learner
from pneumo_fast.training.observers import Observers
from pneumo_fast.training.options import TrainConfig

logger = logging.getLogger(__name__)

CHECK_EVERY = 50  # steps between two checks of the figures, each of which waits for the device


class SessionState(TypedDict):
    """State of a :class:`Session`."""

    sums: list[float]
    """Loss, correct answers, images counted and each auxiliary task's loss of the epoch under way, of all processes."""
    skipped_before: int
    random: list[torch.Tensor]
    """State of PyTorch's generator; of the device's own, too, where it has one."""
    machine: dict[str, int | str]


def goes_on(config: TrainConfig, trained: Trained) -> bool:
    """Whether epochs are left, and patience."""
    return trained.epoch < config.epochs and not _out_of_patience(config, trained)


def _out_of_patience(config: TrainConfig, trained: Trained) -> bool:
    return config.patience is not None and trained.epoch - trained.best_epoch >= config.patience


@dataclass(kw_only=True, slots=True)
class Session:
    """A run under way, between two of its steps."""

    config: TrainConfig
    trained: Trained
    """What is trained so far; brought up to date after each epoch."""
    rank: Rank
    request: StopRequest
    learner: Learner
    images: Loader
    """Training batches."""
    validation: Loader
    observers: Observers = field(default_factory=Observers)
    _sums: torch.Tensor = field(init=False)
    _batch: int = field(init=False, default=0)  # of the epoch, from 1
    _skipped_before: int = field(init=False, default=0)  # steps skipped before this epoch
    _saved_s: float = field(init=False, default_factory=time.monotonic)
    _record: EpochRecord = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Count from zero."""
        kinds = 3 + len(self.config.auxiliary)  # loss, correct answers, images counted, the auxiliary losses
        self._sums = torch.zeros(kinds, dtype=torch.float64, device=self.learner.device)

    @property
    def epoch(self) -> int:
        """The epoch under way, from 0."""
        return self.trained.epoch

    def goes_on(self) -> bool:
        """Whether epochs are left, and patience."""
        return goes_on(self.config, self.trained)

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, int, Targets | None]]:
        """The batches that are left of an epoch, whose record is then complete but for the validation.

        Yields
        ------
        images : Tensor of float32, shape (N, 1, H, W)
            This process's share of the batch, normalized, on the device, until the next batch is asked for; of half
            the size while progressive resizing lasts.
        labels : Tensor of float32, shape (N,)
            0 or 1.
        batch_size : int
            Images in the batch of all processes together.
        targets : Targets or None
            What the auxiliary tasks learn of this process's share, where there are any.

        Raises
        ------
        TrainingError
            If no step had a finite loss, or too many were skipped.
        """
        first, begin = self.images.position(self.epoch), time.perf_counter()
        self.learner.model.train()
        for batch, (images, labels) in enumerate(self.images.epoch(self.epoch), start=first + 1):
            self._batch = batch
            batch_size = self.images.order.rows_in(batch - 1) if self.rank.world_size > 1 else len(labels)
            if batch_size > 1:  # else its other files cannot be read, and BatchNorm may refuse a single image
                resized = avg_pool2d(images, 2) if self.is_half_size else images
                yield resized, labels, batch_size, self.images.targets(self.epoch, batch - 1)
        self._check()
        self._record = {"epoch": self.epoch + 1, **self._training_figures(first, begin)}

    @property
    def is_half_size(self) -> bool:
        """Whether the epoch under way trains on images of half the size."""
        return self.epoch < (self.config.half_size_epochs or 0)

    def after_step(
        self, losses: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor, auxiliary: torch.Tensor
    ) -> None:
        """Count the images of a step; now and then check, save or stop.

        Parameters
        ----------
        losses, logits, labels : Tensor of float32, shape (N,)
        auxiliary : Tensor of float32, shape (tasks, N)

        Raises
        ------
        TrainingError
            If too many steps were skipped.
        TrainingStoppedError
            After a signal, once the state is saved.
        """
        finite = losses.isfinite()  # what is not finite does not count
        loss = torch.where(finite, losses, 0.0).sum(dtype=torch.float64)
        correct = ((logits >= 0) == (labels > 0.5)).sum()
        auxiliary_sums = torch.where(finite, auxiliary, 0.0).nan_to_num(posinf=0.0).sum(1, dtype=torch.float64)
        self._sums += torch.cat([torch.stack([loss, correct.double(), finite.sum().double()]), auxiliary_sums])
        for observer in self.observers.after_step:
            observer()
        order = self.images.order
        if self.observers.on_progress:
            seen = min(self._batch * order.batch_size, order.length)
            self.observers.on_progress(self.epoch * order.length + seen, self.config.epochs * order.length)
        if self._batch % CHECK_EVERY == 0:
            self._check()
        if self._batch < len(self.images):
            self._save_or_stop()

    def _check(self) -> None:
        """See whether all is well; this waits for the device."""
        skipped, allowed = self.learner.check() - self._skipped_before, self.config.max_skipped
        if skipped > allowed:
            raise TrainingError(
                f"{skipped} of the first {self._batch} steps of epoch {self.epoch + 1} had a gradient that is not "
                f"finite, {allowed} are allowed: lower --lr, omit --amp or raise --max-skipped; the last "
                "checkpoint is kept"
            )

    def _save_or_stop(self) -> None:
        """Save or stop between two steps, when the clock or a signal asks for it."""
        if self.rank.world_size > 1 and self._batch % CHECK_EVERY:
            return  # several processes ask each other, which waits for the device
        due = time.monotonic() - self._saved_s > 60 * self.config.checkpoint_minutes
        wish = distributed.highest(2 * self.request.signal + due, self.learner.device)  # all agree
        if wish:
            self.save(self.images.state_dict())
        if number := wish // 2:
            name, at = signal.Signals(number).name, f"step {self._batch} of epoch {self.epoch + 1}"
            raise TrainingStoppedError(f"stopped by {name} after {at}: resume with --resume", number)

    def _training_figures(self, first: int, begin: float) -> EpochRecord:
        """What training adds to an epoch's record; the sums begin anew.

        An earlier process trained on the ``first`` batches; the others began at ``begin`` of :func:`time.perf_counter`.
        """
        images, (loss, correct, counted, *auxiliary) = self.images, distributed.total(self._sums).tolist()
        n = int(counted) if images.rejects else images.order.length
        if not counted:
            raise TrainingError(f"no step of epoch {self.epoch + 1} had a finite loss: lower --lr or omit --amp")
        self._sums.zero_()
        seconds, steps = time.perf_counter() - begin, len(images) - first
        return {
            "train_loss": loss / counted,
            "train_accuracy": correct / n,
            **{f"train_{task}_loss": one / counted for task, one in zip(self.config.auxiliary, auxiliary, strict=True)},
            "lr": self.learner.optimizer.param_groups[0]["lr"],
            "skipped_steps": self.learner.guard.skipped - self._skipped_before,
            "images_per_s": (n - first * images.order.batch_size) / seconds,
            "wait_share": images.wait_s / seconds,
            "wait_ms_per_step": 1000 * images.wait_s / steps,
            "longest_wait_ms": 1000 * images.longest_wait_s,
            "train_seconds": seconds,
        }

    def finish_epoch(self, validated: EpochRecord) -> None:
        """Write what the epoch came to; the last checkpoint last, so that a kill before loses nothing.

        Parameters
        ----------
        validated : dict
            Figures of the validation split.

        Raises
        ------
        TrainingStoppedError
            After a signal, once the state is saved, if epochs are left.
        """
        trained, record = self.trained, {**self._record, **validated}
        trained.epoch += 1
        trained.history = [*trained.history, record]
        self._skipped_before = self.learner.guard.skipped
        key, direction = f"val_{trained.monitor}", 1 if MONITORED[trained.monitor].higher_is_better else -1
        is_best = not trained.best_epoch or direction * record[key] > direction * trained.best
        if is_best:
            trained.best, trained.best_epoch = float(record[key]), trained.epoch
        if self.rank.number == 0:
            with self._writing():
                write_history(self.config.out, trained.history)
                if rejects := [*self.images.rejects, *self.validation.rejects]:
                    write_rejects(self.config.out, rejects)
                if is_best:
                    judged = replace(trained, model=self.learner.judged_model.state_dict())
                    save_checkpoint(judged, self.config.out / BEST)
        self.save({})
        for observer in self.observers.after_epoch:  # also where a signal is about to stop the run
            observer(record)
        number = self.request.signal = distributed.highest(self.request.signal, self.learner.device)
        if number and self.epoch < self.config.epochs:
            name = signal.Signals(number).name
            raise TrainingStoppedError(f"stopped by {name} after epoch {self.epoch}: resume with --resume", number)
        if _out_of_patience(self.config, trained):
            logger.info("stopped early: no better %s for %d epochs", self.config.monitor, self.config.patience)

    def save(self, loader: dict[str, Any]) -> None:
        """Write ``last.pt``; called in every process, whose sums are added up, it is the first that writes.

        Parameters
        ----------
        loader : dict
            State of the training loader within an epoch; empty between two.
        """
        random = [torch.get_rng_state()]
        if self.learner.device.type == "cuda":
            random.append(torch.cuda.get_rng_state(self.learner.device))
        session = {
            "sums": distributed.total(self._sums).tolist(),
            "skipped_before": self._skipped_before,
            "random": random,
            "machine": self._machine(),
        }
        self._saved_s = time.monotonic()
        if self.rank.number:
            return
        learner = self.learner.state_dict()
        trained = replace(self.trained, model=learner.pop("model"))
        checkpoint = Resumable(trained=trained, learner=learner, loader=loader, session=session)
        with self._writing():
            save_checkpoint(checkpoint, self.config.out / LAST)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TrainingError(
                f"run {self.config.out} cannot be written after epoch {len(self.trained.history)} ({error.strerror}): "
                "make room or allow writing, then resume with --resume; the checkpoint before, if any, is kept"
            ) from error

    def restore(self, checkpoint: Resumable) -> None:
        """Put learner, loader and session where a checkpoint says.

        A machine on which the result differs in its last bits is logged.

        Raises
        ------
        RunError
            If the checkpoint is of another model.
        """
        trained, device = checkpoint.trained, self.learner.device
        try:
            state = build(checkpoint.session, SessionState)
            self.learner.load_state_dict({"model": trained.model, **checkpoint.learner})
            if checkpoint.loader:
                self.images.load_state_dict(checkpoint.loader)
            self._skipped_before = state["skipped_before"]
            if self.rank.number == 0:  # the sums are those of all processes
                self._sums += torch.tensor(state["sums"], dtype=torch.float64, device=device).view_as(self._sums)
                torch.set_rng_state(state["random"][0])
                if device.type == "cuda" and len(state["random"]) > 1:
                    torch.cuda.set_rng_state(state["random"][1], device)
        except (RuntimeError, TypeError, ValueError, LookupError) as error:
            raise RunError(
                f"the checkpoint of run {self.config.out} is damaged or does not fit model {trained.arch!r} "
                f"({type(error).__name__}): train again"
            ) from error
        changed = [name for name, value in self._machine().items() if state["machine"].get(name) != value]
        if changed:
            logger.warning("resumed with other %s: the result will not be the same to the last bit", ", ".join(changed))

    def _machine(self) -> dict[str, Any]:
        return {
            "threads": torch.get_num_threads(),
            "processes": self.rank.world_size,
            "device": self.learner.device.type,
            "loader": self.images.engine,
            "torch": str(torch.__version__),
        }
