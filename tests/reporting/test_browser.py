"""The report in a real browser: headless Chromium, driven over its pipe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pneumo_fast.formatting import number
from pneumo_fast.reporting.options import ReportConfig
from pneumo_fast.reporting.report import report
from tests.support.chromium import CHROMIUM, Browser
from tests.support.make_run import make_run

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")

SHOWN = (
    "Object.fromEntries([...document.querySelectorAll('[data-figure]')].map(e => [e.dataset.figure, e.textContent]))"
)
MARKS = "['roc-mark', 'pr-mark'].map(id => { const m = document.getElementById(id); return [+m.getAttribute('cx'), \
+m.getAttribute('cy'), m.classList.contains('nowhere')]; })"
RATES = {"sensitivity": "recall", "specificity": "specificity", "precision": "precision", "npv": "npv", "f1": "f1"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("browsed"), hostile=True)
    report(ReportConfig(run=folder))
    return folder


@pytest.fixture(scope="module")
def browser(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser with the report open; what it fetched and complained of is looked at in the end."""
    opened = Browser(tmp_path_factory.mktemp("profile"))
    opened.size(1280, 900)
    opened.open(run / "report.html")
    yield opened
    opened.close()


def slide(browser: Browser, value: float) -> dict[str, str]:
    """Put the slider on the first step at or above a threshold, as a hand does; the figures then shown."""
    step = f"JSON.parse(document.getElementById('counts').textContent).at.findIndex(t => Number(t) >= {value})"
    moved = f"const s = document.getElementById('threshold'); s.value = {step}; s.dispatchEvent(new Event('input'))"
    browser.run(f"(() => {{ {moved}; }})()")
    return dict(browser.run(SHOWN))


def from_metrics(entry: dict[str, Any]) -> dict[str, str]:
    confusion = {key: f"{value:,}" for key, value in entry["confusion"].items()}
    rates = {name: number(entry[key]["value"]) for name, key in RATES.items()}
    accuracy = {"accuracy": number(entry["accuracy"]["value"]), "threshold": number(entry["threshold"])}
    return confusion | rates | accuracy


def from_predictions(run: Path, threshold: float) -> dict[str, int]:
    table = pd.read_csv(run / "eval" / "dataset-val" / "predictions.csv", dtype={"probability": str})
    called, ill = table["probability"].astype(float) >= threshold, table["label"] == 1
    return {
        "tp": int((called & ill).sum()),
        "fp": int((called & ~ill).sum()),
        "fn": int((~called & ill).sum()),
        "tn": int((~called & ~ill).sum()),
    }


def test_fixed_thresholds_show_the_metrics(browser: Browser, run: Path) -> None:
    metrics = json.loads((run / "eval" / "dataset-val" / "metrics.json").read_text())
    assert [entry["threshold"] for entry in metrics["thresholds"]] == [0.5, 0.25]
    for entry in metrics["thresholds"]:
        assert slide(browser, entry["threshold"]) == from_metrics(entry)


@pytest.mark.parametrize("threshold", [0.0, 0.001, 0.137, 0.499, 0.501, 0.75, 0.999, 1.0])
def test_other_thresholds_show_the_counts_of_the_predictions(browser: Browser, run: Path, threshold: float) -> None:
    shown = slide(browser, threshold)
    counts = from_predictions(run, float(shown["threshold"]))
    assert {key: shown[key] for key in counts} == {key: f"{value:,}" for key, value in counts.items()}
    tp, fp, fn, tn = (counts[key] for key in ("tp", "fp", "fn", "tn"))
    pairs = {
        "sensitivity": (tp, tp + fn),
        "specificity": (tn, tn + fp),
        "precision": (tp, tp + fp),
        "npv": (tn, tn + fn),
    }
    for name, (part, whole) in pairs.items():
        assert shown[name] == number(part / whole if whole else None)
    assert float(shown["threshold"]) >= threshold


