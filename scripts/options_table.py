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
from pneumo_fast.prediction.options import PredictConfig
from pneumo_fast.reporting.options import ReportConfig
from pneumo_fast.serving.options import ServeConfig
from pneumo_fast.training.options import TrainConfig

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "options.md"
COMMANDS: dict[str, type[Any]] = {
    "convert": ConvertConfig, "train": TrainConfig, "evaluate": EvaluateConfig, "explain": ExplainConfig,
    "report": ReportConfig, "predict": PredictConfig, "serve": ServeConfig, "export": ExportConfig,
    "show": ShowConfig, "ids": IdsConfig, "phantom": PhantomConfig,
}  # fmt: skip
KINDS = {int: "a whole number", float: "a number", str: "text", Path: "a path", bool: "a flag"}
HEAD = """# Options

The options of each command, as `scripts/options_table.py` writes them from the fields of its configuration. From
Python a field has the option's name with underscores, or the one in brackets.

Every command also takes `--quiet` and `--json` ([shell.md](shell.md)). Not in the tables are
`train --config FILE`, which takes the options of an earlier run, `evaluate RUN_A RUN_B`, which compares two runs,
`verify DATASET`, and `doctor --echo AET@HOST:PORT --aet TITLE`.
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
    for value, words in ((MISSING, "required"), (None, "none"), (False, "off")):
        if field.default is value:
            return words
    return ", ".join(f"`{value}`" for value in (field.default if field.is_list else (field.default,)))


if __name__ == "__main__":
    DOCUMENT.write_text(document())
