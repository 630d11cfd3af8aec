"""Renders a report: one page of HTML with its style and script, which fetches nothing, and the model card."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from importlib import resources
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from pneumo_fast import __version__
from pneumo_fast.formatting import TYPESET, harmless, number, percent
from pneumo_fast.metrics.catalogue import COUNTS, METRICS, QUALITY
from pneumo_fast.metrics.intervals import Estimate
from pneumo_fast.metrics.subgroups import ONE_CLASS
from pneumo_fast.reporting import charts, data_facts, repeat, view
from pneumo_fast.reporting.threshold_slider import MOVING, make_slider, written
from pneumo_fast.reporting.training_facts import training_sentences
from pneumo_fast.vocabulary import METHOD_NAMES, NOT_CLINICAL, counted

SECTIONS: Final = {
    "results": "Results",
    "worth": "How to read the metrics",
    "choose": "Choose a threshold",
    "thresholds": "Thresholds",
    "calibration": "Calibration",
    "decision": "Decision curve",
    "subgroups": "Subgroups",
    "learning": "Learning curves",
    "looked": "Heat maps",
    "data": "Data",
    "repeat": "Repeat it",
    "limits": "Limits of use",
}
"""The parts of the page: the id of each, and its title."""


_MARKDOWN: Final = str.maketrans({"&": "&amp;", "<": "&lt;", **{mark: f"\\{mark}" for mark in "\\`*[]|"}})


def build_page(content: view.View) -> str:
    """The whole report as one HTML file."""
    package = resources.files(__package__)
    style, script = (Markup((package / name).read_text("utf-8")) for name in ("report.css", "report.js"))  # noqa: S704  # our own
    page = _environment(_harmless).get_template("report.html")
    return page.render(view=content, sections=SECTIONS, style=style, script=script)


def build_card(content: view.View) -> str:
    """The model card as Markdown."""
    return _environment(finalize=_plain_markdown).get_template("model_card.md").render(view=content)


def _harmless(value: object) -> object:
    """A value without control characters, which HTML's escapes leave as they are."""
    return harmless(value) if type(value) is str else value


def _plain_markdown(value: object) -> str:
    """A value that Markdown shows as it is: no tags, links, code, columns or new lines; markup stays as it is."""
    if isinstance(value, Markup):
        return value
    return " ".join(harmless(str(value)).translate(_MARKDOWN).split())


def _environment(finalize: Callable[[object], object] | None = None) -> Environment:
    """Templates in which a name that is not there is an error, and what they write figures with."""
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=select_autoescape(),
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "thousands": lambda n: f"{n:,}",
        "counted": counted,
        "figures": lambda record, metrics: [getattr(record, metric.key) for metric in metrics],
        "digits": lambda value: number(None) if value is None else f"{value:.4g}",
        "estimate": TYPESET.estimate,
        "first_capital": lambda words: words[:1].upper() + words[1:],
        "hash": _source_hash,
        "interval": TYPESET.interval,
        "minus_signs": lambda words: re.sub(r"(?<![\w-])-(?=\d)", TYPESET.minus, words),
        "number": number,
        "percent": percent,
        "short": lambda value: f"{value:g}",
    }
    environment.tests["estimate"] = lambda value: value is None or isinstance(value, Estimate)
    environment.globals |= {
        "version": __version__,
        "term": {metric.key: metric for metric in METRICS},
        "cell": {term.key: term for term in COUNTS},
        "written": written,
        "moving": MOVING,
        "quality": QUALITY,
        "methods": METHOD_NAMES,
        "one_class": ONE_CLASS,
        "not_clinical": NOT_CLINICAL,
        "charts": charts,
        "make_slider": make_slider,
        "repeat": repeat,
        "shown": view,
        "data_facts": data_facts,
        "training_sentences": training_sentences,
    }
    return environment


def _source_hash(content: str) -> str:
    """How a content security policy names a style or a script that may run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
