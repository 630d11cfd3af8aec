"""The page: its order, its policy, and what is in it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

import pneumo_fast
from pneumo_fast.formatting import number
from pneumo_fast.reporting.data_facts import privacy_sentence
from pneumo_fast.reporting.options import ReportConfig
from pneumo_fast.reporting.page import SECTIONS
from pneumo_fast.reporting.report import ReportSummary, report
from pneumo_fast.reporting.sources import read_run
from pneumo_fast.vocabulary import Ids
from tests.support.make_run import HOSTILE, change_json
from tests.support.report_page import Page, made

PACKAGE = Path(pneumo_fast.__file__).parent
CARD_PARTS = (
    "Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data", "Quantitative analyses",
    "Ethical considerations", "Caveats and recommendations",
)  # fmt: skip


def test_a_calibration_on_all_images_has_no_second_row_of_the_same(run: Path) -> None:
    metrics = run / "eval" / "dataset-val" / "metrics.json"
    content = json.loads(metrics.read_text())
    assert "All images, uncalibrated" in made(run)[1].words
    change_json(metrics, calibration={**content["calibration"], "before": content["probability"]})
    assert "All images, uncalibrated" not in made(run)[1].words


def test_a_negative_correlation_has_a_minus_sign(run: Path) -> None:
    explained = run / "explain" / "explain.json"
    randomised = json.loads(explained.read_text())["randomised"]
    change_json(explained, randomised={**randomised, "text": "the rank correlation is -0.02 (mean of 64 images)"})
    assert "the rank correlation is \N{MINUS SIGN}0.02 (mean of 64 images)" in made(run)[1].words


def test_the_metrics_that_are_named_are_explained(page: Page) -> None:
    terms = page.text("dt")
    for name in ("AUROC", "Average precision", "Brier score", "Log loss", "MCC (Matthews correlation)"):
        assert name in terms
    assert {"Youden's J", "Grad-CAM"} <= set(terms)
    assert "Mean squared difference of probability and label; lower is better." in page.words


def test_a_whole_run_has_no_remarks(summary: ReportSummary, page: Page) -> None:
    assert summary.remarks == ()
    assert not [a for _, a in page.elements if a.get("class") in {"missing", "warning"}]


def test_sections_have_headings_in_order(page: Page) -> None:
    assert page.text("h2") == list(SECTIONS.values())
    levels = [int(name[1]) for name, _ in page.elements if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_ids_are_unique_and_links_lead_to_them(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [a["href"] or "" for a in page.all("a")]
    assert links
    assert {link.removeprefix("#") for link in links} <= set(ids)
    for _, attributes in page.elements:
        for name in ("for", "aria-labelledby", "aria-describedby"):
            assert attributes.get(name) in {None, *ids}


def test_nothing_is_referred_to_but_the_page_itself(page: Page) -> None:
    assert "http" not in page.source.replace("http-equiv", "")
    for name in ("src", "href", "action", "srcset", "poster", "data"):
        for _, attributes in page.elements:
            assert re.match(r"#|data:", attributes.get(name) or "#")
    assert "url(" not in page.source
    assert "@import" not in page.source


def test_policy_lets_only_this_style_and_script_run(page: Page) -> None:
    policy = next(a["content"] or "" for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    for name in ("style", "script"):
        content = [data for tag, data in page.texts if tag == name and not data.startswith("{")]
        digest = base64.b64encode(hashlib.sha256("".join(content).encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert not [a for _, a in page.elements if "style" in a or any(name.startswith("on") for name in a)]


def test_markup_in_an_image_id_stays_text(summary: ReportSummary, page: Page) -> None:
    assert HOSTILE in page.text("code")
    assert not [a for a in page.all("img") if "onerror" in a]
    assert "<img src=x" not in page.source
    assert "<img src=x" not in summary.card.read_text()


def test_no_folder_of_the_machine_is_told(summary: ReportSummary, whole_run: Path) -> None:
    for path in (summary.page, summary.card):
        written = path.read_text()
        assert str(whole_run.parent) not in written
        assert "/somebody" not in written
        assert "in one, so the metrics are optimistic" in written


def test_not_for_clinical_use_is_said_once(summary: ReportSummary) -> None:
    for path in (summary.page, summary.card):
        assert path.read_text().lower().count("not for clinical use") == 1


def test_headline_is_that_of_the_metrics(whole_run: Path, page: Page) -> None:
    metrics = json.loads((whole_run / "eval" / "dataset-val" / "metrics.json").read_text())
    auroc = metrics["ranking"]["auroc"]
    for value in (
        auroc["value"],
        metrics["view_only"]["auroc"]["value"],
        metrics["always_negative"]["accuracy"]["value"],
    ):
        assert number(value) in page.words
    assert f"95 % interval {number(auroc['low'], 2)} to {number(auroc['high'], 2)}" in page.words
    for entry in metrics["chosen_thresholds"]:
        assert number(entry["threshold"]) in page.text("td")
    for group in metrics["subgroups"]:
        name = f"{group['column']}: {group['value']}"
        assert name in page.text("th") or f"{name} *" in page.text("th")


def test_data_and_reproduction(whole_run: Path, page: Page) -> None:
    for said in ("no patient is in two splits", "not_dicom", "antialiased bilinear", "1,234", "pneumo-fast train"):
        assert said in page.words
    assert hashlib.sha256((whole_run / "best.pt").read_bytes()).hexdigest() in page.text("code")


def test_every_drawing_has_words(page: Page) -> None:
    drawings = [a for a in page.all("svg") if "aria-hidden" not in a and a.get("class") != "inside"]
    assert len(drawings) == 7
    assert all(a["role"] == "img" and len(a["aria-label"] or "") > 40 for a in drawings)
    assert len(page.text("title")) == len(drawings) + 1
    pictures = page.all("img")
    assert len(pictures) == 12
    assert all(len(a["alt"] or "") > 40 for a in pictures)


def test_model_card_has_the_parts_of_the_paper(summary: ReportSummary, whole_run: Path) -> None:
    card = summary.card.read_text()
    assert tuple(re.findall("^## (.*)$", card, re.MULTILINE))[:9] == CARD_PARTS
    auroc = json.loads((whole_run / "eval" / "dataset-val" / "metrics.json").read_text())["ranking"]["auroc"]
    assert f"| AUROC | {number(auroc['value'])} ({number(auroc['low'], 2)} to {number(auroc['high'], 2)}) |" in card


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        (["pseudonyms", "pseudonyms"], "Nothing that names a patient or an image is in"),
        (["pseudonyms", "kept"], "Image ids are as in the label table (--keep-ids)"),
        ([], "whether image ids are pseudonyms too is no longer known"),
    ],
)
def test_the_card_says_what_stands_for_ids(ids: list[Ids], sentence: str, whole_run: Path) -> None:
    source = read_run(whole_run).sources[0]
    sources = [replace(source, manifest=replace(source.manifest, ids=each)) for each in ids]
    assert sentence in privacy_sentence(sources)


def test_the_same_files_give_the_same_report(whole_run: Path, summary: ReportSummary) -> None:
    before = summary.page.read_bytes(), summary.card.read_bytes()
    again = report(ReportConfig(run=whole_run))
    assert (again.page.read_bytes(), again.card.read_bytes()) == before
    assert again.size_bytes == len(before[0]) < 1_000_000


def themes() -> dict[str, dict[str, tuple[float, ...]]]:
    """Colours of the style sheet by name, in light and in dark."""
    style = (PACKAGE / "reporting" / "report.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    light, dark = (
        {name: tuple(int(value[i : i + 2], 16) / 255 for i in (1, 3, 5)) for name, value in found}
        for found in (re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block) for block in blocks)
    )
    return {"light": light, "dark": dark}


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Contrast ratio of the Web Content Accessibility Guidelines 2.1."""

    def luminance(colour: tuple[float, ...]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted([luminance(one), luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    ("ink", "paper", "least"),
    [
        *((ink, paper, 4.5) for ink in ("ink", "soft", "link") for paper in ("paper", "card")),
        *(("ink", paper, 4.5) for paper in ("right", "wrong", "warn")),
        ("card", "link", 4.5),
        *((line, "card", 3.0) for line in ("blue", "orange", "green", "grey")),
    ],
)
def test_colours_stand_out(theme: str, ink: str, paper: str, least: float) -> None:
    colours = themes()[theme]
    assert contrast(colours[ink], colours[paper]) >= least


HOSTILE_TEXT = "![x](http://a.example/p.png) `code` *b* \x1b[31m <b>|"


def test_a_text_from_outside_is_a_text_in_page_and_card(run: Path) -> None:
    metrics = run / "eval" / "dataset-val" / "metrics.json"
    change_json(metrics, notes=[HOSTILE_TEXT])
    _, page = made(run)
    shown = HOSTILE_TEXT.replace("\x1b", "\N{REPLACEMENT CHARACTER}")
    assert shown in page.words
    card = (run / "model_card.md").read_text()
    assert r"!\[x\](http://a.example/p.png) \`code\` \*b\* " in card
    assert "\x1b" not in page.source + card
    assert "<b>" not in card
