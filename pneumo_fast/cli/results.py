"""What people see of an evaluated run in the terminal: tables of figures, and sentences."""

from __future__ import annotations

from rich.table import Table

from pneumo_fast.cli.console import info, out
from pneumo_fast.cli.display import facts, grid, next_command
from pneumo_fast.evaluation.compare import Comparison
from pneumo_fast.evaluation.folders import is_reported
from pneumo_fast.evaluation.results import Evaluation
from pneumo_fast.evaluation.verdict import reach_verdict
from pneumo_fast.explanation.results import Explanation
from pneumo_fast.export.export import ExportSummary
from pneumo_fast.formatting import TERMINAL, shell_command
from pneumo_fast.metrics.catalogue import (
    AT_PREVALENCE,
    AUROC,
    COUNTS,
    QUALITY,
    RANKING,
    RATES,
    SENSITIVITY,
    SPECIFICITY,
)
from pneumo_fast.metrics.folds import BY_FOLD
from pneumo_fast.metrics.intervals import Estimate
from pneumo_fast.metrics.scored import class_at
from pneumo_fast.metrics.subgroups import ONE_CLASS
from pneumo_fast.metrics.summary import Figures
from pneumo_fast.metrics.thresholds import ThresholdMetrics
from pneumo_fast.metrics.verdict import too_few
from pneumo_fast.prediction.folder import TABLE
from pneumo_fast.prediction.options import PredictConfig
from pneumo_fast.prediction.predict import PredictSummary
from pneumo_fast.radiograph.rejection import SKIPPED
from pneumo_fast.run.layout import EXPLAIN, EXPLANATION
from pneumo_fast.serving.serve import ServeSummary
from pneumo_fast.vocabulary import METHOD_NAMES, NOT_CLINICAL, counted

_number, _share, _estimate = TERMINAL.number, TERMINAL.share, TERMINAL.estimate


def show_evaluation(evaluation: Evaluation) -> None:
    """The figures as tables, what else has to be said as sentences."""
    f, ranking = evaluation.figures, evaluation.figures.ranking
    where = f"of the {evaluation.split} split"
    if folds := len(evaluation.run.folds):
        where = f"out of {folds} folds, each by its own model" if f.folds else f"{where}, by the mean of {folds} folds"
    out.print(f"\n{f.n:,} images {where}, {f.positives:,} positive ({_share(f.prevalence)})")
    out.print(", ".join(f"{metric.label} {_estimate(getattr(ranking, metric.key))}" for metric in RANKING))
    if ranking.auroc.value is not None:
        for found in ranking.sensitivity_at_specificity:
            out.print(f"{SENSITIVITY.title} {_estimate(found.sensitivity)} at {SPECIFICITY.label} {found.specificity}")
        for other in ranking.specificity_at_sensitivity:
            out.print(f"{SPECIFICITY.title} {_estimate(other.specificity)} at {SENSITIVITY.label} {other.sensitivity}")
    if f.view_only:
        out.print(f"The view position alone: {AUROC.label} {_estimate(f.view_only.auroc)}")
    out.print(_threshold_table((*f.thresholds, f.always_negative), f.prevalence_stated))
    if f.parts:
        out.print(f"Chosen on {f.parts.chosen_on}, evaluated on {f.parts.reported_on}:")
        out.print(_chosen_table(f.chosen_thresholds))
    out.print(_quality_table(f))
    if f.folds:
        out.print(_fold_table(f))
    if f.subgroups:
        _show_subgroups(f)
    for sentence in (*f.tradeoffs, *evaluation.notes):
        out.print(sentence)
    out.print(f"\nWritten to {evaluation.folder}", soft_wrap=True)
    out.print(_verdict(evaluation))
    out.print(NOT_CLINICAL, style="dim")
    info.print(f"Next: {', then '.join(shell_command(*words) for words in _next_commands(evaluation))}", soft_wrap=True)


def show_verdict(evaluation: Evaluation) -> None:
    """The figures in a few lines, where two runs are compared."""
    out.print(f"\n{evaluation.options.run}", style="bold", soft_wrap=True)
    out.print(_verdict(evaluation))
    out.print(f"Written to {evaluation.folder}", soft_wrap=True)


def _verdict(evaluation: Evaluation) -> Table:
    return facts(zip(("Evaluated", "Result", "Caution"), reach_verdict(evaluation), strict=True))


