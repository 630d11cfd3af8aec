"""What a report shows, as values: the templates ``report.html`` and ``model_card.md`` say how and where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pneumo_fast.evaluation.results import MetricsFile
from pneumo_fast.evaluation.verdict import optimism
from pneumo_fast.explanation.pointing import judge_maps
from pneumo_fast.formatting import TYPESET, number, percent
from pneumo_fast.metrics import catalogue
from pneumo_fast.metrics.calibration import Quality
from pneumo_fast.metrics.folds import BY_FOLD
from pneumo_fast.metrics.intervals import Estimate
from pneumo_fast.metrics.subgroups import Subgroup
from pneumo_fast.metrics.thresholds import ROUNDING, ThresholdMetrics, target_name
from pneumo_fast.metrics.verdict import (
    FEW_OF_A_CLASS,
    conclude,
    few_of_a_class,
    too_few,
    warn_of_few,
    warn_of_useless_thresholds,
)
from pneumo_fast.reporting.data_facts import Fact, overview
from pneumo_fast.reporting.gallery import Picture, load_pictures
from pneumo_fast.reporting.sources import RunFiles
from pneumo_fast.run.layout import EXPLAIN
from pneumo_fast.vocabulary import SPLIT_NAMES, counted

NOT_DRAWN: Final = f"Nothing is drawn: there are fewer than {FEW_OF_A_CLASS} images of a class."
ROWS: Final = (
    catalogue.SENSITIVITY, catalogue.SPECIFICITY, catalogue.PRECISION, catalogue.NPV,
    catalogue.ACCURACY, catalogue.F1, catalogue.MCC, catalogue.NET_BENEFIT,
)  # fmt: skip
"""Rows of the tables of thresholds, in their order."""
LIMITS: Final = (
    "The labels are those of the label table. Where they are wrong, so are the metrics.",
    (
        "A probability is the model's score for one image. It uses neither the patient's history nor earlier "
        "images, and no other disease than the one it was trained on."
    ),
    "A subgroup with few images says little; a difference that was not seen may still exist.",
    (
        "A heat map shows which locations raised the score. It proves neither that the model saw a finding nor that it "
        "is right."
    ),
)


@dataclass(frozen=True, slots=True)
class Card:
    """A headline figure, large, and beside it what is easy, in words and as a number."""

    title: str
    estimate: Estimate
    baseline_words: str
    baseline: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """How many images a split has."""

    split: str
    negatives: int
    positives: int

    @property
    def n(self) -> int:
        """Images."""
        return self.negatives + self.positives

    @property
    def share(self) -> str:
        """Share of positives."""
        return percent(self.positives / self.n) if self.n else number(None)


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """All that page and card show."""

    files: RunFiles
    pictures: list[Picture]
    dropped: int
    """Heat maps that do not come into the page."""

    @property
    def metrics(self) -> MetricsFile:
        """All figures."""
        return self.files.metrics

    @property
    def judged(self) -> list[str]:
        """Model, epoch, split and size of the images; of a cross-validation, that it is one."""
        run, folds = self.metrics.run, len(self.metrics.run.folds)
        sizes = [f"{source.manifest.image_shape[0]} pixels" for source in self.files.sources[:1]]
        what = [f"cross-validation of {folds} folds"] if folds else [f"epoch {run.epoch}"]
        what += [] if self.metrics.folds else [f"split {self.metrics.split}"]
        return [part for part in (run.arch, *what, *sizes) if part]

    @property
    def summary(self) -> str:
        """What was judged, in a sentence."""
        metrics, groups = self.metrics, self.metrics.intervals.groups
        split = SPLIT_NAMES.get(metrics.split, metrics.split)
        people = f" of {counted(groups, 'patient')}" if groups else ""
        where = f"of the {split} split"
        if metrics.folds:
            where = f"out of {len(metrics.folds)} folds, each image by the model of the fold that was not trained on it"
        elif metrics.run.folds:
            where += f", each image by the mean of {len(metrics.run.folds)} folds' logits"
        return (
            f"Evaluated on {counted(metrics.n, 'image')}{people} {where}: "
            f"{metrics.positives:,} positive ({percent(metrics.prevalence)}), {metrics.negatives:,} negative."
        )

    @property
    def conclusion(self) -> str:
        """What the figures come to, in a sentence or two."""
        return conclude(self.metrics, TYPESET)

    @property
    def few_images(self) -> str | None:
        """A warning that there are too few images to conclude from; None where there are enough."""
        return warn_of_few(self.metrics)

    @property
    def useless_thresholds(self) -> str | None:
        """A warning that no fixed threshold is useful; None where one is."""
        return warn_of_useless_thresholds(self.metrics)

    @property
    def drawable(self) -> bool:
        """Whether curves are drawn: of fewer than ten images of a class they would show chance alone."""
        return not few_of_a_class(self.metrics.n, self.metrics.positives)

    def too_few(self, group: Subgroup) -> bool:
        """Whether a subgroup has too few images of a class for a figure; its own class, where it is of one only."""
        return too_few(self.metrics, group)

    def missed(self, entry: ThresholdMetrics) -> bool:
        """Whether a threshold that was chosen for a target does not reach it on the images reported on."""
        options = self.metrics.options
        if options is None:
            return False
        reached = {
            target_name(catalogue.SENSITIVITY, options.target_sensitivity): (entry.recall, options.target_sensitivity),
            target_name(catalogue.SPECIFICITY, options.target_specificity): (
                entry.specificity, options.target_specificity,
            ),
        }  # fmt: skip
        found, target = reached.get(entry.name, (None, 0.0))
        return found is not None and found.value is not None and found.value < target - ROUNDING

    @property
    def overview(self) -> list[Fact]:
        """The data, what counts as positive, and whose images they are."""
        return overview(self.files)

    @property
    def maps(self) -> str:
        """What the pointing game says of the heat maps; empty where there are none."""
        found = self.files.explanation
        return "" if found is None else judge_maps(found.boxes, found.randomised.hit_rate)

    @property
    def large_subgroups(self) -> list[Subgroup]:
        """Subgroups with enough images to be drawn."""
        return [group for group in self.metrics.subgroups if not self.too_few(group)]

    @property
    def intervals(self) -> str:
        """How the intervals were made, in a sentence."""
        how = self.metrics.intervals
        return (
            f"Intervals are at {percent(how.level, 0)}: {how.method}, {how.resamples:,} resamples by {how.unit}, seed "
            f"{how.seed}."
        )

    @property
    def reported_on(self) -> str:
        """On which images chosen thresholds and calibration are judged."""
        return self.metrics.parts.reported_on if self.metrics.parts else f"all {self.metrics.n:,} images"

    @property
    def limits(self) -> list[str]:
        """What the figures do not say."""
        origin = "These images are not from the model's training collection."
        if self.metrics.dataset.trained_on:
            origin = optimism(self.metrics.split, out_of_fold=bool(self.metrics.folds))
        elsewhere = (
            f"The model was evaluated on {counted(self.metrics.n, 'image')} of one collection. On images of other "
            "hospitals, devices or patients it can be worse without notice: evaluate --dataset measures it on "
            "other data."
        )
        rarer = (
            f"Precision and negative predictive value hold where {percent(self.metrics.prevalence)} of the images are "
            "positive. Where pneumonia is rarer, precision is lower: evaluate --prevalence computes it."
        )
        return [sentence for sentence in (origin, elsewhere, rarer, *LIMITS) if sentence]

    @property
    def cards(self) -> tuple[Card, ...]:
        """The headline figures, beside what is easy."""
        first, ranking, view = self.metrics.thresholds[0], self.metrics.ranking, self.metrics.view_only
        by_view = f"the view position alone {number(view.auroc.value)}, chance 0.5" if view else "chance 0.5"
        easiest = view.auroc.value if view and view.auroc.value is not None else 0.5
        at, share = f" at {first.threshold:g}", self.metrics.prevalence
        return (
            Card(catalogue.AUROC.title, ranking.auroc, by_view, easiest),
            Card(catalogue.AVERAGE_PRECISION.title, ranking.average_precision, f"chance {number(share)}", share),
            Card(catalogue.SENSITIVITY.title + at, first.recall, "always negative 0", 0.0),
            Card(catalogue.SPECIFICITY.title + at, first.specificity, "always negative 1", 1.0),
        )

    @property
    def threshold_rows(self) -> list[tuple[str, str]]:
        """Title and key of each figure of a threshold."""
        rows = [(metric.full_title, metric.key) for metric in ROWS]
        if self.metrics.prevalence_stated is not None:
            at = f"where {percent(self.metrics.prevalence_stated)} are positive"
            rows += [(f"{metric.title} {at}", metric.key) for metric in catalogue.AT_PREVALENCE]
        return rows

    @property
    def qualities(self) -> dict[str, Quality]:
        """Of the probabilities that are drawn."""
        made = self.metrics.calibration
        if made is None:
            return {"Uncalibrated": self.metrics.probability}
        return {"Before calibration": made.before, "After calibration": made.after}

    @property
    def all_qualities(self) -> dict[str, Quality]:
        """Those, and where they are of a part of the images, that of all."""
        made, whole = self.metrics.calibration, self.metrics.probability
        return self.qualities | ({} if made is None or made.before == whole else {"All images, uncalibrated": whole})

    @property
    def fold_titles(self) -> list[str]:
        """Headings of the figures of a fold."""
        at = f" at {self.metrics.thresholds[0].threshold:g}"
        fixed = {catalogue.SENSITIVITY, catalogue.SPECIFICITY}
        return [metric.title + (at if metric in fixed else "") for metric in BY_FOLD]

    @property
    def folds(self) -> list[tuple[str, list[str], list[Estimate]]]:
        """A row for each fold of a cross-validation: number; images, positives and epoch; figures."""
        epochs = [number(None) if fold.epoch is None else str(fold.epoch) for fold in self.metrics.run.folds]
        return [
            (str(fold.fold), [f"{fold.n:,}", f"{fold.positives:,}", epoch], [getattr(fold, m.key) for m in BY_FOLD])
            for fold, epoch in zip(self.metrics.folds, epochs, strict=True)
        ]

    @property
    def spread(self) -> list[tuple[str, list[str]]]:
        """A row for each measure of how far the figures of the folds are apart."""
        names = {"Mean": "mean", "Standard deviation": "sd", "Lowest": "least", "Highest": "most"}
        return [(name, [number(getattr(spread, key)) for spread in self.metrics.spread]) for name, key in names.items()]

    @property
    def kinds(self) -> list[tuple[catalogue.Term, int]]:
        """The kinds of answers, and how many heat maps each has."""
        by_kind = Counter(picture.entry.kind for picture in self.pictures)
        return [(term, by_kind[term.key.upper()]) for term in (catalogue.TP, catalogue.FP, catalogue.FN, catalogue.TN)]

    @property
    def training_counts(self) -> tuple[Images, ...]:
        """Images of the training data; empty where they are not known."""
        described = None if self.files.description is None else self.files.description.dataset
        return () if described is None else images_of(described.counts)

    @property
    def seeds(self) -> list[Fact]:
        """What chose at random, and its seed."""
        training = None if self.files.training is None else self.files.training.seed
        splits: list[Fact] = [(f"split of {source.name}", source.split.seed) for source in self.files.sources]
        return [("training", training), ("intervals", self.metrics.intervals.seed), *splits]

    @property
    def resolved(self) -> list[Fact]:
        """What the options came to."""
        chosen = {} if self.files.description is None else self.files.description.resolved
        return [
            (name.replace("_", " "), f"{value:g}" if isinstance(value, float) else value)
            for name, value in chosen.items()
            if value not in (None, "None")
        ]


def make_view(files: RunFiles) -> View:
    """Draw the heat maps anew, and gather what is shown."""
    drawn = () if files.explanation is None else files.explanation.images
    pictures, dropped = load_pictures(files.run / EXPLAIN, drawn)
    return View(files=files, pictures=pictures, dropped=dropped)


def images_of(counts: Mapping[str, Mapping[str, int]]) -> tuple[Images, ...]:
    """Images by split."""
    return tuple(
        Images(split=SPLIT_NAMES.get(split, split), negatives=by_label.get("0", 0), positives=by_label.get("1", 0))
        for split, by_label in counts.items()
    )
