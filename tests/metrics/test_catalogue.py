"""The catalogue of metrics names what there is, and ``docs/metrics.md`` says the same."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

import pytest

from pneumo_fast.metrics.calibration import Quality
from pneumo_fast.metrics.catalogue import (
    COUNTS,
    METRICS,
    MONITORED,
    NPV_AT_PREVALENCE,
    PPV_AT_PREVALENCE,
    QUALITY,
    RANKING,
    RATES,
    SENSITIVITY,
    Metric,
    Term,
)
from pneumo_fast.metrics.intervals import Estimate
from pneumo_fast.metrics.ranking import Ranking
from pneumo_fast.metrics.thresholds import Confusion, ThresholdMetrics
from pneumo_fast.vocabulary import Monitor
from tests.support.repository import DOCS

DOCUMENT = DOCS / "metrics.md"


def row(term: Term) -> str:
    names, better = term.label, ""
    if isinstance(term, Metric):
        names += f" ({term.synonym})" if term.synonym else ""
        better = "higher " if term.higher_is_better else "lower "
    short = term.short_label if isinstance(term, Metric) else term.label
    return f"| `{term.key}` | {names} | {short} | {term.meaning} | {better}|"


def test_the_document_has_the_catalogue() -> None:
    lines = DOCUMENT.read_text().split("## The metrics and their names", 1)[1].split("\n## ", 1)[0].splitlines()
    assert [line for line in lines if line.startswith("| `")] == [row(term) for term in (*METRICS, *COUNTS)]


@pytest.mark.parametrize(
    ("terms", "kind"),
    [
        (RANKING, Ranking),
        (QUALITY, Quality),
        ((*RATES, PPV_AT_PREVALENCE, NPV_AT_PREVALENCE), ThresholdMetrics),
        (COUNTS, Confusion),
    ],
)
def test_every_figure_is_in_the_catalogue(terms: tuple[Term, ...], kind: type) -> None:
    figures = [f.name for f in fields(kind) if kind is Confusion or str(f.type).startswith(Estimate.__name__)]
    assert sorted(term.key for term in terms) == sorted(figures)


def test_every_figure_that_can_be_monitored_is_in_the_catalogue() -> None:
    assert set(MONITORED) == set(get_args(Monitor))
    assert [name for name, metric in MONITORED.items() if not metric.higher_is_better] == ["loss"]


def test_names() -> None:
    assert (SENSITIVITY.short_label, SENSITIVITY.title) == ("sens.", "Sensitivity")
    assert SENSITIVITY.full_title == "Sensitivity (recall)"
