"""The report and the model card: what is in them, and what is said where something is missing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import pneumo_fast
from pneumo_fast.errors import RunError
from pneumo_fast.formatting import number
from pneumo_fast.reporting import gallery
from pneumo_fast.reporting.markup import Html, tag, text
from pneumo_fast.reporting.options import ReportConfig
from pneumo_fast.reporting.page import SECTIONS
from pneumo_fast.reporting.repeat import commands
from pneumo_fast.reporting.report import ReportSummary, report
from pneumo_fast.reporting.sources import Scored, read_run, without_folders
from pneumo_fast.reporting.svg import nice_ticks, thin, tick
from pneumo_fast.reporting.threshold_slider import STEPS, count, step_of
from tests.support.make_run import HOSTILE, change_json, draw_heat_map, make_run

PACKAGE = Path(pneumo_fast.__file__).parent
CARD_PARTS = (
    "Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data", "Quantitative analyses",
    "Ethical considerations", "Caveats and recommendations",
)  # fmt: skip
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


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything there; not to be changed."""
    return make_run(tmp_path_factory.mktemp("whole"), hostile=True)


@pytest.fixture(scope="module")
def summary(whole_run: Path) -> ReportSummary:
    return report(ReportConfig(run=whole_run))


@pytest.fixture(scope="module")
def page(summary: ReportSummary) -> Page:
    return Page(summary.page.read_text())


@pytest.fixture
def run(whole_run: Path, tmp_path: Path) -> Path:
    """A run to be changed."""
    shutil.copytree(whole_run.parent, tmp_path / "copy", ignore=shutil.ignore_patterns("report.html", "model_card.md"))
    copied = tmp_path / "copy" / "run"
    for name in ("eval/metrics.json", "explain/explain.json", "config.json"):
        path = copied / name
        path.write_text(path.read_text().replace(str(whole_run.parent), str(tmp_path / "copy")))
    return copied


def made(run: Path) -> tuple[ReportSummary, Page]:
    summary = report(ReportConfig(run=run))
    return summary, Page(summary.page.read_text())


# ---- what is there


def test_a_whole_run_has_no_remarks(summary: ReportSummary, page: Page) -> None:
    assert summary.remarks == ()
    assert not [a for _, a in page.elements if a.get("class") in {"missing", "warning"}]


def test_sections_have_headings_in_order(page: Page) -> None:
    assert page.text("h2") == [section.title for section in SECTIONS]
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
        assert "in one, so they flatter it" in written


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("/home/a b/c/dataset", "dataset"),
        ("seen in /home/a/dataset.", "seen in dataset."),
        ("sensitivity/recall, 3/4, run/eval", "sensitivity/recall, 3/4, run/eval"),
        ({"paths": ["/a/b", 3, None, "x"]}, {"paths": ["b", 3, None, "x"]}),
    ],
)
def test_folders_are_taken_out_of_texts(content: Any, expected: Any) -> None:
    assert without_folders(content) == expected


def test_not_for_clinical_use_is_said_once(summary: ReportSummary) -> None:
    for path in (summary.page, summary.card):
        assert path.read_text().lower().count("not for clinical use") == 1


def test_headline_is_that_of_the_metrics(whole_run: Path, page: Page) -> None:
    metrics = json.loads((whole_run / "eval" / "metrics.json").read_text())
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
        assert f"{group['column']}: {group['value']}" in page.text("th")


def test_data_and_reproduction(whole_run: Path, page: Page) -> None:
    for said in ("no patient stands in two splits", "not_dicom", "antialiased bilinear", "1,234", "pneumo-fast train"):
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
    auroc = json.loads((whole_run / "eval" / "metrics.json").read_text())["ranking"]["auroc"]
    assert f"| AUROC | {number(auroc['value'])} ({number(auroc['low'], 2)} to {number(auroc['high'], 2)}) |" in card


def test_the_same_files_give_the_same_report(whole_run: Path, summary: ReportSummary) -> None:
    before = summary.page.read_bytes(), summary.card.read_bytes()
    again = report(ReportConfig(run=whole_run))
    assert (again.page.read_bytes(), again.card.read_bytes()) == before
    assert again.size_bytes == len(before[0]) < 1_000_000


