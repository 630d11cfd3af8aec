"""The longer sentences of a report and a model card, in plain words."""

from __future__ import annotations

from typing import Final

from pneumo_fast.formatting import percent
from pneumo_fast.reporting.sources import Json
from pneumo_fast.vocabulary import counted

SPLITS: Final = {"train": "training", "val": "validation", "test": "test"}
NOT_CLINICAL: Final = "This is research software and not for clinical use."

THRESHOLD: Final = (
    "An image is called positive when its probability is at or above the threshold. A lower threshold misses fewer "
    "positives and raises more false alarms. The figures are of all {n} images; their intervals stand under Thresholds."
)
RELIABILITY: Final = (
    "Of images with probability 0.8, four in five should be positive: dots on the diagonal say that it is so."
)
CALIBRATED: Final = (
    "Calibration takes {shift} off the logit, for the weight of positives in training, and divides it by a "
    "temperature of {temperature}. Both lines are of {images}."
)
DECISION: Final = (
    "Acting from probability p on says that a miss is worth (1 \N{MINUS SIGN} p) / p false alarms. Net benefit is "
    "the share of images that are found positives, less that of false alarms at this price. The model helps where "
    "its line is the highest. On {n} images, {prevalence} positive."
)
ONE_CLASS: Final = "* This subgroup holds one class only: its images are ranked against all of the other class."
HEAT: Final = (
    "{method} at layer {layer} ({height} x {width} fields) on split {split}: the brighter a place, the more it "
    "raised the score. Outlines are the boxes of the label table; an image is called positive from {threshold} on. "
    "A heat map shows what moved the score, not why, and not whether that was right."
)
LIMITS: Final = (
    "The labels are those of the label table. Where they are wrong, the figures are wrong with them.",
    (
        "A probability is the model's score for one image. It knows neither the patient's history nor earlier "
        "images, and no other disease than the one it was trained on."
    ),
    "A subgroup with few images says little; that no difference was seen does not mean that there is none.",
    (
        "A heat map shows which places moved the score. It proves neither that the model saw a finding nor that it "
        "is right."
    ),
)
USE: Final = (
    "Intended: research on methods, teaching, comparison of models on public data.",
    "Intended users: people who can judge what the figures below are worth.",
    f"Out of scope: any decision about a patient. {NOT_CLINICAL}",
)
NOT_JUDGED: Final = (
    "Not judged: device, hospital, other diseases, treatment before. The view position often goes with how ill a "
    "patient is, and a model can learn that instead of the finding."
)
ETHICS: Final = (
    (
        "The images are of people. Nothing that names a patient is in a dataset, a run or this card; patients are "
        "known by pseudonyms alone."
    ),
    (
        "A model can be worse for groups that are rare in its training data; the subgroups above show only those "
        "that the files tell of."
    ),
)


def summary(metrics: Json) -> str:
    """What was judged, in a sentence."""
    groups = metrics["intervals"]["groups"]
    people = f" of {counted(groups, 'patient')}" if groups else ""
    split = SPLITS.get(metrics["split"], metrics["split"])
    return (
        f"Judged on {counted(metrics['n'], 'image')}{people} of the {split} split: {metrics['positives']:,} positive "
        f"({percent(metrics['prevalence'])}), {metrics['negatives']:,} negative."
    )


def intervals(metrics: Json) -> str:
    """How the intervals were made."""
    how = metrics["intervals"]
    return (
        f"Intervals are at {percent(how['level'], 0)}: {how['method']}, {how['resamples']:,} resamples by "
        f"{how['unit']}, seed {how['seed']}."
    )


def reported_on(metrics: Json) -> str:
    """On which images chosen thresholds and calibration are judged."""
    parts = metrics["parts"]
    return str(parts["reported_on"]) if parts else f"all {metrics['n']:,} images"


def subgroup_name(group: Json) -> str:
    """A subgroup in words."""
    return f"{group['column']}: {group['value']}"


def limits(metrics: Json) -> list[str]:
    """What the figures do not say."""
    origin = {
        True: "These images chose the checkpoint, so the figures are better than new images will show.",
        False: "",
        None: "These images are not of the collection that the model was trained on.",
    }[metrics["selected_on_this_data"]]
    if metrics["split"] == "train" and metrics["dataset"]["trained_on"]:
        origin = "The model was trained on these very images: the figures say nothing about new ones."
    elsewhere = (
        f"The model was judged on {counted(metrics['n'], 'image')} of one collection. On images of other hospitals, "
        "devices or patients it can do worse, without showing it: evaluate --dataset tries it on other data."
    )
    rarer = (
        f"Precision and negative predictive value hold where {percent(metrics['prevalence'])} of the images are "
        "positive. Where pneumonia is rarer, more of the alarms are false: evaluate --prevalence computes it."
    )
    return [sentence for sentence in (origin, elsewhere, rarer, *LIMITS) if sentence]
