"""What a report says of the data: on its first screen, and in its part on them."""

from __future__ import annotations

from collections.abc import Sequence

from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.dataset.format import Manifest
from pneumo_fast.formatting import number
from pneumo_fast.records import Fault, build
from pneumo_fast.reporting.sources import JudgedDataset, RunFiles, SplitFacts
from pneumo_fast.vocabulary import IMAGE_IDS

Fact = tuple[str, object]
"""A name with its value; a value of None is not shown."""
UNKNOWN = "not known: the dataset is not where it was"


def overview(files: RunFiles) -> list[Fact]:
    """When it was evaluated, the data, what counts as positive, and whose images they are."""
    groups = files.metrics.intervals.groups
    return [
        ("Evaluated", files.evaluated),
        ("Data", " and ".join(f"{source.name}, written {source.written}" for source in files.sources) or _named(files)),
        ("Counts as positive", "; ".join(dict.fromkeys(map(_positive, files.sources))) or UNKNOWN),
        ("Images", "; ".join(dict.fromkeys(map(_origin, files.sources))) or UNKNOWN),
        ("Patients", f"{groups:,}" if groups else "not known: a patient may be in several splits"),
    ]


def _named(files: RunFiles) -> str:
    return files.metrics.dataset.name or files.metrics.dataset.path


def _positive(source: JudgedDataset) -> str:
    """What the label rule says, from the options of the conversion."""
    options = source.manifest.arguments.get("options")
    try:
        return build({"images": "", "labels": "", **(options or {})}, ConvertConfig).label_rule.meaning
    except (Fault, TypeError):
        return "label 1"


def _origin(source: JudgedDataset) -> str:
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


def split_facts(split: SplitFacts, *, own: bool = False) -> list[Fact]:
    """How a dataset was divided; ``own``: one of several, between whose splits there may be other leaks."""
    return [
        ("Divided by", {"group": "patient", "image": "image"}.get(split.by)),
        ("Patients", f"{split.groups:,}" if split.groups else None),
        ("Images of unknown patients", f"{split.ungrouped_images:,}" if split.ungrouped_images else None),
        ("Leaks between its own splits" if own else "Leaks between splits", split.leaks),
        ("Seed of the split", split.seed),
    ]


def input_facts(manifest: Manifest) -> list[Fact]:
    """What became of the files and of the rows of the label table."""
    titles = {
        "label_rows": "Images in the label table",
        "rows_without_file": "Images in the label table without a file",
        "ignored": "Excluded by --ignore",
        "files_without_row": "Files without a label",
        "dropped_ungrouped": "Omitted, patient unknown",
        "burned_in": "Marked as having burned-in text",
        "quality_control": "Marked as phantoms or for quality control",
        "unknown_modality": "Modality not stated",
        "unknown_view": "View not stated",
        "unknown_body_part": "Body part not stated",
        "boxes_outside": "Boxes outside of their images",
        "boxes_cut_off": "Boxes that go beyond an edge of their images",
        "equal_pixels": "Images with identical pixels",
        "equal_pixels_across_splits": "Identical pixels in different splits (leaks)",
        "equal_uids": "Images with identical identifiers",
        "equal_uids_across_splits": "Identical identifiers in different splits (leaks)",
    }
    known = manifest.input | manifest.duplicates
    facts: list[Fact] = [(title, f"{known[key]:,}") for key, title in titles.items() if key in known]
    looked_up = "; whoever has the key looks them up with pneumo-fast ids, and explain --id takes the original id"
    return [*facts, ("Image ids", IMAGE_IDS[manifest.ids] + (looked_up if manifest.ids == "pseudonyms" else ""))]


def privacy_sentence(sources: Sequence[JudgedDataset]) -> str:
    """What stands for images and patients in dataset, run, report and card."""
    if not sources:
        return "Patients are known by pseudonyms alone; whether image ids are pseudonyms too is no longer known."
    if all(source.manifest.ids == "pseudonyms" for source in sources):
        return (
            "Nothing that names a patient or an image is in a dataset, a run or this card: pseudonyms stand for them."
        )
    return (
        "Image ids are as in the label table (--keep-ids) in dataset, run, report and card: they must not name a "
        "patient. Patients are known by pseudonyms alone."
    )


def preprocessing_facts(manifest: Manifest) -> list[Fact]:
    """How the images were made."""
    height, width = manifest.image_shape
    return [
        ("Size", f"{height} x {width} pixels"),
        ("Stored as", "the source files alone" if manifest.source else f"{manifest.dtype}, in {manifest.layout}"),
        ("Mean and standard deviation", f"{number(manifest.mean, 4)} and {number(manifest.std, 4)}"),
        *((name[:1].upper() + name[1:], value) for name, value in manifest.preprocessing.items()),
    ]
