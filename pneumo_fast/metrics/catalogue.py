"""The catalogue of metrics: what each is called, what it means, and which way is better.

Terminal, figures, report, model card and ``docs/metrics.md`` read the same one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True, slots=True)
class Term:
    """Something that is shown under a name."""

    key: str
    """As ``metrics.json`` and the dataclasses name it."""
    label: str
    """As people call it, within a sentence."""
    meaning: str
    """A phrase."""

    @property
    def title(self) -> str:
        """The label as the head of a row or column begins, with a capital."""
        return self.label[:1].upper() + self.label[1:]


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric(Term):
    """A figure by which images, a threshold or an epoch are judged."""

    abbreviation: str = ""
    """A label for narrow columns; empty where the label is short enough."""
    synonym: str = ""
    """Another name in wide use; empty where there is none."""
    higher_is_better: bool = True

    @property
    def short_label(self) -> str:
        """The shortest label there is."""
        return self.abbreviation or self.label

    @property
    def full_title(self) -> str:
        """The title with the other name in brackets: ``Sensitivity (recall)``."""
        return f"{self.title} ({self.synonym})" if self.synonym else self.title


AUROC: Final = Metric(
    key="auroc", label="AUROC", meaning="area under the ROC curve: how often a positive scores above a negative"
)
AVERAGE_PRECISION: Final = Metric(
    key="average_precision",
    label="average precision",
    abbreviation="AP",
    meaning="area under the steps of the precision-recall curve",
)
RANKING: Final = (AUROC, AVERAGE_PRECISION)
"""What depends on the order of the images alone."""

BRIER: Final = Metric(
    key="brier",
    label="Brier score",
    abbreviation="Brier",
    meaning="mean squared difference of probability and label",
    higher_is_better=False,
)
LOG_LOSS: Final = Metric(
    key="log_loss", label="log loss", meaning="mean of -ln(probability of the true class)", higher_is_better=False
)
ECE: Final = Metric(
    key="ece",
    label="calibration error",
    abbreviation="ECE",
    synonym="ECE",
    meaning="mean distance of probability and share of positives over ten bins of the probability",
    higher_is_better=False,
)
QUALITY: Final = (BRIER, LOG_LOSS, ECE)
"""How good probabilities are as probabilities."""

ACCURACY: Final = Metric(key="accuracy", label="accuracy", abbreviation="acc.", meaning="share called right")
PRECISION: Final = Metric(
    key="precision", label="precision", synonym="PPV", meaning="share of positives among those called positive"
)
SENSITIVITY: Final = Metric(
    key="recall", label="sensitivity", abbreviation="sens.", synonym="recall", meaning="share of positives found"
)
SPECIFICITY: Final = Metric(
    key="specificity", label="specificity", abbreviation="spec.", meaning="share of negatives called negative"
)
NPV: Final = Metric(key="npv", label="NPV", meaning="share of negatives among those called negative")
F1: Final = Metric(key="f1", label="F1", meaning="harmonic mean of precision and sensitivity")
MCC: Final = Metric(key="mcc", label="MCC", synonym="Matthews correlation", meaning="correlation of labels and calls")
NET_BENEFIT: Final = Metric(
    key="net_benefit",
    label="net benefit",
    meaning="true positives minus weighted false positives, as a share of the images",
)
RATES: Final = (ACCURACY, PRECISION, SENSITIVITY, SPECIFICITY, NPV, F1, MCC, NET_BENEFIT)
"""What one threshold gives."""

PPV_AT_PREVALENCE: Final = Metric(
    key="ppv_at_prevalence", label="PPV", meaning="precision where the stated share of images is positive"
)
NPV_AT_PREVALENCE: Final = Metric(
    key="npv_at_prevalence", label="NPV", meaning="NPV where the stated share of images is positive"
)
AT_PREVALENCE: Final = (PPV_AT_PREVALENCE, NPV_AT_PREVALENCE)
"""What one threshold gives where a prevalence is stated."""

LOSS: Final = Metric(
    key="loss", label="loss", meaning="weighted cross-entropy, which training lowers", higher_is_better=False
)

METRICS: Final = (*RANKING, *QUALITY, *RATES, *AT_PREVALENCE, LOSS)

TP: Final = Term(key="tp", label="true positives", meaning="positives called positive: found")
FN: Final = Term(key="fn", label="false negatives", meaning="positives called negative: missed")
FP: Final = Term(key="fp", label="false positives", meaning="negatives called positive: false alarms")
TN: Final = Term(key="tn", label="true negatives", meaning="negatives called negative")
COUNTS: Final = (TP, FN, FP, TN)
"""The cells of a confusion matrix."""

MONITORED: Final[dict[str, Metric]] = {"auroc": AUROC, "ap": AVERAGE_PRECISION, "loss": LOSS, "accuracy": ACCURACY}
"""What can decide which epoch is the best, by its name in the history, where it follows ``train_`` or ``val_``."""