def test_commands_have_options_that_exist(whole_run: Path, run_cli: Callable[..., Any]) -> None:
    lines = commands(read_run(whole_run))
    assert [line.split()[1] for line in lines] == ["convert", "train", "evaluate", "explain", "report"]
    for line in lines:
        words = shlex.split(line)
        told = run_cli(words[1], "--help").out
        assert {word for word in words if word.startswith("--")} <= set(re.findall(r"--[a-z-]+", told))
    assert "--lr 0.0003 --augment light --amp" in lines[1]
    assert "--threshold 0.5 --threshold 0.25 --target-sensitivity 0.9" in lines[2]


# ---- what is missing


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("eval/predictions.csv", "predictions.csv is missing"),
        ("explain", "run pneumo-fast explain run"),
        ("config.json", "config.json is missing or damaged"),
        ("history.jsonl", "history.jsonl is missing"),
        ("best.pt", "best.pt is not there"),
        ("../dataset", "Dataset dataset is not where it was"),
    ],
)
def test_missing_files_are_named_and_the_rest_is_told(run: Path, name: str, said: str) -> None:
    path = run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()

    summary, page = made(run)

    assert [said in remark for remark in summary.remarks] == [True]
    assert said in page.words
    assert page.text("h2") == [section.title for section in SECTIONS]
    assert "#" in summary.card.read_text()


def test_everything_but_the_metrics_missing(run: Path) -> None:
    shutil.rmtree(run / "explain")
    shutil.rmtree(run.parent / "dataset")
    for name in ("eval/predictions.csv", "config.json", "history.jsonl", "best.pt"):
        (run / name).unlink()

    summary, page = made(run)

    assert len(summary.remarks) == 6
    assert page.text("h2") == [section.title for section in SECTIONS]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("eval/predictions.csv", "image_id,label\na,1\n", "predictions.csv cannot be read (ValueError)"),
        ("eval/predictions.csv", "label,logit,probability\n1,0.0,0.5\n", "does not belong to metrics.json"),
        ("explain/explain.json", "{", "explain.json is damaged"),
        ("history.jsonl", '{"epoch": 1}\n{"epo', "history.jsonl is missing, empty or damaged"),
        ("best.pt", "other weights", "The figures are of another checkpoint"),
        ("../dataset/manifest.json", "{}", "Dataset dataset is not where it was"),
    ],
)
def test_damaged_files_are_named_and_the_rest_is_told(run: Path, name: str, content: str, said: str) -> None:
    (run / name).write_text(content)

    summary, page = made(run)

    assert [said in remark for remark in summary.remarks] == [True]
    assert said in page.words


def test_another_dataset_in_its_place_is_not_told_of(run: Path) -> None:
    change_json(run.parent / "dataset" / "manifest.json", mean=0.1)

    summary, page = made(run)

    assert ["no longer the one that was judged on" in remark for remark in summary.remarks] == [True]
    assert "not_dicom" not in page.words
    assert "config.json has them" in page.words


def test_heat_maps_of_another_checkpoint_are_shown_with_a_warning(run: Path) -> None:
    told = json.loads((run / "explain" / "explain.json").read_text())
    change_json(run / "explain" / "explain.json", run={**told["run"], "sha256": "f" * 64})

    summary, page = made(run)

    assert ["heat maps are of another checkpoint (ffffffffffff…)" in remark for remark in summary.remarks] == [True]
    assert [a for _, a in page.elements if a.get("class") == "warning"]
    assert page.all("img")


def test_an_explanation_of_another_version_is_not_read(run: Path) -> None:
    change_json(run / "explain" / "explain.json", format_version=7)

    summary, page = made(run)

    assert ["has format version 7" in remark for remark in summary.remarks] == [True]
    assert not page.all("img")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.unlink(), r"was not evaluated .*: run pneumo-fast evaluate"),
        (lambda path: path.write_text("{"), r"metrics.json cannot be read .*: run pneumo-fast evaluate"),
        (lambda path: path.write_text("[]"), r"holds no metrics .*: run pneumo-fast evaluate"),
        (lambda path: change_json(path, format_version=1), r"format version 1, this release reads 2: run pneumo-fast"),
        (lambda path: change_json(path, subgroups=..., notes=...), r"not complete \(no notes, subgroups\): run pneumo"),
        (
            lambda path: change_json(path, ranking={}),
            r"not what evaluate writes \(KeyError: 'auroc'\): run pneumo-fast",
        ),
    ],
)
def test_metrics_that_cannot_be_used(run: Path, change: Callable[[Path], object], said: str) -> None:
    change(run / "eval" / "metrics.json")
    with pytest.raises(RunError, match=said):
        report(ReportConfig(run=run))
    assert not (run / "report.html").exists()


