"""What people see of a judged run in the terminal: tables of figures, and sentences."""

from __future__ import annotations

from rich.table import Table

from pneumo_fast.cli.display import NOT_CLINICAL, grid, out
from pneumo_fast.evaluation.compare import Comparison
from pneumo_fast.evaluation.results import Evaluation
from pneumo_fast.explanation.results import Explanation
from pneumo_fast.metrics.intervals import Estimate
from pneumo_fast.metrics.summary import Figures
from pneumo_fast.metrics.thresholds import ThresholdMetrics

RATES = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "sensitivity",
    "specificity": "specificity",
    "npv": "NPV",
    "f1": "F1",
    "mcc": "Matthews corr.",
    "net_benefit": "net benefit",
}


def show_evaluation(evaluation: Evaluation) -> None:
    """The figures as tables, what else has to be said as sentences."""
    f, ranking = evaluation.figures, evaluation.figures.ranking
    out.print(f"\n{f.n:,} images of the {evaluation.split} split, {f.positives:,} positive ({f.prevalence:.1%})")
    out.print(f"AUROC {_estimate(ranking.auroc)}, average precision {_estimate(ranking.average_precision)}")
    if ranking.auroc.value is not None:
        for found in ranking.sensitivity_at_specificity:
            out.print(f"Sensitivity {_estimate(found.sensitivity)} at specificity {found.specificity}")
        for spared in ranking.specificity_at_sensitivity:
            out.print(f"Specificity {_estimate(spared.specificity)} at sensitivity {spared.sensitivity}")
    if f.view_only:
        out.print(f"The view position alone: AUROC {_estimate(f.view_only.auroc)}")
    out.print(_threshold_table((*f.thresholds, f.always_negative), "At each threshold"))
    if f.parts:
        out.print(f"Chosen on {f.parts.chosen_on}, judged on {f.parts.reported_on}:")
        out.print(_chosen_table(f.chosen_thresholds))
    out.print(_quality_table(f))
    if f.subgroups:
        out.print(_subgroup_table(f))
    for sentence in (*f.tradeoffs, *evaluation.notes):
        out.print(sentence)
    out.print(f"Written to {evaluation.folder}", soft_wrap=True)
    out.print(NOT_CLINICAL, style="dim")


def _threshold_table(results: tuple[ThresholdMetrics, ...], title: str) -> Table:
    rows = grid("", *(_heading(t) for t in results), title=title)
    for name, label in RATES.items():
        rows.add_row(label, *(_estimate(getattr(t, name), bare=t.threshold is None) for t in results))
    for name, label in (("tp", "found"), ("fn", "missed"), ("fp", "false alarms"), ("tn", "rightly negative")):
        rows.add_row(label, *(f"{getattr(t.confusion, name):,}" for t in results))
    return rows


def _chosen_table(results: tuple[ThresholdMetrics, ...]) -> Table:
    rows = grid("threshold chosen for", "at", "sensitivity", "specificity")
    for t in results:
        cells = (_short(value) for value in (t.recall, t.specificity))
        rows.add_row(t.name, f"{t.threshold:.3f}", *cells)
    return rows


def _quality_table(figures: Figures) -> Table:
    """Quality of the probabilities; those after calibration are of the images reported on."""
    judged = {"plain, all": figures.probability}
    if figures.calibration:
        judged |= {"plain, part": figures.calibration.before, "calibrated": figures.calibration.after}
    rows = grid("probabilities", "Brier", "log loss", "ECE")
    for name, quality in judged.items():
        rows.add_row(name, *(_estimate(value) for value in (quality.brier, quality.log_loss, quality.ece)))
    return rows


def _subgroup_table(figures: Figures) -> Table:
    at = figures.thresholds[0].threshold
    rows = grid("subgroup", "n", "pos.", "AUROC", f"sensitivity\nat {at}", f"specificity\nat {at}")
    for g in figures.subgroups:
        name = f"{g.column} {g.value}" if len(g.value) < 12 else g.value
        cells = (_short(g.auroc), _number(g.sensitivity.value), _number(g.specificity.value))
        rows.add_row(name, f"{g.n:,}", f"{g.positives:,}", *cells)
    return rows


def show_comparison(comparison: Comparison) -> None:
    """Differences of two runs."""
    rows = grid("", comparison.a, comparison.b, "difference (95 %)", title=f"{comparison.b} less {comparison.a}")
    for d in comparison.differences:
        rows.add_row(d.name, _number(d.a), _number(d.b), _estimate(d.difference, signed=True))
    out.print(rows)
    out.print(comparison.text)
    out.print(f"Written to {comparison.path}", soft_wrap=True)


def show_explanation(explanation: Explanation) -> None:
    """Where the model looked, beside what chance would have hit."""
    boxes, random = explanation.boxes, explanation.randomised
    out.print(f"\n{explanation.method} of {explanation.layer}, a map of {' x '.join(map(str, explanation.map_size))}")
    if boxes:
        rows = grid(f"{boxes.images:,} images with boxes", "share")
        rows.add_row("map highest in a box (pointing game)", _estimate(boxes.hit_rate))
        rows.add_row("a random point", _estimate(boxes.hit_rate_random_point))
        rows.add_row("the centre of the image", _estimate(boxes.hit_rate_centre_point))
        if random.hit_rate:
            rows.add_row(f"random weights, map highest in a box ({random.images})", _estimate(random.hit_rate))
        rows.add_row("the map's sum within the boxes", _estimate(boxes.energy_share))
        rows.add_row("the boxes' share of the image", _estimate(boxes.box_area_share))
        out.print(rows)
    out.print(random.text)
    for note in explanation.notes:
        out.print(note)
    out.print(f"{len(explanation.images)} images drawn; written to {explanation.folder}", soft_wrap=True)
    out.print(NOT_CLINICAL, style="dim")


def _heading(result: ThresholdMetrics) -> str:
    return "always negative" if result.threshold is None else f"{result.threshold:g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _estimate(e: Estimate, *, bare: bool = False, signed: bool = False) -> str:
    """A figure with its 95 % interval in brackets."""
    if e.value is None:
        return "-"
    sign = "+" if signed else ""
    between = " to " if signed else "-"
    interval = "" if bare or e.low is None else f" ({e.low:{sign}.2f}{between}{e.high:{sign}.2f})"
    return f"{e.value:{sign}.3f}{interval}"


def _short(e: Estimate) -> str:
    """The same in two decimals, for a narrow column."""
    if e.value is None:
        return "-"
    return f"{e.value:.2f}" + ("" if e.low is None else f" ({e.low:.2f}-{e.high:.2f})")
