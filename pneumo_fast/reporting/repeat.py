"""How to repeat a run: the commands that lead to its report, made from the options that its files keep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pneumo_fast.configuration import arguments_of
from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.formatting import shell_command
from pneumo_fast.radiograph.rejection import SKIPPED
from pneumo_fast.records import Fault, build
from pneumo_fast.reporting.options import ReportConfig
from pneumo_fast.reporting.sources import JudgedDataset, RunFiles
from pneumo_fast.run.layout import EXPLANATION, METRICS


def commands(files: RunFiles) -> list[str]:
    """Command lines as a shell takes them; those whose options are not known are left out."""
    run, metrics, explanation = Path(files.name), files.metrics, files.explanation
    steps: list[tuple[str, Any]] = [("convert", _conversion(source, files)) for source in files.sources]
    trained = files.training and replace(  # every option of a recipe by itself: one may have been overridden
        files.training, out=run, recipe="reference", resume=False, overwrite=False
    )
    steps.append(("train", trained))
    steps.append(("evaluate", metrics.options and replace(metrics.options, run=run)))
    if explanation is not None:
        explained = explanation.options and replace(explanation.options, run=run)
        steps.append(("explain", explained))
        if explained is not None and explanation.added_ids:
            steps.append(("explain", replace(explained, ids=explanation.added_ids)))
    steps.append(("report", ReportConfig(run=run)))
    return [shell_command(name, *arguments_of(config)) for name, config in steps if config is not None]


def unknown_options(files: RunFiles) -> list[str]:
    """Which options are not known, in sentences."""
    found = {METRICS: files.metrics, EXPLANATION: files.explanation}
    return [
        f"The options behind {name} are not known: an earlier release wrote it without them."
        for name, record in found.items()
        if record is not None and record.options is None
    ]


def hashes(files: RunFiles) -> list[tuple[str, str]]:
    """What identifies checkpoint and data."""
    metrics = files.metrics
    folds = [(f"checkpoint of fold {number}", fold.sha256) for number, fold in enumerate(metrics.run.folds, start=1)]
    found = [
        *(folds or [("evaluated checkpoint", metrics.run.sha256)]),
        ("evaluation dataset", metrics.dataset.identity),
    ]
    if not metrics.dataset.trained_on:
        found.append(("training dataset", metrics.run.dataset_identity))
    if files.explanation is not None and files.explanation.run.sha256 != metrics.run.sha256:
        found.append(("checkpoint of the heat maps", files.explanation.run.sha256))
    return found


def _conversion(source: JudgedDataset, files: RunFiles) -> ConvertConfig | None:
    """The options of a conversion; files that the manifest does not name stand as words in capitals."""
    arguments = source.manifest.arguments
    named = arguments.get("files")
    if not isinstance(named, list):  # an earlier release did not say which files there were
        known = {
            "groups": source.split.group_source == "mapping",
            "class_info": any(group.column == "class" for group in files.metrics.subgroups),
        }
        named = [name for name, there in known.items() if there]
    given: dict[str, Any] = {"out": source.name, **{name: name.upper() for name in ("images", "labels", *named)}}
    if faults := sum(count for reason, count in source.manifest.rejects.items() if reason not in SKIPPED):
        given["max_rejects"] = faults  # or it would end before it has written anything
    options = arguments.get("options")
    try:
        return build({**build(options, dict[str, Any]), **given}, ConvertConfig)
    except Fault:
        return None