def test_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there is no run .*/nowhere: name a run folder"):
        report(ReportConfig(run=tmp_path / "nowhere"))


def test_no_calibration_no_views_no_subgroups(run: Path) -> None:
    nothing: dict[str, Any] = {"calibration": None, "parts": None, "chosen_thresholds": [], "view_only": None}
    change_json(run / "eval" / "metrics.json", subgroups=[], **nothing)

    _, page = made(run)

    for said in ("There is no calibration", "No threshold could be chosen", "Neither sex, age"):
        assert said in page.words


def test_images_of_one_class(tmp_path: Path) -> None:
    _, page = made(make_run(tmp_path, one_class=True, pictures=1))
    for said in ("The images are all of one class", "There is no calibration", "No threshold could be chosen"):
        assert said in page.words
    assert "Called positive" in page.text("th")


def test_the_command_tells_where_and_what_is_missing(run: Path, run_cli: Callable[..., Any]) -> None:
    shutil.rmtree(run / "explain")
    ended = run_cli("report", run)
    assert ended.code == 0
    assert f"Report: {run / 'report.html'} (" in ended.out
    assert "run pneumo-fast explain run" in ended.out


def test_the_command_fails_in_one_line(tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    ended = run_cli("report", tmp_path)
    assert ended.code == 1
    assert re.search(r"^error: .* was not evaluated .* pneumo-fast evaluate \S+$", ended.err)


# ---- heat maps


def test_heat_maps_have_a_budget_that_is_shared_by_all_kinds(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    draw_heat_map(0).save(tmp_path / "a.png")
    entries = [{"kind": kind, "file": "a.png"} for kind in ("TP", "TP", "TP", "FP", "FN", "TN")]
    everything, _ = gallery.load_pictures(tmp_path, entries)
    size = len(everything[0].jpeg)
    monkeypatch.setattr(gallery, "BUDGET_BYTES", 4 * size)

    pictures, dropped = gallery.load_pictures(tmp_path, entries)

    assert [picture.entry["kind"] for picture in pictures] == ["TP", "FP", "FN", "TN"]
    assert dropped == 2
    _, page = made(run)
    assert any("could not be read, or had no room here" in words for words in page.text("p"))


def test_a_report_full_of_heat_maps_is_below_five_megabytes(run: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (480, 480, 3), dtype=np.uint8)
    Image.fromarray(noise).save(run / "explain" / "TP-01.png")
    told = json.loads((run / "explain" / "explain.json").read_text())
    change_json(run / "explain" / "explain.json", images=[{**told["images"][0], "file": "TP-01.png"}] * 400)

    summary, page = made(run)

    assert 3_000_000 < summary.size_bytes < 5_000_000
    assert 10 < len(page.all("img")) < 400


@pytest.mark.parametrize("name", ["../config.json", "/etc/hostname", "missing.png", "explain.json"])
def test_only_images_of_the_folder_are_shown(run: Path, name: str) -> None:
    told = json.loads((run / "explain" / "explain.json").read_text())
    images = [{**told["images"][0], "file": name}, told["images"][1]]
    change_json(run / "explain" / "explain.json", images=images)
    _, page = made(run)
    assert len(page.all("img")) == 1
    assert "1 heat map could not be read" in page.words


# ---- pieces


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.one_of(st.floats(0, 1), st.integers(0, 1000).map(lambda k: k / 1000))),
        min_size=1,
        max_size=60,
    )
)
def test_counts_are_those_of_the_rule(images: list[tuple[int, float]]) -> None:
    labels, probabilities = (np.array(values) for values in zip(*images, strict=True))
    counts = count(Scored(labels=labels, logits=probabilities, probabilities=probabilities.astype(np.float64)))
    for step in range(0, STEPS + 1, 7):
        called = probabilities >= step / 1000
        assert counts.tp[step] == (called & (labels == 1)).sum()
        assert counts.fp[step] == (called & (labels == 0)).sum()