def test_marks_lie_on_the_curves_where_the_figures_are(browser: Browser) -> None:
    shown = slide(browser, 0.3)
    (roc_x, roc_y, roc_hidden), (pr_x, pr_y, pr_hidden) = browser.run(MARKS)
    left, top, width, height = browser.run("JSON.parse(document.getElementById('counts').textContent).plot")
    assert not roc_hidden
    assert not pr_hidden
    assert (roc_x - left) / width == pytest.approx(1 - float(shown["specificity"]), abs=1e-3)
    assert 1 - (roc_y - top) / height == pytest.approx(float(shown["sensitivity"]), abs=1e-3)
    assert (pr_x - left) / width == pytest.approx(float(shown["sensitivity"]), abs=1e-3)
    assert 1 - (pr_y - top) / height == pytest.approx(float(shown["precision"]), abs=1e-3)


def test_a_mark_without_precision_is_hidden(browser: Browser) -> None:
    assert slide(browser, 1.0)["precision"] == "\N{EN DASH}"
    assert [hidden for *_, hidden in browser.run(MARKS)] == [False, True]


def test_keys_and_buttons_move_it(browser: Browser) -> None:
    slide(browser, 0.4)
    browser.run("document.getElementById('threshold').focus()")
    first = int(browser.run("document.getElementById('threshold').value"))
    at = browser.run("JSON.parse(document.getElementById('counts').textContent).at")
    for _ in range(3):
        browser.press("ArrowRight", 39)
    assert browser.run(SHOWN)["threshold"] == at[first + 3]
    browser.press("ArrowLeft", 37)
    assert browser.run(SHOWN)["threshold"] == at[first + 2]
    button = "[...document.querySelectorAll('button[data-step]')].find(b => b.textContent === '0.25')"
    browser.run(f"{button}.click()")
    assert browser.run(SHOWN)["threshold"] == "0.250"
    assert browser.run(f"{button}.getAttribute('aria-pressed')") == "true"
    assert "Threshold 0.250: sensitivity" in browser.run(
        "document.getElementById('threshold').getAttribute('aria-valuetext')"
    )


@pytest.mark.parametrize("target", [0.0, 0.5, 0.95, 1.0])
def test_a_sensitivity_that_is_wanted_is_reached_by_the_highest_threshold(
    browser: Browser, run: Path, target: float
) -> None:
    browser.run(f"document.getElementById('wanted').value = '{target}'; document.getElementById('want').click()")
    assert float(browser.run(SHOWN)["sensitivity"]) >= target
    step = int(browser.run("document.getElementById('threshold').value"))
    at = browser.run("JSON.parse(document.getElementById('counts').textContent).at")
    if step + 1 < len(at):
        counts = from_predictions(run, float(at[step + 1]))
        assert counts["tp"] / (counts["tp"] + counts["fn"]) < target


def test_every_operating_point_has_a_button(browser: Browser, run: Path) -> None:
    metrics = json.loads((run / "eval" / "dataset-val" / "metrics.json").read_text())
    buttons = "[...document.querySelectorAll('button[data-step]')]"
    named = browser.run(f"{buttons}.map(b => b.textContent)")
    assert named == ["0.5", "0.25", *(entry["name"] for entry in metrics["chosen_thresholds"])]
    for place, entry in enumerate(metrics["chosen_thresholds"], 2):
        browser.run(f"{buttons}[{place}].click()")
        counts = from_predictions(run, entry["threshold"])
        assert {key: int(browser.run(SHOWN)[key].replace(",", "")) for key in counts} == counts


def test_a_heat_map_is_enlarged_and_closed_by_keys(browser: Browser) -> None:
    browser.run("document.querySelector('button.enlarge').focus(); document.querySelector('button.enlarge').click()")
    large = "document.querySelector('#enlarged img')"
    assert browser.run("document.getElementById('enlarged').open")
    assert browser.run(f"{large}.src === document.querySelector('button.enlarge img').src")
    assert browser.run(f"{large}.alt") != ""
    browser.press("Escape", 27)
    assert not browser.run("document.getElementById('enlarged').open")
    assert browser.run("document.activeElement.className") == "enlarge"


