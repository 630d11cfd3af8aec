"""Options of ``report``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportConfig:
    """Which run to report on."""

    run: Path = Path("run")
    """The run folder, evaluated; explained as well, if the report is to show where the model looked."""
