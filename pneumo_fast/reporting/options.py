"""Options of ``report``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pneumo_fast.configuration import Option


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
