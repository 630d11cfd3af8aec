"""The part of a report that tells of the data, of how to repeat it all, and of its limits."""

from __future__ import annotations

from pneumo_fast.dataset.format import Manifest
from pneumo_fast.formatting import number, percent
from pneumo_fast.reporting.markup import Html, bullets, facts, join, paragraph, table, tag, text
from pneumo_fast.reporting.sources import Json, RunFiles, Source, get
from pneumo_fast.reporting.words import NOT_CLINICAL, SPLITS, limits


def data_section(files: RunFiles) -> Html:
    """Counts, leaks, rejected files and preprocessing of the datasets judged on."""
    parts = [paragraph(sentence, "missing") for sentence in files.remarks_about("dataset")]
    if not files.metrics["dataset"]["trained_on"]:
        parts.append(paragraph("The model was trained on another dataset than the one it is judged on here."))
    for source in files.sources:
        parts += _dataset(source, heading=len(files.sources) > 1)
    trained = get(files.config, "dataset")
    if isinstance(trained, dict) and not (files.sources and files.metrics["dataset"]["trained_on"]):
        parts.append(paragraph("The data trained on, as the run's config.json has them:"))
        parts.append(_counts(trained.get("counts") or {}))
        parts.append(facts(_split_facts(trained.get("split") or {})))
    if folds := get(files.config, "config", "folds"):
        fold = get(files.config, "config", "fold")
        parts.append(
            paragraph(f"The run divided training and validation images anew: validation is fold {fold} of {folds}.")
        )
    return join(parts)


def _dataset(source: Source, *, heading: bool) -> list[Html]:
    manifest = source.manifest
    parts = [tag("h3", text(source.name))] if heading else []
    parts += [_counts(manifest.counts), facts([*_split_facts(manifest.split), *_input_facts(manifest)])]
    if manifest.rejects:
        rows = [[tag("code", text(reason)), text(f"{count:,}")] for reason, count in manifest.rejects.items()]
        parts.append(table("Rejected files", ("Reason", "Files"), rows))
    else:
        parts.append(paragraph("No file was rejected."))
    parts += [tag("h4" if heading else "h3", text("Preprocessing")), facts(_preprocessing(manifest))]
    return parts


def _counts(counts: dict[str, dict[str, int]]) -> Html:
    rows = []
    for split, by_label in counts.items():
        negative, positive = by_label["0"], by_label["1"]
        share = percent(positive / (negative + positive)) if negative + positive else number(None)
        cells = (f"{negative + positive:,}", f"{negative:,}", f"{positive:,}", share)
        rows.append([text(SPLITS.get(split, split)), *map(text, cells)])
    return table("Images", ("Split", "Images", "Negative", "Positive", "Share positive"), rows)


def _split_facts(split: Json) -> list[tuple[str, Html]]:
    known = {
        "Divided by": {"group": "patient", "image": "image"}.get(split.get("by", "")),
        "Patients": f"{split['groups']:,}" if split.get("groups") else None,
        "Images of unknown patients": f"{split['ungrouped_images']:,}" if split.get("ungrouped_images") else None,
        "Leaks between splits": split.get("leaks"),
        "Seed of the split": split.get("seed"),
    }
    return [(name, text(value)) for name, value in known.items() if value is not None]


def _input_facts(manifest: Manifest) -> list[tuple[str, Html]]:
    names = {
        "label_rows": "Images in the label table",
        "rows_without_file": "Of these without a file",
        "files_without_row": "Files without a label",
        "dropped_ungrouped": "Left out for want of a patient",
        "burned_in": "Marked as having burned-in text",
    }
    found = [(name, text(f"{manifest.input[key]:,}")) for key, name in names.items() if key in manifest.input]
    same = {
        "equal_pixels": "Images with the pixels of another",
        "equal_pixels_across_splits": "Of these across splits (leaks)",
        "equal_uids": "Images with the identifier of another",
        "equal_uids_across_splits": "Of these across splits (leaks) ",
    }
    return found + [(name, text(f"{manifest.duplicates[k]:,}")) for k, name in same.items() if k in manifest.duplicates]


def _preprocessing(manifest: Manifest) -> list[tuple[str, Html]]:
    height, width = manifest.image_shape
    made = [
        ("Size", text(f"{height} x {width} pixels")),
        ("Stored as", text(f"{manifest.dtype}, in {manifest.layout}")),
        ("Mean and standard deviation", text(f"{number(manifest.mean, 4)} and {number(manifest.std, 4)}")),
    ]
    return made + [(name[:1].upper() + name[1:], text(value)) for name, value in manifest.preprocessing.items()]


# ---- limits


def limits_section(files: RunFiles) -> Html:
    """What the figures do not say, in plain words."""
    return join([tag("p", tag("strong", text(NOT_CLINICAL))), bullets(limits(files.metrics))])