def test_no_table_is_cut_off_at_1280_pixels(browser: Browser) -> None:
    browser.size(1280, 900)
    cut = "[...document.querySelectorAll('.scroll')].filter(s => s.offsetParent && s.scrollWidth > s.clientWidth)"
    assert browser.run(f"{cut}.map(s => s.getAttribute('aria-label'))") == []


@pytest.mark.parametrize("width", [390, 1280])
def test_names_in_the_forest_plot_lie_over_nothing(browser: Browser, width: int) -> None:
    browser.size(width, 900, mobile=width < 500)
    over = """(() => {
      const boxes = (selector) => [...document.querySelectorAll('#subgroups .chart ' + selector)]
        .map((e) => e.getBoundingClientRect());
      const apart = (a, b) => a.right <= b.left || b.right <= a.left || a.bottom <= b.top + 1 || b.bottom <= a.top + 1;
      const marks = [...boxes('.bar'), ...boxes('.point'), ...boxes('.line')];
      return boxes('text.row').filter((name) => marks.some((mark) => !apart(name, mark))).length;
    })()"""
    assert browser.run(over) == 0
    assert browser.run("document.querySelectorAll('#subgroups text.row').length") > 4
    browser.size(1280, 900)


def test_what_changed_is_said_to_screen_readers(browser: Browser) -> None:
    shown = slide(browser, 0.6)
    wait = "new Promise(done => setTimeout(() => done(document.getElementById('said').textContent), 600))"
    assert browser.run(wait).startswith(f"Threshold {shown['threshold']}: sensitivity {shown['sensitivity']}, ")


@pytest.mark.parametrize("kind", ["TP", "FP", "FN", "TN", "all"])
def test_filters_hide_and_show_heat_maps(browser: Browser, kind: str) -> None:
    browser.run(f"document.querySelector('button[data-filter=\"{kind}\"]').click()")
    visible = "[...document.querySelectorAll('figure[data-kind]')].filter(f => f.offsetParent).map(f => f.dataset.kind)"
    kinds = browser.run(visible)
    assert set(kinds) == ({"TP", "FP", "FN", "TN"} if kind == "all" else {kind})
    assert browser.run("[...document.images].every(i => i.complete && i.naturalWidth > 0)")


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_the_page_is_no_wider_than_the_window(browser: Browser, width: int) -> None:
    browser.size(width, 800, mobile=width < 500)
    assert browser.run("document.documentElement.scrollWidth") <= width
    browser.size(1280, 900)


@pytest.mark.parametrize("width", [688, 710])  # of the text on A4 and on Letter
def test_in_print_no_card_is_cut_off(browser: Browser, width: int) -> None:
    browser.size(width, 900)
    browser.call("Emulation.setEmulatedMedia", media="print")
    cut = "[...document.querySelectorAll('.card')].filter(card => card.scrollWidth > card.clientWidth).length"
    assert browser.run(cut) == 0
    browser.call("Emulation.setEmulatedMedia", media="")
    browser.size(1280, 900)


def test_nothing_is_fetched_and_nothing_complains(browser: Browser, run: Path) -> None:
    browser.open(run / "report.html")
    slide(browser, 0.5)
    asked = {event["request"]["url"] for event in browser.of("Network.requestWillBeSent")}
    assert {url for url in asked if not url.startswith("data:")} == {(run / "report.html").as_uri()}
    assert not browser.of("Log.entryAdded")
    assert not browser.of("Runtime.consoleAPICalled")
    assert not browser.of("Runtime.exceptionThrown")


def test_the_page_is_whole_without_scripts(browser: Browser, run: Path) -> None:
    metrics = json.loads((run / "eval" / "dataset-val" / "metrics.json").read_text())
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(run / "report.html")
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.run(SHOWN) == from_metrics(metrics["thresholds"][0])
    assert not browser.run("document.getElementById('threshold').offsetParent !== null")
