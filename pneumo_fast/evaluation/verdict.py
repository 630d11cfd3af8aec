"""The verdict of an evaluation in three sentences: what was judged, what came out, and what to be careful about."""

from __future__ import annotations

from typing import NamedTuple

from pneumo_fast.evaluation.results import Evaluation
from pneumo_fast.formatting import TERMINAL
from pneumo_fast.metrics.catalogue import MONITORED
from pneumo_fast.metrics.verdict import conclude, warn_of_few, warn_of_useless_thresholds
from pneumo_fast.vocabulary import SPLIT_NAMES, counted


class Verdict(NamedTuple):
    """A sentence or two for each."""

    judged: str
    result: str
    caution: str


def reach_verdict(evaluation: Evaluation) -> Verdict:
    """Sum an evaluation up."""
    figures, dataset, patients = evaluation.figures, evaluation.dataset, evaluation.intervals.groups
    people = f" of {counted(patients, 'patient')}" if patients else ", patients not known"
    whose = "the run's own data" if dataset.trained_on else "other data than the run's"
    split = f"{SPLIT_NAMES[evaluation.split]} split"
    if figures.folds:
        split = f"out-of-fold predictions of {len(figures.folds)} folds"
    elif evaluation.run.folds:
        split += f", by the mean of {len(evaluation.run.folds)} folds"
    judged = (
        f"{counted(figures.n, 'image')}{people}, {figures.positives} positive: {split} of {dataset.name} ({whose})."
    )
    return Verdict(judged, conclude(figures, TERMINAL), _caution(evaluation))


def optimism(split: str, *, out_of_fold: bool, monitor: str = "") -> str:
    """Say in a sentence why the metrics of a run's own data are too good; empty where they are not.

    Parameters
    ----------
    out_of_fold : bool
        Whether each image is judged by the model of the fold that was not trained on it.
    monitor : str, optional
        By which metric the checkpoint was selected, where that is to be said.
    """
    best = f" (best {MONITORED[monitor].label} on split 'val')" if monitor else ""
    if out_of_fold:
        return (
            f"Each fold's checkpoint was selected on the images that it is evaluated on{best}, so the metrics are "
            "optimistic."
        )
    return {
        "train": "The model was trained on these images: the metrics say nothing about new ones.",
        "val": f"The checkpoint was selected on these images{best}, so the metrics are optimistic.",
    }.get(split, "")


def _caution(evaluation: Evaluation) -> str:
    """What matters most of all that makes the figures uncertain or too good."""
    overlap = evaluation.overlap
    optimistic = ""
    if evaluation.dataset.trained_on:
        optimistic = optimism(evaluation.split, out_of_fold=bool(evaluation.figures.folds))
    found = [warn_of_few(evaluation.figures), warn_of_useless_thresholds(evaluation.figures)]
    if evaluation.split == "train":
        found.append(optimistic)
    if overlap is not None and (overlap.patients or overlap.images):
        found.append(f"The figures are too good. {overlap.note}")
    if any(found):
        return " ".join(filter(None, found))
    if optimistic:
        return optimistic
    if overlap is not None and overlap.patients is None:
        return overlap.note
    if evaluation.intervals.groups is None:
        return "Patients are not known: a patient may also be in training, and intervals may be too narrow."
    return (
        "None found that is specific to this evaluation. Other hospitals, devices or patients may give other figures."
    )
