"""The verdict of an evaluation in three sentences: what was judged, what came out, and what to be careful about."""

from __future__ import annotations

from typing import NamedTuple

from pneumo_fast.evaluation.results import Evaluation
from pneumo_fast.formatting import TERMINAL
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


def _caution(evaluation: Evaluation) -> str:
    """What matters most of all that makes the figures uncertain or too good."""
    own, overlap = evaluation.dataset.trained_on, evaluation.overlap
    found = [warn_of_few(evaluation.figures), warn_of_useless_thresholds(evaluation.figures)]
    if own and evaluation.split == "train":
        found.append("The model was trained on these images: nothing follows for new ones.")
    if overlap is not None and (overlap.patients or overlap.images):
        found.append(f"The figures are too good. {overlap.note}")
    if any(found):
        return " ".join(filter(None, found))
    if evaluation.figures.folds:
        return "Each fold's checkpoint was selected on the images it is judged on: the figures are optimistic."
    if evaluation.selected_on_this_data:
        return "The checkpoint was selected on these images, so the figures are optimistic."
    if evaluation.intervals.groups is None:
        return "Patients are not known: a patient may also be in training, and intervals may be too narrow."
    return (
        "None found that is specific to this evaluation. Other hospitals, devices or patients may give other figures."
    )
