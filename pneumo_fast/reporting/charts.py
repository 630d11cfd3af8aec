"""The charts of a report's second part: calibration, decision curve, subgroups, learning curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from pneumo_fast.formatting import number, percent, plain_estimate
from pneumo_fast.reporting.markup import Html, details, estimate, join, paragraph, table, tag, text
from pneumo_fast.reporting.sources import Json, RunFiles
from pneumo_fast.reporting.svg import (
    WIDTH,
    Frame,
    Series,
    axes,
    dots,
    draw,
    label,
    legend,
    line,
    nice_ticks,
    rule,
    whole_ticks,
)
from pneumo_fast.reporting.words import CALIBRATED, DECISION, ONE_CLASS, RELIABILITY, reported_on, subgroup_name

SQUARE: Final = Frame()
WIDE: Final = Frame(height=280)
ROW: Final = 38.0
"""Height of a row of the forest plot."""
FIGURES: Final = 140.0
"""Width of its figures, beside the intervals."""


def calibration_section(files: RunFiles) -> Html:
    """How far a probability can be taken at its word, before and after calibration."""
    metrics = files.metrics
    calibration = metrics["calibration"]
    intro = paragraph(RELIABILITY)
    if calibration is None:
        qualities = {"As the model says it": metrics["probability"]}
        looks = {"As the model says it": "one"}
        why = paragraph("There is no calibration: the images to fit it on lack a class.", "missing")
    else:
        qualities = {"Before calibration": calibration["before"], "After calibration": calibration["after"]}
        looks = {"Before calibration": "two", "After calibration": "one"}
        said = CALIBRATED.format(
            shift=number(calibration["log_pos_weight"]),
            temperature=number(calibration["temperature"]),
            images=reported_on(metrics),
        )
        why = paragraph(said)
    chart = _reliability(qualities, looks)
    whole = {"All images, as the model says it": metrics["probability"]} if calibration else {}
    rows = [
        [text(name), *(estimate(quality[key]) for key in ("brier", "log_loss", "ece"))]
        for name, quality in (qualities | whole).items()
    ]
    columns = ("Probability", "Brier score", "Log loss", "Calibration error (ECE)")
    quality_table = table("Quality of the probability: less is better", columns, rows)
    return join([intro, why, chart, quality_table, _bins(qualities)])


def _reliability(qualities: dict[str, Json], looks: dict[str, str]) -> Html:
    most = max(bin_["n"] for quality in qualities.values() for bin_ in quality["reliability"])
    shapes = []
    for name, quality in qualities.items():
        bins = quality["reliability"]
        series = Series(
            name=name,
            look=looks[name],
            x=[bin_["mean_probability"] for bin_ in bins],
            y=[bin_["positive_share"] for bin_ in bins],
        )
        shapes += [line(SQUARE, series), dots(SQUARE, series, [2.5 + 5.5 * math.sqrt(b["n"] / most) for b in bins])]
    errors = ", ".join(f"{name.lower()} {plain_estimate(quality['ece'])}" for name, quality in qualities.items())
    drawing = draw(
        SQUARE,
        "Reliability diagram",
        f"Share of positives against mean probability, in ten bins. Calibration error: {errors}.",
        axes(SQUARE, "mean probability", "share of positives"),
        rule(SQUARE, (0, 0), (1, 1), "chance"),
        *shapes,
    )
    names = [(looks[name], f"{name.lower()}; larger dots hold more images") for name in qualities]
    return tag("figure", drawing, legend([*names, ("chance", "what is said is what is so")]))


def _bins(qualities: dict[str, Json]) -> Html:
    columns = ("Bin", "Images", "Mean probability", "Share of positives")
    tables = []
    for name, quality in qualities.items():
        rows = [
            [
                text(f"{number(bin_['low'], 1)} to {number(bin_['high'], 1)}"),
                text(f"{bin_['n']:,}"),
                text(number(bin_["mean_probability"])),
                text(number(bin_["positive_share"])),
            ]
            for bin_ in quality["reliability"]
        ]
        tables.append(table(name, columns, rows))
    return details("The diagram in numbers", *tables)


def decision_section(files: RunFiles) -> Html:
    """Whether acting on the model is better than acting on all or on none."""
    curve = files.metrics["decision_curve"]
    x, model, treat_all = curve["threshold"], curve["model"], curve["treat_all"]
    top = max(curve["prevalence"], *model, 0.01)
    ticks = [t for t in nice_ticks(0.0, top, 5) if t <= top * 1.35]
    low = -0.25 * top
    frame = Frame(height=300, y=(low, max(ticks[-1], top * 1.05)))
    drawing = draw(
        frame,
        "Decision curve",
        "Net benefit against the probability from which one would act: of the model, of acting on every image, and of "
        "acting on none, which is 0.",
        axes(frame, "probability from which one would act", "net benefit", y_ticks=ticks),
        rule(frame, (0, 0), (1, 0), "chance"),
        line(frame, Series(name="", look="two", x=x, y=treat_all)),
        line(frame, Series(name="", look="one", x=x, y=model)),
    )
    names = [
        ("one", f"act on the model ({curve['scale']} probability)"),
        ("two", "act on every image"),
        ("chance", "act on none"),
    ]
    rows = [
        [text(number(x[k], 2)), text(number(model[k])), text(number(treat_all[k])), text(number(0.0))]
        for k in range(4, len(x), 5)
    ]
    columns = ("Probability", "Model", "Every image", "None")
    return join([
        paragraph(DECISION.format(n=f"{curve['n']:,}", prevalence=percent(curve["prevalence"]))),
        tag("figure", drawing, legend(names)),
        details("The decision curve in numbers", table("Net benefit", columns, rows, hide_caption=True)),
    ])  # fmt: skip


# ---- subgroups


def subgroups_section(files: RunFiles) -> Html:
    """A forest plot of the AUROC by subgroup, and all figures as a table."""
    metrics = files.metrics
    groups = metrics["subgroups"]
    if not groups:
        return paragraph("Neither sex, age, view position nor class is known of these images.", "missing")
    at = f"{metrics['thresholds'][0]['threshold']:g}"
    rows = [
        [
            text(subgroup_name(group)),
            text(f"{group['n']:,}"),
            text(f"{group['positives']:,}"),
            join([estimate(group["auroc"]), *([text(" *")] if group["against_all"] else [])]),
            estimate(group["sensitivity"]),
            estimate(group["specificity"]),
        ]
        for group in groups
    ]
    columns = ("Subgroup", "Images", "Positive", "AUROC", f"Sensitivity at {at}", f"Specificity at {at}")
    parts = [
        paragraph("Wide intervals mean few images: a difference within them may be chance."),
        tag(
            "figure",
            _forest(metrics),
            legend([("chance", "chance, and all images together"), ("point", "AUROC with interval")]),
        ),
        table("Subgroups", columns, rows),
    ]
    if any(group["against_all"] for group in groups):
        parts.append(paragraph(ONE_CLASS, "hint"))
    return join(parts)


def _forest(metrics: Json) -> Html:
    groups = [g for g in metrics["subgroups"] if g["auroc"]["value"] is not None]
    ends = [end for g in groups for end in (g["auroc"]["low"], g["auroc"]["value"]) if end is not None]
    low = max(0.0, math.floor(10 * min([0.45, *ends])) / 10)
    frame = Frame(x=(low, 1.0), height=ROW * (len(groups) + 1) + 56, left=14, right=FIGURES, top=8, bottom=48)
    ticks = [t for t in nice_ticks(low, 1.0, 5) if low <= t <= 1.0]
    parts = [axes(frame, "AUROC", "", ticks, ())]
    parts.append(rule(frame, (0.5, 0), (0.5, 1), "chance"))
    whole = {"name": "All images", "auroc": metrics["ranking"]["auroc"], "n": metrics["n"]}
    rows = [whole, *({"name": subgroup_name(g), "auroc": g["auroc"], "n": g["n"]} for g in groups)]
    overall = metrics["ranking"]["auroc"]["value"]
    if overall is not None:
        parts.append(rule(frame, (overall, 0), (overall, 1), "chance"))
    for place, row in enumerate(rows):
        parts.append(_forest_row(frame, row, frame.top + ROW * place))
    return draw(frame, "Forest plot of the AUROC", "AUROC with interval for all images and each subgroup.", *parts)


def _forest_row(frame: Frame, row: Json, top: float) -> Html:
    """A subgroup's name above its interval, and the figures beside that."""
    e, y = row["auroc"], top + 26
    parts = [
        label((frame.left, top + 14), f"{row['name']}  ·  {row['n']:,}", "row"),
        label((WIDTH - 10, y + 4), plain_estimate(e), "row figures", "end"),
    ]
    if e["low"] is not None:
        x1, x2 = (frame.at(max(end, frame.x[0]), 0)[0] for end in (e["low"], e["high"]))
        parts.append(tag("line", x1=f"{x1:.1f}", x2=f"{x2:.1f}", y1=f"{y:.1f}", y2=f"{y:.1f}", class_="bar"))
    if e["value"] is not None:
        x = frame.at(max(e["value"], frame.x[0]), 0)[0]
        parts.append(tag("path", d=f"M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z", class_="point"))
    return tag("g", *parts)


