"""Writes ``docs/options.md`` from the fields of the configurations; a test holds the document equal to them."""

from __future__ import annotations

from dataclasses import MISSING
from pathlib import Path
from typing import Any

from pneumo_fast.configuration import Field, options_of
from pneumo_fast.conversion.options import ConvertConfig, IdsConfig
from pneumo_fast.evaluation.options import EvaluateConfig
from pneumo_fast.explanation.options import ExplainConfig
from pneumo_fast.export.options import ExportConfig
from pneumo_fast.loading.options import ShowConfig
from pneumo_fast.phantoms.options import PhantomConfig
from pneumo_fast.reporting.options import ReportConfig
from pneumo_fast.training.options import TrainConfig

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "options.md"
COMMANDS: dict[str, type[Any]] = {
    "convert": ConvertConfig, "train": TrainConfig, "evaluate": EvaluateConfig, "explain": ExplainConfig,
    "report": ReportConfig, "export": ExportConfig, "show": ShowConfig, "ids": IdsConfig, "phantom": PhantomConfig,
}  # fmt: skip
KINDS = {int: "a whole number", float: "a number", str: "text", Path: "a path", bool: "a flag"}
HEAD = """# Options

Every option of every command, as `scripts/options_table.py` writes them from the fields of the configurations. From
Python a field has the option's name with underscores, or the one in brackets.

## For every command

| option | meaning |
| --- | --- |
| `--help`, `-h` | Options with their defaults, and an example. |
| `--quiet`, `-q` | Warnings, errors and the result alone: no progress, plan or next command. |
| `--json` | The result as one JSON object, in one line of standard output; all else goes to standard error, or nowhere with `--quiet`. |
| `--debug` | The traceback of an error. |

`pneumo-fast --version` shows the version. `pneumo-fast --install-completion` lets bash, zsh, fish or PowerShell complete commands,
options and their values, from the next shell on; `--show-completion` shows the script that it installs.

What `--json` writes, in ASCII; a number that is not defined is `null`. Ids are those of the dataset, so pseudonyms unless it was
made with `--keep-ids`.

| command | object |
| --- | --- |
| `convert` | `folder`, `manifest` ([as in manifest.json](format.md)), `seconds`, `images`, `converted` (of these, now) |
| `train` | `run`, `epochs`, `best_epoch`, `best`, `monitor`, `history` (one object per epoch) |
| `evaluate` | `folder` and what is in [metrics.json](metrics.md); of two runs `evaluations`, a list of both, and `comparison` |
| `explain` | `folder` and what is in [explain.json](explaining.md) |
| `report` | `page`, `card`, `size_bytes`, `remarks` |
| `export` | `path`, `size_bytes`, `size`, `outputs`, `runtime`, `checked_on`, `difference`, `notes` |
| `verify` | `dataset`, `problems` (a list of lines, empty for a sound dataset) |
| `show` | `out`, `images`, `boxes`, `versions` |
| `ids` | `out`, `found` and `unknown` (counts by kind) |
| `phantom` | `images`, `labels`, `class_info`, `mappings` (paths) |
| `doctor` | versions, `cores`, memory and disk in bytes, `cuda`, `device`, `gpus`, `decoders` and `parts`, with `cost` and `remedy` of each that is missing |

## Exit codes

| code | meaning |
| --- | --- |
| `0` | Done. |
| `1` | An input, a dataset, a run or this machine does not allow it; one line on standard error says why. `verify`: the dataset is damaged. |
| `2` | The command line is wrong: an unknown option, or a value that cannot work. |
| `130` | Interrupted (Ctrl-C); `--resume` continues `convert` and `train`. |
| `143` | Terminated (SIGTERM), in the same way. |
"""


def document() -> str:
    """The whole document."""
    return HEAD + "".join(f"\n## {command}\n\n{table(config)}" for command, config in COMMANDS.items())


def table(config: type[Any]) -> str:
    """One row for each option of a configuration."""
    rows = [("option", "values", "default", "meaning"), ("---",) * 4]
    for field in options_of(config).values():
        meaning = f"{field.option.help} {field.option.more}".rstrip()
        rows.append((name(field), values(field), default(field), meaning.replace("|", "\\|")))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def name(field: Field) -> str:
    """How an option is given."""
    if not field.option.on_command_line:
        return f"`{field.name}`, from Python only"
    if field.option.positional:
        return f"`{field.name.upper()}`"
    names = ", ".join(f"`{name}`" for name in (f"--{field.spelled}", *field.option.aliases))
    return names + (f" (`{field.name}`)" if field.option.name else "")


def values(field: Field) -> str:
    """What a value may be."""
    bounds = field.option.describe_range().rstrip(",")
    if field.option.range:
        return bounds
    words = [f"`{word}`" for word in field.words]
    kinds = [bounds] if bounds else [KINDS[kind] for kind in field.types]
    return ", ".join(words + kinds if field.types else words)


def default(field: Field) -> str:
    """What holds where it is not given."""
    if field.option.default:
        return field.option.default
    for value, words in ((MISSING, "to be given"), (None, "none"), (False, "off")):
        if field.default is value:
            return words
    return ", ".join(f"`{value}`" for value in (field.default if field.is_list else (field.default,)))


if __name__ == "__main__":
    DOCUMENT.write_text(document())
