"""Puts the parts of a report together: one page of HTML with its style and script, which fetches nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Final

from pneumo_fast import __version__
from pneumo_fast.reporting.charts import calibration_section, decision_section, learning_section, subgroups_section
from pneumo_fast.reporting.data import data_section, limits_section
from pneumo_fast.reporting.gallery import gallery_section
from pneumo_fast.reporting.markup import Html, bullets, paragraph, tag, text
from pneumo_fast.reporting.repeat import repeat_section
from pneumo_fast.reporting.results import results_section, worth_section
from pneumo_fast.reporting.sources import RunFiles
from pneumo_fast.reporting.tables import thresholds_section
from pneumo_fast.reporting.threshold_slider import threshold_section


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A part of the report."""

    name: str
    """Its id in the page."""
    title: str
    build: Callable[[RunFiles], Html]


SECTIONS: Final = (
    Section(name="results", title="Results", build=results_section),
    Section(name="worth", title="What the figures are worth", build=worth_section),
    Section(name="choose", title="Choose a threshold", build=threshold_section),
    Section(name="thresholds", title="Thresholds", build=lambda files: thresholds_section(files.metrics)),
    Section(name="calibration", title="Calibration", build=calibration_section),
    Section(name="decision", title="Decision curve", build=decision_section),
    Section(name="subgroups", title="Subgroups", build=subgroups_section),
    Section(name="learning", title="Learning curves", build=learning_section),
    Section(name="looked", title="Where the model looked", build=gallery_section),
    Section(name="data", title="Data", build=data_section),
    Section(name="repeat", title="Repeat it", build=repeat_section),
    Section(name="limits", title="Limits of use", build=limits_section),
)


def build_page(files: RunFiles) -> str:
    """The whole report as one HTML file."""
    style, script = (Html(_asset(name)) for name in ("report.css", "report.js"))
    title = f"Report on {files.name}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", text(title)),
        tag("link", rel="icon", href="data:,"),
        tag("style", style),
    )
    body = tag(
        "body",
        tag("a", text("Skip to the results"), href="#results", class_="skip"),
        _header(files, title),
        _contents(),
        tag("main", *(_section(section, files) for section in SECTIONS), id="main"),
        tag(
            "footer",
            paragraph(f"Made by pneumo-fast {__version__} from the files of the run; nothing is loaded from anywhere."),
        ),
        tag("script", script),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _asset(name: str) -> str:
    return resources.files("pneumo_fast.reporting").joinpath(name).read_text(encoding="utf-8")


def _policy(style: Html, script: Html) -> str:
    """What the page may do: its own style and script, images that stand in it, and nothing else."""
    own_style, own_script = (
        base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (style, script)
    )
    return (
        f"default-src 'none'; style-src 'sha256-{own_style}'; script-src 'sha256-{own_script}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _header(files: RunFiles, title: str) -> Html:
    """Title, what was judged, and what does not belong together."""
    metrics = files.metrics
    size = " ".join(f"{source.manifest.image_shape[0]} pixels" for source in files.sources[:1])
    judged = [metrics["run"]["arch"], f"epoch {metrics['run']['epoch']}", f"split {metrics['split']}", size]
    parts = [
        paragraph("Pneumonia on chest radiographs", "kicker"),
        tag("h1", text(title)),
        paragraph("  ·  ".join(part for part in judged if part), "under-title"),
    ]
    if mixed := files.remarks_about("checkpoint"):
        parts.append(tag("div", tag("strong", text("Take care")), bullets(mixed), class_="warning", role="note"))
    return tag("header", *parts)


def _contents() -> Html:
    links = (tag("li", tag("a", text(section.title), href=f"#{section.name}")) for section in SECTIONS)
    return tag("nav", tag("ul", *links), aria_label="Contents")


def _section(section: Section, files: RunFiles) -> Html:
    heading = tag("h2", text(section.title), id=f"{section.name}-title")
    return tag("section", heading, section.build(files), id=section.name, aria_labelledby=f"{section.name}-title")