def _next_commands(evaluation: Evaluation) -> list[tuple[object, ...]]:
    """The report of these figures, and before it heat maps of the same images, if the run has none yet."""
    options, folder = evaluation.options, evaluation.folder
    run = options.run
    report = ("report", run, *([] if is_reported(folder, run) else ["--evaluation", folder.name]))
    all_folds_at_once = evaluation.run.folds and not evaluation.figures.folds  # explain takes one model for an image
    if all_folds_at_once or (run / EXPLAIN / EXPLANATION).exists():
        return [report]
    data = () if options.dataset is None else ("--dataset", options.dataset)
    split = () if options.split == "val" else ("--split", options.split)
    return [("explain", run, *data, *split), report]


def _threshold_table(results: tuple[ThresholdMetrics, ...], prevalence: float | None = None) -> Table:
    headings = ("always\nnegative" if t.threshold is None else f"{t.threshold:g}" for t in results)
    rows = grid("", *headings, title="At each threshold")
    for metric in RATES:
        rows.add_row(metric.label, *(_rate(t, metric.key) for t in results))
    if prevalence is not None:
        where = f"where {100 * prevalence:.3g}%\nare positive"  # no wider than the counts' names: two columns fit in 80
        for metric in AT_PREVALENCE:
            rows.add_row(f"{metric.label} {where}", *(_rate(t, metric.key) for t in results))
    for count in COUNTS:
        rows.add_row(count.label, *(f"{getattr(t.confusion, count.key):,}" for t in results))
    return rows


def _chosen_table(results: tuple[ThresholdMetrics, ...]) -> Table:
    rows = grid("threshold chosen for", "at", SENSITIVITY.label, SPECIFICITY.label)
    for t in results:
        cells = (_estimate(value, 2) for value in (t.recall, t.specificity))
        rows.add_row(t.name, _number(t.threshold), *cells)
    return rows


def _quality_table(figures: Figures) -> Table:
    """Quality of the probabilities; those after calibration are of the images reported on."""
    found = {"uncalibrated": figures.probability}
    if calibration := figures.calibration:
        if calibration.before != figures.probability:
            found = {"uncalibrated,\nall images": figures.probability, "uncalibrated,\nsame images": calibration.before}
        found["calibrated"] = calibration.after
    rows = grid("", *found, title="Quality of the probability: lower is better")
    for metric in QUALITY:
        rows.add_row(metric.short_label, *(_estimate(getattr(quality, metric.key)) for quality in found.values()))
    return rows


def _fold_table(figures: Figures) -> Table:
    """The figures of each fold, and how far they are apart."""
    at = figures.thresholds[0].threshold
    titles = [f"{m.short_label}\nat {at}" if m in {SENSITIVITY, SPECIFICITY} else m.short_label for m in BY_FOLD]
    rows = grid("fold", "n", "pos.", *titles, title="By fold")
    for fold in figures.folds:
        values = (getattr(fold, metric.key).value for metric in BY_FOLD)
        rows.add_row(str(fold.fold), f"{fold.n:,}", f"{fold.positives:,}", *map(_number, values))
    rows.add_section()
    for name, key in (("mean", "mean"), ("SD", "sd"), ("lowest", "least"), ("highest", "most")):
        rows.add_row(name, "", "", *(_number(getattr(spread, key)) for spread in figures.spread))
    return rows


def _show_subgroups(figures: Figures) -> None:
    at = figures.thresholds[0].threshold
    rates = (f"{metric.short_label}\nat {at}" for metric in (SENSITIVITY, SPECIFICITY))
    rows = grid("subgroup", "n", "pos.", AUROC.label, *rates)
    for g in figures.subgroups:
        cells = [_estimate(g.auroc, 2), _number(g.sensitivity.value), _number(g.specificity.value)]
        if too_few(figures, g):
            cells = ["too few of a class", "", ""]
        rows.add_row(f"{g.column}: {g.value}{' *' * g.against_all}", f"{g.n:,}", f"{g.positives:,}", *cells)
    out.print(rows)
    if any(g.against_all for g in figures.subgroups):
        out.print(f"* {ONE_CLASS}")


def show_comparison(comparison: Comparison) -> None:
    """Differences of two runs."""
    rows = grid("", comparison.a, comparison.b, "difference (95 %)", title=f"{comparison.b} minus {comparison.a}")
    for d in comparison.differences:
        rows.add_row(d.name, _number(d.a), _number(d.b), _estimate(d.difference, signed=True))
    out.print(rows)
    out.print(comparison.text)
    out.print(f"Written to {comparison.path}", soft_wrap=True)
    out.print(NOT_CLINICAL, style="dim")