# ---- learning


def learning_section(files: RunFiles) -> Html:
    """Loss and validation figures over the epochs."""
    if not files.history:
        return join(paragraph(sentence, "missing") for sentence in files.remarks_about("history"))
    best = files.metrics["run"]["epoch"]
    losses = [("train_loss", "training", "two"), ("val_loss", "validation", "one")]
    figures = [
        ("val_auroc", "AUROC", "one"),
        ("val_ap", "average precision", "two"),
        ("val_accuracy", "accuracy", "three"),
    ]
    charts = tag(
        "div",
        _epochs(files.history, "Loss", losses, best),
        _epochs(files.history, "Validation figures", figures, best),
        class_="pair",
    )
    keys = {key: name for key, name, _ in (("train_loss", "Training loss", ""), ("val_loss", "Validation loss", ""))}
    keys |= {"val_auroc": "AUROC", "val_ap": "Average precision", "val_accuracy": "Accuracy", "lr": "Learning rate"}
    rows = [[text(f"{record['epoch']}"), *(text(_plain(record.get(key))) for key in keys)] for record in files.history]
    numbers = details("The epochs in numbers", table("Epochs", ("Epoch", *keys.values()), rows, hide_caption=True))
    return join([paragraph(f"The checkpoint judged here is that of epoch {best}."), charts, numbers])


