"""What the first screen of a report says: the data, what counts as positive, and whose images they are."""

from __future__ import annotations

from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.records import Fault, build
from pneumo_fast.reporting.sources import RunFiles, Source
from pneumo_fast.vocabulary import counted

UNKNOWN = "not known: the dataset is not where it was"


def overview(files: RunFiles) -> list[tuple[str, object]]:
    """Names with their values; a value of None is not shown."""
    groups = files.metrics.intervals.groups
    return [
        ("Data", " and ".join(f"{source.name}, written {source.written}" for source in files.sources) or _named(files)),
        ("Counts as positive", "; ".join(dict.fromkeys(map(_positive, files.sources))) or UNKNOWN),
        ("Images", "; ".join(dict.fromkeys(map(_origin, files.sources))) or UNKNOWN),
        ("Patients", counted(groups, "patient") if groups else "not known: a patient may be in several splits"),
    ]


def _named(files: RunFiles) -> str:
    return files.metrics.dataset.name or files.metrics.dataset.path


def _positive(source: Source) -> str:
    """What the label rule says, from the options of the conversion."""
    options = source.manifest.arguments.get("options")
    try:
        return build({"images": "", "labels": "", **(options or {})}, ConvertConfig).label_rule.meaning
    except (Fault, TypeError):
        return "label 1"


def _origin(source: Source) -> str:
    """Whether the images are of patients, as far as their files tell."""
    marked = source.manifest.input.get("quality_control", 0)
    images = sum(sum(counts.values()) for counts in source.manifest.counts.values())
    if marked and marked == images:
        return "synthetic: all are marked as phantoms or for quality control"
    return (
        f"{marked:,} of {images:,} are marked as phantoms or for quality control"
        if marked
        else "none marked as synthetic"
    )
