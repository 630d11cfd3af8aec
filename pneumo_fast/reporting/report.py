"""Writes a run's report and model card from what ``evaluate`` and ``explain`` found; no model is run.

::

    RUN/report.html     one page that needs nothing else: no network, no other file
    RUN/model_card.md   the same in short, as text
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pneumo_fast.files import write_atomic
from pneumo_fast.reporting.options import ReportConfig
from pneumo_fast.reporting.page import build_card, build_page
from pneumo_fast.reporting.sources import read_run
from pneumo_fast.reporting.view import make_view
from pneumo_fast.run.folder import writing
from pneumo_fast.run.layout import MODEL_CARD, REPORT


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportSummary:
    """What was written."""

    page: Path
    card: Path
    """The model card."""
    size_bytes: int
    """Of the report."""
    remarks: tuple[str, ...]
    """What is missing in it, or does not belong together, one sentence each."""


def report(config: ReportConfig) -> ReportSummary:
    """Write ``RUN/report.html`` and ``RUN/model_card.md``.

    Raises
    ------
    RunError
        If the run was not evaluated, its metrics are damaged or of another version, or the files cannot be written.
    """
    files = read_run(config.run, config.evaluation)
    view = make_view(files)
    page, card = (text.encode(errors="replace") for text in (build_page(view), build_card(view)))  # of a folder's name
    summary = ReportSummary(
        page=config.run / REPORT,
        card=config.run / MODEL_CARD,
        size_bytes=len(page),
        remarks=tuple(remark.sentence for remark in files.remarks),
    )
    with writing(config.run):
        write_atomic(summary.card, card)
        write_atomic(summary.page, page)
    return summary
