"""The part of a report that tells of the data, of how to repeat it all, and of its limits."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from pneumo_fast.explain import FOLDER as EXPLAIN_FOLDER
from pneumo_fast.markup import Html, bullets, facts, join, number, paragraph, percent, table, tag, text
from pneumo_fast.options import ConvertConfig, TrainConfig
from pneumo_fast.report_files import Json, RunFiles, Source, get
from pneumo_fast.report_words import NOT_CLINICAL, SPLITS, limits
from pneumo_fast.shards import Manifest


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


# ---- how to repeat it


def repeat_section(files: RunFiles) -> Html:
    """Commands, versions, seeds and checksums."""
    metrics = files.metrics
    lines = commands(files)
    parts = [paragraph("These commands repeat it; folders are named as they were."), _code(lines)]
    parts += [paragraph(sentence, "missing") for sentence in files.remarks_about("config")]
    resolved = get(files.config, "resolved") or {}
    chosen = [
        (name.replace("_", " "), text(f"{value:g}" if isinstance(value, float) else value))
        for name, value in resolved.items()
        if value not in {None, "None"}
    ]
    seeds = [("training", text(get(files.config, "config", "seed"))), ("intervals", text(metrics["intervals"]["seed"]))]
    seeds += [(f"split of {source.name}", text(source.manifest.split.get("seed"))) for source in files.sources]
    parts += [tag("h3", text("Seeds")), facts([pair for pair in seeds if pair[1] != "None"])]
    if chosen:
        parts += [tag("h3", text("Chosen by the machine")), facts(chosen)]
    versions = get(files.config, "versions") or {}
    if versions:
        rows = [[text(name), text(version)] for name, version in versions.items()]
        parts.append(table("Versions trained with", ("Package", "Version"), rows))
    parts.append(paragraph(f"Judged by {metrics['created_by']} on {metrics['device']}."))
    parts.append(
        table("Checksums (SHA-256)", ("Of", "Checksum"), [[text(n), tag("code", text(h))] for n, h in hashes(files)])
    )
    return join(parts)


def _code(lines: list[str]) -> Html:
    return tag("pre", tag("code", text("\n".join(lines))), tabindex="0", role="region", aria_label="Commands")


def hashes(files: RunFiles) -> list[tuple[str, str]]:
    """What identifies checkpoint and data."""
    metrics = files.metrics
    found = [("checkpoint judged", metrics["run"]["sha256"]), ("dataset judged on", metrics["dataset"]["identity"])]
    if not metrics["dataset"]["trained_on"]:
        found.append(("dataset trained on", metrics["run"]["dataset_identity"]))
    if files.explanation is not None and files.explanation["run"]["sha256"] != metrics["run"]["sha256"]:
        found.append(("checkpoint of the heat maps", files.explanation["run"]["sha256"]))
    return found


def commands(files: RunFiles) -> list[str]:
    """The command lines that lead to this report."""
    metrics, run = files.metrics, _quoted(files.name)
    options = get(files.config, "config") or {}
    lines = []
    for source in files.sources:
        given = _given(source.manifest.arguments.get("options", {}), ConvertConfig)
        lines.append(_command("convert IMAGES LABELS", [_quoted(source.name)], given))
    if options:
        named = options.get("datasets", [])
        folders = [_quoted(str(path)) for path in named] if isinstance(named, list) else []
        hidden = {"datasets", "out", "resume", "overwrite"}
        given = _given({name: value for name, value in options.items() if name not in hidden}, TrainConfig)
        lines.append(_command("train", [*folders, "--out", run], given))
    judged = {} if metrics["dataset"]["trained_on"] else {"dataset": metrics["dataset"]["path"]}
    judged |= {"split": metrics["split"], "threshold": [t["threshold"] for t in metrics["thresholds"]]}
    judged |= _targets(metrics)
    how = metrics["intervals"]
    judged |= {"prevalence": metrics["prevalence_stated"], "resamples": how["resamples"], "seed": how["seed"]}
    lines.append(_command("evaluate", [run], judged))
    if files.explanation is not None:
        told = files.explanation
        names = {} if told["dataset"]["trained_on"] else {"dataset": told["dataset"]["path"]}
        names |= {name: told[name] for name in ("split", "method", "layer", "threshold")}
        lines.append(_command(EXPLAIN_FOLDER, [run], names))
    return [*lines, _command("report", [run], {})]


def _targets(metrics: Json) -> Json:
    """The options that named the chosen thresholds, read from these names."""
    beginnings = {"sensitivity at least ": "target_sensitivity", "specificity at least ": "target_specificity"}
    found: Json = {}
    for entry in metrics["chosen_thresholds"]:
        for beginning, option in beginnings.items():
            if entry["name"].startswith(beginning):
                found[option] = entry["name"].removeprefix(beginning)
        if entry["name"].startswith("least cost, a miss worth "):
            found["cost_ratio"] = entry["name"].split()[5]
    return found


def _given(options: Json, config: type) -> Json:
    """Options that are not what they are by default."""
    defaults: dict[str, Any] = {f.name: f.default for f in fields(config) if f.default is not MISSING}
    renamed = {"shares": "share"}
    given = {}
    for name, value in options.items():
        default = defaults.get(name)
        same = value == (list(default) if isinstance(default, tuple) else default)
        if name in defaults and not same:
            given[renamed.get(name, name)] = value
    return given


def _command(name: str, positional: list[str], options: Json) -> str:
    words = ["pneumo-fast", name, *positional]
    for option, value in options.items():
        flag = f"--{option.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif value is not None and value is not False:
            values = value if isinstance(value, list) else [value]
            words += [f"{flag} {_quoted(str(single))}" for single in values]
    return " ".join(words)


def _quoted(name: str) -> str:
    """A name as a shell takes it."""
    import shlex  # noqa: PLC0415

    return shlex.quote(name)


# ---- limits


def limits_section(files: RunFiles) -> Html:
    """What the figures do not say, in plain words."""
    return join([tag("p", tag("strong", text(NOT_CLINICAL))), bullets(limits(files.metrics))])
