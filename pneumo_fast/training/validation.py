"""Figures of the validation split after an epoch."""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from pneumo_fast.errors import TrainingError
from pneumo_fast.loading.loader import Loader
from pneumo_fast.metrics.ranking import auroc, average_precision
from pneumo_fast.metrics.scored import sigmoid
from pneumo_fast.run.checkpoint import EpochRecord
from pneumo_fast.training import distributed
from pneumo_fast.training.learner import Learner


@torch.inference_mode()
def validate(learner: Learner, loader: Loader, epoch: int) -> EpochRecord:
    """Judge the learner's model on a split, every image once, whatever the number of processes.

    Parameters
    ----------
    epoch : int
        From 0.

    Returns
    -------
    dict
        ``val_loss``, with the weight of positives and in float64; ``val_accuracy`` at probability 0.5, ``val_auroc``
        and ``val_ap``, each in [0, 1]; ``val_seconds``.

    Raises
    ------
    TrainingError
        If the loss is not finite.
    """
    network, begin = learner.judged_model.eval(), time.perf_counter()
    parts = [(learner.logits(images, network), labels.clone()) for images, labels in loader.epoch(epoch)]
    logits = distributed.gathered(torch.cat([part for part, _ in parts])).cpu()
    labels = distributed.gathered(torch.cat([part for _, part in parts])).cpu()
    weight = torch.tensor(learner.pos_weight, dtype=torch.float64)
    loss = binary_cross_entropy_with_logits(logits.double(), labels.double(), pos_weight=weight).item()
    if not math.isfinite(loss):
        raise TrainingError(
            f"the validation loss became {loss} in epoch {epoch + 1}: lower --lr or omit --amp; the last "
            "checkpoint, if any, is kept"
        )
    truth, scores = labels.numpy().astype(np.int64), logits.numpy()
    return {
        "val_loss": loss,
        "val_accuracy": float(((sigmoid(scores) >= 0.5) == truth).mean()),
        "val_auroc": auroc(truth, scores),
        "val_ap": average_precision(truth, scores),
        "val_seconds": time.perf_counter() - begin,
    }
