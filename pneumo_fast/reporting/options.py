"""Options of ``report``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pneumo_fast.configuration import Option, check


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportConfig:
    """Which run to report on."""

    run: Annotated[
        Path,
        Option(
            "Run folder, evaluated before.",
            "Run explain first for the heat maps.",
            positional=True,
        ),
    ] = Path("run")
    evaluation: Annotated[
        str | None,
        Option(
            "Evaluation to report on: a folder's name in RUN/eval.",
            "By default the one on the run's own data, of the test split if there is one.",
            default="the run's own",
        ),
    ] = None

    def __post_init__(self) -> None:
        """Check every option."""
        check(self)
