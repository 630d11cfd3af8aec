"""The table of a report that has every figure at every threshold."""

from __future__ import annotations

from pneumo_fast.formatting import number, percent
from pneumo_fast.reporting.markup import Html, estimate, join, paragraph, table, text
from pneumo_fast.reporting.sources import Json


def thresholds_section(metrics: Json) -> Html:
    """Fixed and chosen thresholds with every figure and interval."""
    fixed = [*metrics["thresholds"], metrics["always_negative"]]
    parts = [
        paragraph(f"At the fixed thresholds, on all {metrics['n']:,} images:"),
        _figures_table("Fixed thresholds", fixed, metrics["prevalence_stated"]),
    ]
    if metrics["tradeoffs"]:
        parts += [paragraph(sentence) for sentence in metrics["tradeoffs"]]
    chosen = metrics["chosen_thresholds"]
    if chosen and metrics["parts"]:
        where = metrics["parts"]
        parts.append(paragraph(f"Chosen on {where['chosen_on']} and judged on {where['reported_on']}:"))
        parts.append(_figures_table("Chosen thresholds", chosen, metrics["prevalence_stated"]))
    else:
        parts.append(
            paragraph("No threshold could be chosen for a purpose: the images to choose on lack a class.", "missing")
        )
    return join(parts)


def _figures_table(caption: str, entries: list[Json], prevalence: float | None) -> Html:
    where = "" if prevalence is None else f"where {percent(prevalence)} are positive"
    names = {
        "recall": "Sensitivity (recall)",
        "specificity": "Specificity",
        "precision": "Precision (PPV)",
        "npv": "NPV",
        "accuracy": "Accuracy",
        "f1": "F1",
        "mcc": "Matthews correlation",
        "net_benefit": "Net benefit",
        "ppv_at_prevalence": f"PPV {where}",
        "npv_at_prevalence": f"NPV {where}",
    }
    rows = [[text("Threshold"), *(text(number(e["threshold"])) for e in entries)]]
    for key, name in names.items():
        if any(entry[key] is not None for entry in entries):
            shown = [estimate(e[key]) if e[key] is not None else text(number(None)) for e in entries]
            rows.append([text(name), *shown])
    for key, name in (("tp", "Found"), ("fn", "Missed"), ("fp", "False alarms"), ("tn", "Rightly negative")):
        rows.append([text(name), *(text(f"{entry['confusion'][key]:,}") for entry in entries)])
    heads = ("", *(entry["name"][:1].upper() + entry["name"][1:] for entry in entries))
    return table(caption, heads, rows)
