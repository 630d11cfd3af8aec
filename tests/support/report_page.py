"""A report that was made, taken apart for the tests."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from pneumo_fast.reporting.options import ReportConfig
from pneumo_fast.reporting.report import ReportSummary, report

VOID = {"meta", "link", "img", "input"}


class Page(HTMLParser):
    """Elements with their attributes and texts, and whether they are closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(source)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, *tags: str) -> list[str]:
        return [data for tag, data in self.texts if tag in tags]

    @property
    def words(self) -> str:
        return " ".join(data for tag, data in self.texts if tag not in {"style", "script"})


def made(run: Path) -> tuple[ReportSummary, Page]:
    summary = report(ReportConfig(run=run))
    return summary, Page(summary.page.read_text())