def _plain(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else number(None)


def _epochs(history: Sequence[Json], title: str, lines: Sequence[tuple[str, str, str]], best: int) -> Html:
    """Some figures of each epoch; an upright line marks the best epoch."""
    known = [(key, name, look) for key, name, look in lines if all(_finite(record.get(key)) for record in history)]
    epochs = [float(record["epoch"]) for record in history]
    if not known:
        return paragraph(f"{title}: not recorded, or not a number in some epoch.", "missing")
    values = [record[key] for key, _, _ in known for record in history]
    low, high = min(values), max(values)
    ticks = nice_ticks(low, high if high > low else low + 0.1, 5)
    last = max(epochs[-1], epochs[0] + 1)
    frame = Frame(height=270, x=(epochs[0], last), y=(ticks[0], ticks[-1]))
    series = [Series(name=name, look=look, x=epochs, y=[r[key] for r in history]) for key, name, look in known]
    shown = [t for t in whole_ticks(int(last)) if t >= epochs[0]]
    ends = ", ".join(f"{s.name} {number(s.y[-1])}" for s in series)
    drawing = draw(
        frame,
        title,
        f"Over {len(epochs)} epochs; at the end: {ends}.",
        axes(frame, "epoch", "", shown, ticks),
        rule(frame, (best, ticks[0]), (best, ticks[-1]), "best"),
        *(line(frame, s) for s in series),
        *(dots(frame, s, [2.6] * len(epochs)) for s in series if len(epochs) <= 40),
    )
    names = [(s.look, s.name) for s in series] + [("best", f"epoch {best}, judged here")]
    return tag("figure", tag("h3", text(title)), drawing, legend(names))


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
