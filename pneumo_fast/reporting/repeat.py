"""How to repeat a run: commands and checksums."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.reporting.markup import Html, facts, join, paragraph, table, tag, text
from pneumo_fast.reporting.sources import Json, RunFiles, get
from pneumo_fast.training.options import TrainConfig

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
        lines.append(_command("explain", [run], names))
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
