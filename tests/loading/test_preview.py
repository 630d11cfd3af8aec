"""The contact sheet: the images asked for, with their boxes where they belong, and nothing that identifies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.drawing.contact_sheet import Panel, Strip, draw_contact_sheet
from pneumo_fast.drawing.style import ORANGE
from pneumo_fast.errors import ConfigError, DatasetError
from pneumo_fast.loading import preview as show_module
from pneumo_fast.loading.augment import Augmentation
from pneumo_fast.loading.options import ShowConfig
from pneumo_fast.loading.preview import choose_rows, show
from pneumo_fast.radiograph.resize import fitted_size, place, resize, stored_boxes
from tests.support.make_dataset import make_dataset

Run = Callable[..., Any]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the sheet is drawn from, in the place of drawing it."""
    calls: list[tuple[Any, ...]] = []

    def instead(*arguments: Any) -> bytes:
        calls.append(arguments)
        return b""

    monkeypatch.setattr(show_module, "draw_contact_sheet", instead)
    return calls


def shown(dataset: Dataset, drawn: list[tuple[Any, ...]], out: Path, **options: Any) -> list[Strip]:
    show(ShowConfig(dataset=dataset.path, out=out / "sheet.png", **options))
    strips: list[Strip] = drawn[-1][0]
    return strips


