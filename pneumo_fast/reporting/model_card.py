"""Writes a run's model card, after Mitchell et al., "Model Cards for Model Reporting", FAT* 2019."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pneumo_fast.formatting import number
from pneumo_fast.formatting import plain_estimate as _e
from pneumo_fast.reporting.repeat import commands, hashes
from pneumo_fast.reporting.sources import Json, RunFiles, get
from pneumo_fast.reporting.words import (
    ETHICS,
    NOT_JUDGED,
    SPLITS,
    USE,
    intervals,
    limits,
    reported_on,
    subgroup_name,
    summary,
)


def model_card(files: RunFiles) -> str:
    """The card as Markdown."""
    parts = {
        "Model details": _details(files),
        "Intended use": _list(USE),
        "Factors": _factors(files.metrics),
        "Metrics": _metrics(files.metrics),
        "Evaluation data": _evaluation_data(files),
        "Training data": _training_data(files),
        "Quantitative analyses": _analyses(files.metrics),
        "Ethical considerations": _list(ETHICS),
        "Caveats and recommendations": _list(limits(files.metrics)),
        "How to repeat it": ["```", *commands(files), "```", "", *_table(("SHA-256 of", "checksum"), hashes(files))],
    }
    lines = [f"# Model card: {_plain(files.name)}", ""]
    for title, content in parts.items():
        lines += [f"## {title}", "", *content, ""]
    return "\n".join(lines)


def _details(files: RunFiles) -> list[str]:
    run, options = files.metrics["run"], get(files.config, "config") or {}
    normalized = f"mean {number(run['mean'], 4)} and standard deviation {number(run['std'], 4)}"
    said = [
        f"Architecture: {run['arch']} of torchvision with one input channel and one output, the logit of pneumonia.",
        f"Checkpoint: epoch {run['epoch']}, SHA-256 {run['sha256']}.",
        f"Input: square radiographs, normalized with {normalized}.",
        "Output: a probability; an image is called positive where it is at or above the threshold.",
    ]
    if options:
        names = ("epochs", "batch_size", "optimizer", "lr", "schedule", "augment", "weights", "seed")
        told = ", ".join(f"{name.replace('_', ' ')} {options[name]}" for name in names if name in options)
        said.append(f"Training: {told}; weight of a positive image {get(files.config, 'resolved', 'pos_weight')}.")
    said.append(f"Judged by {files.metrics['created_by']}.")
    return [*_list(said), *_list(files.remarks_about("checkpoint", "config"))]


def _factors(metrics: Json) -> list[str]:
    columns = sorted({group["column"] for group in metrics["subgroups"]})
    judged = f"Judged apart by {', '.join(columns)} (below)." if columns else "No factor is known of the images."
    return _list([judged, NOT_JUDGED])


def _metrics(metrics: Json) -> list[str]:
    fixed = ", ".join(f"{entry['threshold']:g}" for entry in metrics["thresholds"])
    what = (
        "AUROC and average precision for the ranking; sensitivity, specificity, precision and others at fixed "
        f"thresholds ({fixed}); Brier score, log loss and calibration error for the probability."
    )
    return _list([what, intervals(metrics), *metrics["notes"]])


def _evaluation_data(files: RunFiles) -> list[str]:
    said = [summary(files.metrics)]
    said += [f"Dataset: {source.name}, SHA-256 {source.identity}." for source in files.sources]
    for source in files.sources:
        manifest = source.manifest
        if leaks := manifest.split.get("leaks"):
            said.append(f"Leaks between splits: {leaks}.")
        if manifest.preprocessing:
            made = ", ".join(f"{name}: {value}" for name, value in manifest.preprocessing.items())
            said.append(f"Preprocessing: {manifest.image_shape[0]} x {manifest.image_shape[1]} pixels; {made}.")
        said.append(f"Rejected files: {sum(manifest.rejects.values()):,}.")
    return [*_list(said), *_list(files.remarks_about("dataset", "predictions"))]


def _training_data(files: RunFiles) -> list[str]:
    counts = get(files.config, "dataset", "counts")
    if not isinstance(counts, dict):
        return ["Not known: the run's config.json is missing or damaged."]
    rows = [
        (str(SPLITS.get(split, split)), f"{by['0'] + by['1']:,}", f"{by['0']:,}", f"{by['1']:,}")
        for split, by in counts.items()
    ]
    said = [f"Identity: SHA-256 {files.metrics['run']['dataset_identity']}."]
    if folds := get(files.config, "config", "folds"):
        said.append(
            f"Training and validation were divided anew: fold {get(files.config, 'config', 'fold')} of {folds}."
        )
    return [*_table(("Split", "Images", "Negative", "Positive"), rows), "", *_list(said)]


def _analyses(metrics: Json) -> list[str]:
    ranking, view = metrics["ranking"], metrics["view_only"]
    rows = [("AUROC", _e(ranking["auroc"])), ("Average precision", _e(ranking["average_precision"]))]
    if view:
        rows.append(("AUROC of the view position alone", _e(view["auroc"])))
    rows.append(("Always negative: accuracy", number(metrics["always_negative"]["accuracy"]["value"])))
    lines = _table(("Figure", "Value (95 % interval)"), rows)
    names = ("recall", "specificity", "precision", "npv", "accuracy", "f1", "mcc")
    heads = ("Threshold", "Sensitivity", "Specificity", "Precision", "NPV", "Accuracy", "F1", "Matthews correlation")
    at = [(entry["name"], *(_e(entry[name]) for name in names)) for entry in metrics["thresholds"]]
    lines += ["", *_table(heads, at)]
    if metrics["chosen_thresholds"]:
        chosen = [
            (
                entry["name"],
                number(entry["threshold"]),
                _e(entry["recall"]),
                _e(entry["specificity"]),
                _e(entry["precision"]),
            )
            for entry in metrics["chosen_thresholds"]
        ]
        lines += ["", f"Chosen thresholds, judged on {reported_on(metrics)}:", ""]
        lines += _table(("Chosen for", "Threshold", "Sensitivity", "Specificity", "Precision"), chosen)
    qualities = {"As the model says it, all images": metrics["probability"]}
    if metrics["calibration"]:
        qualities |= {"Before calibration": metrics["calibration"]["before"], "After": metrics["calibration"]["after"]}
    quality = [(name, *(_e(q[key]) for key in ("brier", "log_loss", "ece"))) for name, q in qualities.items()]
    lines += ["", *_table(("Probability", "Brier score", "Log loss", "Calibration error"), quality)]
    if metrics["subgroups"]:
        groups = [
            (
                subgroup_name(g),
                f"{g['n']:,}",
                f"{g['positives']:,}",
                _e(g["auroc"]),
                _e(g["sensitivity"]),
                _e(g["specificity"]),
            )
            for g in metrics["subgroups"]
        ]
        lines += ["", *_table(("Subgroup", "Images", "Positive", "AUROC", "Sensitivity", "Specificity"), groups)]
    return lines


def _list(sentences: Iterable[str]) -> list[str]:
    return [f"- {_plain(sentence)}" for sentence in sentences]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return [f"| {' | '.join(_plain(cell) for cell in line)} |" for line in lines]


def _plain(words: str) -> str:
    """Text that Markdown shows as it is: no tags, no columns, no new lines."""
    escaped = words.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    return " ".join(escaped.split())