@pytest.mark.parametrize(
    ("threshold", "step"), [(0.5, 500), (0.25, 250), (0.0, 0), (1.0, 1000), (0.007, 7), (0.1234, None)]
)
def test_steps_of_the_slider(threshold: float, step: int | None) -> None:
    assert step_of(threshold) == step


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=80), st.integers(1, 12))
def test_thinned_curves_look_the_same(points: list[tuple[float, float]], columns: int) -> None:
    """Every point left out lies near the line that is drawn, but for the height of points within one column."""
    x, y = np.sort(np.array([p[0] for p in points])), np.array([p[1] for p in points])
    fewer_x, fewer_y = thin(x, y, columns=600, tolerance=0.001)
    assert (fewer_x[[0, -1]] == x[[0, -1]]).all()
    for px, py in zip(x, y, strict=True):
        assert distance(px, py, fewer_x, fewer_y) <= 0.001 + 1e-12
    few_x, few_y = thin(x, y, columns=columns)
    assert (few_y.min(), few_y.max()) == pytest.approx((y.min(), y.max()), abs=0.0008)
    assert len(few_x) <= max(4 * columns + 4, 2)


def distance(x: float, y: float, curve_x: Any, curve_y: Any) -> float:
    """From a point to a drawn line."""
    ends = np.stack([curve_x, curve_y], axis=1)
    starts, ways = ends[:-1], np.diff(ends, axis=0)
    lengths = np.maximum((ways**2).sum(axis=1), 1e-300)
    along = np.clip((([x, y] - starts) * ways).sum(axis=1) / lengths, 0, 1)
    return float(np.hypot(*([x, y] - starts - along[:, None] * ways).T).min())


def test_a_curve_of_a_million_points_becomes_some_hundred() -> None:
    rng = np.random.default_rng(0)
    label = rng.random(1_000_000) < 0.2
    called = label[np.argsort(-(rng.normal(size=len(label)) + 2.0 * label))]
    found, alarms = np.cumsum(called) / called.sum(), np.cumsum(~called) / (~called).sum()
    x, y = thin(alarms, found)
    assert 20 < len(x) < 600
    assert max(distance(alarms[k], found[k], x, y) for k in range(0, len(label), 1009)) < 0.003


@pytest.mark.parametrize(
    ("value", "digits", "written"),
    [
        (None, 3, "\N{EN DASH}"),
        (0.0625, 3, "0.063"),
        (0.3125, 3, "0.313"),
        (1.0, 3, "1.000"),
        (-0.25, 2, "\N{MINUS SIGN}0.25"),
        (-0.0004, 3, "0.000"),
        (2.0, 0, "2"),
    ],
)
def test_numbers_are_written_as_the_script_writes_them(value: float | None, digits: int, written: str) -> None:
    assert number(value, digits) == written


def test_attributes_and_text_are_escaped() -> None:
    assert tag("p", text("<&"), title='"<', class_="a", hidden=True, lang=None) == (
        '<p title="&quot;&lt;" class="a" hidden>&lt;&amp;</p>'
    )
    assert tag("img", alt="") == '<img alt="">'
    assert tag("g", Html("<a></a>"), stroke_width=2) == '<g stroke-width="2"><a></a></g>'


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 0.9, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.31, 0.33, [0.31, 0.315, 0.32, 0.325, 0.33]),
        (0, 4, [0, 1, 2, 3, 4]),
    ],
)
def test_ticks(low: float, high: float, ticks: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(ticks)
    assert len({tick(value, ticks) for value in ticks}) == len(ticks)


def test_every_file_of_the_package_is_packaged() -> None:
    section = (PACKAGE.parent / "pyproject.toml").read_text().split("[tool.setuptools.package-data]")[1].split("\n[")[0]
    data = {
        PACKAGE.parent / package.replace(".", "/") / name
        for package, names in re.findall(r'(?m)^"?([\w.]+)"? = \[(.*)\]$', section)
        for name in re.findall(r'"(.*?)"', names)
    }
    others = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}
    assert others == data


# ---- colours


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