def test_a_sheet_is_a_picture_that_shows_boxes(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    summary = show(ShowConfig(dataset=dataset.path, out=out, count=4))
    assert (summary.images, summary.versions) == (4, 5)
    assert summary.boxes > 0
    image = np.asarray(Image.open(out).convert("RGB")).astype(float)
    assert min(image.shape[:2]) > 600
    orange = np.array([int(ORANGE[i : i + 2], 16) for i in (1, 3, 5)])
    assert (np.abs(image - orange) < 3).all(axis=2).sum() > 200 * summary.boxes


def test_stored_images_stand_first_and_changed_ones_follow(
    dataset: Dataset, drawn: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    index = dataset.rows("train").set_index("image_id")
    for strip in shown(dataset, drawn, tmp_path, count=3, seed=7):
        row = index.loc[strip.image_id]
        assert strip.label == row["label"]
        stored = np.load(dataset.path / row["shard"])[row["row"]] / np.float32(dataset.scale)
        np.testing.assert_array_equal(strip.panels[0].image, stored)
        assert len({panel.image.tobytes() for panel in strip.panels}) == 5


def test_boxes_undergo_what_training_does_with_the_same_seed(
    dataset: Dataset, drawn: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    ids = dataset.rows("train")["image_id"].tolist()
    augmentation = Augmentation(strength="strong", flip=True, seed=7)
    for strip in shown(dataset, drawn, tmp_path, count=3, seed=7, augment="strong", flip=True):
        for epoch, panel in enumerate(strip.panels[1:]):
            matrix = augmentation.draw(epoch, np.array([ids.index(strip.image_id)]), dataset.size).matrix[0]
            for before, after in zip(strip.panels[0].boxes, panel.boxes, strict=True):
                np.testing.assert_allclose(after @ matrix[:, :2].T + matrix[:, 2], before, atol=1e-3)
                assert np.abs(after - before).max() > 0.1


def test_every_box_of_the_table_is_shown(dataset: Dataset, drawn: list[tuple[Any, ...]], tmp_path: Path) -> None:
    strips = shown(dataset, drawn, tmp_path, count=100)
    assert sorted(strip.image_id for strip in strips) == sorted(dataset.rows("train")["image_id"])
    counts = dataset.boxes["image_id"].value_counts()
    for strip in strips:
        assert len(strip.panels[0].boxes) == counts.get(strip.image_id, 0)


def test_the_same_seed_gives_the_same_bytes(dataset: Dataset, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        show(ShowConfig(dataset=dataset.path, out=tmp_path / f"{name}.png", count=2, seed=seed))
    one, same, other = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert one == same
    assert one != other


def test_only_label_and_id_are_written(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_args, **_options: figures.append(figure))
    show(ShowConfig(dataset=dataset.path, out=tmp_path / "s.png", count=2))
    index = dataset.rows("train")
    chosen = index.loc[choose_rows(index["label"].to_numpy(), 2, 0)]
    titles = {f"label {label}  ·  {name}" for label, name in zip(chosen["label"], chosen["image_id"], strict=True)}
    general = {"train split  ·  augmentation light", "orange: boxes of the label table", "stored"}
    epochs = {f"epoch {epoch}" for epoch in (1, 2, 3, 4)}
    assert {text.get_text() for text in figures[0].axes[0].texts} == titles | general | epochs


@pytest.mark.parametrize(("image_id", "written"), [("$x_1$ [b]", "$x_1$ [b]"), ("a" * 500, "a" * 56 + "…")])
def test_a_long_or_strange_id_is_written_as_it_is_and_cut(
    image_id: str, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    savefig = Figure.savefig

    def save(figure: Figure, *arguments: Any, **options: Any) -> None:
        savefig(figure, *arguments, **options)  # where a formula that is none would fail
        shown.extend(text.get_text() for text in figure.axes[0].texts)

    monkeypatch.setattr(Figure, "savefig", save)
    panel = Panel(image=np.zeros((8, 8), dtype=np.float32), boxes=())
    draw_contact_sheet([Strip(label=0, image_id=image_id, panels=(panel,))], ["stored"], "t", 1)
    assert f"label 0  ·  {written}" in shown


# ---- which images


@given(labels=st.lists(st.integers(0, 1), min_size=1, max_size=60), count=st.integers(1, 80), seed=st.integers(0, 99))
def test_rows_are_chosen_evenly_without_repeats(labels: list[int], count: int, seed: int) -> None:
    marks = np.array(labels)
    rows = choose_rows(marks, count, seed)
    assert len(set(rows.tolist())) == len(rows) == min(count, len(labels))
    positive, negative = int(marks[rows].sum()), int((1 - marks[rows]).sum())
    assert marks[rows].tolist() == [1] * positive + [0] * negative
    assert positive == marks.sum() or negative == (1 - marks).sum() or positive - negative in {0, 1}


# ---- boxes


@pytest.mark.parametrize("shape", [(64, 64), (128, 64), (64, 128), (91, 67), (20, 33)])
def test_boxes_are_fitted_like_the_image(shape: tuple[int, int]) -> None:
    height, width = shape
    source = np.zeros(shape, dtype=np.float32)
    x, y, w, h = width // 4, height // 3, width // 2, height // 4
    source[y : y + h, x : x + w] = 1
    stored = place(resize(source, *fitted_size(height, width, 32)), 32)
    row = {"x": x, "y": y, "width": w, "height": h, "source_width": width, "source_height": height}
    (corners,) = stored_boxes(pd.DataFrame([row]), 32)
    rows, columns = np.mgrid[:32, :32] + 0.5
    centre = np.array([(stored * columns).sum(), (stored * rows).sum()]) / stored.sum()
    np.testing.assert_allclose(corners.mean(axis=0), centre, atol=0.02)
    area = np.prod(corners.max(axis=0) - corners.min(axis=0))
    assert area == pytest.approx(stored.sum(), rel=0.01)


def test_a_dataset_without_boxes_is_shown_without(tmp_path: Path, drawn: list[tuple[Any, ...]]) -> None:
    dataset = make_dataset(tmp_path / "plain", size=16)
    assert show(ShowConfig(dataset=dataset.path, out=tmp_path / "s.png")).boxes == 0
    assert {panel.boxes for strip in drawn[0][0] for panel in strip.panels} == {()}


# ---- bad input


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"count": 0}, "count 0: 1 to 100 images expected"),
        ({"count": 101}, "count 101: 1 to 100 images expected"),
        ({"split": "all"}, "split 'all' is unknown: use one of train, val, test"),
        ({"augment": "none"}, "augment 'none' is unknown: use one of light, strong"),
        ({"out": Path("sheet.jpg")}, "out sheet.jpg: the name of a PNG file expected"),
        ({"seed": 2**64}, "a whole number of 64 bits expected"),
    ],
)
def test_values_that_cannot_work(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ShowConfig(**options)


def test_a_split_without_images(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="has no 'test' images: its splits are train, val"):
        show(ShowConfig(dataset=dataset.path, out=tmp_path / "s.png", split="test"))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_does_not_exist(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"folder .*/gone does not exist: make it, or name another file"):
        show(ShowConfig(dataset=dataset.path, out=tmp_path / "gone" / "s.png"))


def test_the_command_writes_the_sheet(dataset: Dataset, run_cli: Run, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    ended = run_cli("show", dataset.path, "--out", out, "--count", "1", "--augment", "strong", "--flip")
    assert (ended.code, ended.err) == (0, "")
    assert "Images: 1, each as stored and in 4 changed versions; boxes: " in ended.out
    assert ended.out.rstrip().endswith(f"written to {out}")
    assert out.read_bytes().startswith(b"\x89PNG")
