"""The figures of a report's first part: what was found, beside what is easy, and what it is worth."""

from __future__ import annotations

from typing import Final

from pneumo_fast.formatting import EstimateJson, interval, number
from pneumo_fast.reporting.markup import Html, bullets, estimate, join, paragraph, table, tag, text
from pneumo_fast.reporting.sources import Json, RunFiles
from pneumo_fast.reporting.words import intervals, summary

BAR: Final = 200.0
"""Length of a card's bar from 0 to 1."""


def results_section(files: RunFiles) -> Html:
    """The headline figures, and the same for simple baselines."""
    metrics = files.metrics
    first, ranking = metrics["thresholds"][0], metrics["ranking"]
    view = metrics["view_only"]
    by_view = f"the view position alone {number(view['auroc']['value'])}, chance 0.5" if view else "chance 0.5"
    at, share = f"at {first['threshold']:g}", metrics["prevalence"]
    cards = [
        _card("AUROC", ranking["auroc"], by_view, view["auroc"]["value"] if view else 0.5),
        _card("Average precision", ranking["average_precision"], f"chance {number(share)}", share),
        _card(f"Sensitivity {at}", first["recall"], "always negative 0", 0.0),
        _card(f"Specificity {at}", first["specificity"], "always negative 1", 1.0),
    ]  # fmt: skip
    return join([
        paragraph(summary(metrics), "lead"),
        tag("div", *cards, class_="cards"),
        _baselines(metrics),
        _levels(metrics),
    ])  # fmt: skip


def _card(name: str, e: EstimateJson, beside: str, baseline: float) -> Html:
    """One figure, large; its interval as a bar on which the baseline is marked."""
    between = interval(e)
    return tag(
        "div",
        tag("h3", text(name)),
        tag("p", text(number(e["value"])), class_="figure"),
        _bar(e, baseline),
        paragraph(f"95 % interval {between}" if between else "no interval", "interval"),
        paragraph(beside, "beside"),
        class_="card",
    )


def _bar(e: EstimateJson, baseline: float) -> Html:
    def x(value: float) -> str:
        return f"{4 + BAR * min(max(value, 0.0), 1.0):.1f}"

    parts = [tag("line", x1=x(0), x2=x(1), y1="9", y2="9", class_="track")]
    if e["low"] is not None:
        parts.append(tag("line", x1=x(e["low"]), x2=x(e["high"]), y1="9", y2="9", class_="range"))
    parts.append(tag("line", x1=x(baseline), x2=x(baseline), y1="3", y2="15", class_="base"))
    if e["value"] is not None:
        parts.append(tag("circle", cx=x(e["value"]), cy="9", r="4", class_="value"))
    return tag("svg", *parts, viewBox=f"0 0 {BAR + 8:g} 18", class_="card-bar", aria_hidden="true")


def _baselines(metrics: Json) -> Html:
    """The model beside answers that need no image."""
    names = ("accuracy", "recall", "specificity", "precision", "f1")
    ranking = metrics["ranking"]
    rows = [
        [
            text(f"Model, threshold {entry['threshold']:g}"),
            estimate(ranking["auroc"]),
            estimate(ranking["average_precision"]),
            *(estimate(entry[name]) for name in names),
        ]
        for entry in metrics["thresholds"]
    ]
    never = metrics["always_negative"]
    both = ranking["auroc"]["value"] is not None
    chance = (number(0.5), number(metrics["prevalence"])) if both else (number(None), number(None))
    rows.append([text("Always negative"), *map(text, chance), *(text(number(never[name]["value"])) for name in names)])
    if metrics["view_only"]:
        nothing = [text(number(None))] * (1 + len(names))
        rows.append([text("View position alone"), estimate(metrics["view_only"]["auroc"]), *nothing])
    columns = ("", "AUROC", "Average precision", "Accuracy", "Sensitivity", "Specificity", "Precision", "F1")
    return table("Beside what needs no look at the image", columns, rows)


def _levels(metrics: Json) -> Html:
    """The best points of the ROC curve at given levels."""
    ranking = metrics["ranking"]
    if ranking["auroc"]["value"] is None:
        return Html("")
    rows = [
        [
            text(f"Sensitivity where the specificity is at least {entry['specificity']:g}"),
            estimate(entry["sensitivity"]),
        ]
        for entry in ranking["sensitivity_at_specificity"]
    ]
    rows += [
        [
            text(f"Specificity where the sensitivity is at least {entry['sensitivity']:g}"),
            estimate(entry["specificity"]),
        ]
        for entry in ranking["specificity_at_sensitivity"]
    ]
    return table("Best points of the ROC curve", ("", "Value"), rows)


def worth_section(files: RunFiles) -> Html:
    """What has to be said beside the figures."""
    return bullets([*files.metrics["notes"], intervals(files.metrics)])
