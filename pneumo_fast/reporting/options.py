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
            "Explained as well, if the report is to show where the model looked.",
            positional=True,
        ),
    ] = Path("run")