def show_explanation(explanation: Explanation) -> None:
    """Where the maps point, beside what chance would have hit."""
    boxes, random = explanation.boxes, explanation.randomised
    size = " x ".join(map(str, explanation.map_size))
    out.print(f"\n{METHOD_NAMES[explanation.method]} of {explanation.layer}: maps of {size} cells")
    if boxes:
        rows = grid(f"{counted(boxes.images, 'image')} with boxes", "share")
        rows.add_row("peak in a box (pointing game)", _estimate(boxes.hit_rate))
        rows.add_row("a random point", _estimate(boxes.hit_rate_random_point))
        rows.add_row("the centre of the image", _estimate(boxes.hit_rate_centre_point))
        if random.hit_rate:
            rows.add_row(f"random weights, peak in a box ({random.images})", _estimate(random.hit_rate))
        rows.add_row("share of the map inside the boxes", _estimate(boxes.energy_share))
        rows.add_row("share of the image inside the boxes", _estimate(boxes.box_area_share))
        out.print(rows)
    out.print(random.text)
    for note in explanation.notes:
        out.print(note)
    out.print(f"{counted(len(explanation.images), 'image')} drawn; written to {explanation.folder}", soft_wrap=True)
    out.print(NOT_CLINICAL, style="dim")
    next_command("report", explanation.folder.parent)


def show_export(summary: ExportSummary) -> None:
    """What was written, and how far it is from PyTorch."""
    size = summary.size
    rows = {
        "Input": f"image, float32 (N, 1, {size}, {size}), in [0, 1]; normalized inside",
        "Outputs": f"{', '.join(summary.outputs)}, each float32 (N,)",
        "Checked": f"{summary.runtime} against PyTorch, on {summary.checked_on}: largest difference "
        f"{summary.difference:.1e}",
    }
    out.print(facts(rows.items()))
    for note in summary.notes:
        out.print(note, soft_wrap=True)
    out.print(f"Written to {summary.path} ({summary.size_bytes / 1e6:.1f} MB)", soft_wrap=True)
    out.print(NOT_CLINICAL, style="dim")


def show_prediction(summary: PredictSummary, config: PredictConfig) -> None:
    """How many files were scored, what was found, and where the table is."""
    counts, point = summary.counts, summary.model.operating_point
    table = grid("files", "count")
    table.add_row("scored", f"{counts.scored:,}")
    names = {class_at(threshold): f"positive at {threshold:g}" for threshold in config.thresholds}
    if point:
        names["class"] = f"positive at the run's operating threshold, {_number(point.threshold)} ({point.name})"
    for name, count in counts.positives.items():
        table.add_row(f"  {names[name]}", f"{count:,}")
    for state, count in counts.results.items():
        table.add_row(f"  DICOM objects {state.replace('_', ' ')}", f"{count:,}")
    for kind, count in sorted(counts.warnings.items()):
        table.add_row(f"  warning: {kind}", f"{count:,}")
    for reason, count in sorted(counts.rejects.items()):
        table.add_row(f"{'skipped' if reason in SKIPPED else 'rejected'}: {reason}", f"{count:,}")
    out.print(table)
    if judged := summary.judgement:
        out.print(f"{judged.n:,} of them have a label, {judged.positives:,} positive")
        out.print(", ".join(f"{metric.label} {_estimate(getattr(judged.ranking, metric.key))}" for metric in RANKING))
        out.print(_threshold_table(judged.thresholds))
        if judged.operating_point:
            out.print(_chosen_table((judged.operating_point,)))
    for note in summary.notes:
        out.print(note)
    if summary.now:
        files = counted(summary.now, "file") + (" more" if summary.now < counts.files else "")
        out.print(f"{files} in {summary.seconds:.1f} s: {summary.now / summary.seconds:,.0f} files/s")
    out.print(f"Written to {summary.out / TABLE}", soft_wrap=True)
    out.print(NOT_CLINICAL, style="dim")


def show_serving(summary: ServeSummary) -> None:
    """What the journal has, when serving ends."""
    counts = summary.counts
    table = grid("instances", "count")
    table.add_row("received", f"{counts.received:,}")
    table.add_row("scored", f"{counts.scored:,}")
    for reason, count in counts.rejected.items():
        table.add_row(f"{'skipped' if reason in SKIPPED else 'rejected'}: {reason}", f"{count:,}")
    table.add_row("results made", f"{counts.results:,}")
    table.add_row("results sent", f"{counts.results_sent:,}")
    out.print(table)
    if counts.waiting or counts.results_waiting:
        waiting = f"{counted(counts.waiting, 'instance')} and {counted(counts.results_waiting, 'result')}"
        out.print(f"{waiting} wait in {summary.spool}: serve with the same spool goes on with them", soft_wrap=True)
    out.print(NOT_CLINICAL, style="dim")


def _rate(result: ThresholdMetrics, key: str) -> str:
    """A rate; with its interval, where some threshold gave it."""
    e: Estimate = getattr(result, key)
    return _estimate(e) if result.threshold is not None else _number(e.value)
