"""Explaining a run: the pointing game on phantoms, whose opacities are known, and what is written."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image

from pneumo_fast.conversion.convert import convert
from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.dataset.folder import Dataset, write_table
from pneumo_fast.dataset.selection import open_datasets
from pneumo_fast.errors import ConfigError, DatasetError, RunError
from pneumo_fast.evaluation.inference import open_run
from pneumo_fast.evaluation.notes import unread_note
from pneumo_fast.explanation import explain as explain_module
from pneumo_fast.explanation import maps as maps_module
from pneumo_fast.explanation.explain import explain
from pneumo_fast.explanation.options import ExplainConfig
from pneumo_fast.metrics.intervals import Estimate
from pneumo_fast.phantoms.make import PhantomSet, make_phantoms
from pneumo_fast.phantoms.options import PhantomConfig
from pneumo_fast.run.folder import write_config
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.train import train
from tests.support.repository import documented, keys_of
from tests.support.sources import index_phantoms
from tests.support.untrained_run import change, make_dataset, make_run


def train_on_phantoms(folder: Path, *, size: int, epochs: int) -> Path:
    """A run trained on phantoms until it tells them apart."""
    phantoms = make_phantoms(PhantomConfig(out=folder / "phantoms", count=500, size_px=size))
    convert(
        ConvertConfig(
            images=phantoms.images, labels=phantoms.labels, class_info=phantoms.class_info, groups=phantoms.mappings,
            out=folder / "dataset", size=size, val_fraction=0.4, workers=1, keep_ids=True,
        )
    )  # fmt: skip
    config = TrainConfig(
        datasets=(folder / "dataset",), out=folder / "run", epochs=epochs, batch_size=16, lr=1e-3, device="cpu"
    )
    assert train(config).best > 0.9
    return folder / "run"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on images of 64 pixels, which is quick to train."""
    return train_on_phantoms(tmp_path_factory.mktemp("trained"), size=64, epochs=6)


def config(run: Path, **values: Any) -> ExplainConfig:
    return ExplainConfig(run=run, **{"device": "cpu", "resamples": 500, "count": 2, **values})


def high(figure: Estimate | None) -> float:
    """Upper end of an interval; the figure itself where all images agree."""
    assert figure is not None
    assert figure.value is not None
    return figure.value if figure.high is None else figure.high


def test_a_trained_model_looks_at_the_opacities_and_a_random_one_does_not(trained: Path) -> None:
    found = explain(config(trained, method="hirescam", layer="layer2"))
    assert found.boxes is not None
    chance = max(high(found.boxes.hit_rate_random_point), high(found.boxes.hit_rate_centre_point))
    assert (found.boxes.hit_rate.low or 0) > chance, found.boxes
    assert (found.boxes.energy_share.low or 0) > high(found.boxes.box_area_share)
    random = found.randomised
    assert random.hit_rate is not None
    assert (random.hit_rate.low or 0) <= high(found.boxes.hit_rate_random_point), random
    assert abs(random.rank_correlation.value or 1) < 0.3


@pytest.mark.slow  # images on which a network of this kind can tell places apart take minutes to learn
def test_on_larger_images_the_trained_model_is_far_above_chance_and_above_the_random_one(tmp_path: Path) -> None:
    found = explain(config(train_on_phantoms(tmp_path, size=128, epochs=5), method="hirescam", layer="layer2"))
    assert found.boxes is not None
    low = found.boxes.hit_rate.low
    assert low is not None
    assert low > 2 * high(found.boxes.hit_rate_random_point), found.boxes
    assert low > high(found.boxes.hit_rate_centre_point)
    assert low > high(found.randomised.hit_rate), found.randomised
    assert found.randomised.hit_rate is not None
    assert (found.randomised.hit_rate.low or 0) <= high(found.boxes.hit_rate_random_point), found.randomised


def test_the_surest_of_each_kind_are_drawn(trained: Path) -> None:
    found = explain(config(trained, threshold=0.4))
    rows = Dataset.open(trained.parent / "dataset").rows("val")
    labels = dict(zip(rows["image_id"], rows["label"], strict=True))
    for drawn in found.images:
        called = drawn.probability >= 0.4
        assert drawn.label == labels[drawn.image_id]
        assert drawn.kind == ("T" if called == (drawn.label == 1) else "F") + ("P" if called else "N")
        with Image.open(found.folder / drawn.file) as image:
            assert min(image.size) > 250
    sure = [abs(d.probability - 0.4) for d in found.images if d.kind == "TN"]
    assert sure == sorted(sure, reverse=True)
    assert sum(d.kind == "TP" for d in found.images) == 2
    assert [d.file for d in found.images if d.kind == "TP"] == ["TP-01.png", "TP-02.png"]
    assert all((d.hit is None) == (d.label == 0) for d in found.images)


def test_the_same_call_writes_the_same_bytes(trained: Path) -> None:
    first, second = (
        {p.name: p.read_bytes() for p in explain(config(trained, count=1)).folder.iterdir()} for _ in range(2)
    )
    assert first == second


def test_every_key_is_documented(trained: Path) -> None:
    explain(config(trained, count=1))
    content = json.loads((trained / "explain" / "explain.json").read_text())
    assert keys_of(content) <= documented("explaining.md", "metrics.md")
    assert content["layer"] == "layer3"
    assert content["map_size"] == [4, 4]


@pytest.fixture
def boxless(tmp_path: Path) -> Path:
    """A run of random weights on noise without boxes, 32 pixels wide."""
    return make_run(tmp_path / "run", make_dataset(tmp_path / "dataset"))


def files_of(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "explain").glob("*.png")}


def test_named_images_are_drawn_beside_the_earlier_ones(boxless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, files = explain(config(boxless, count=1)), files_of(boxless)
    there = {d.image_id for d in first.images}
    rows = Dataset.open(boxless.parent / "dataset").rows("val")
    ids = tuple(rows["image_id"][~rows["image_id"].isin(there)].iloc[[3, 1]])
    monkeypatch.setattr(explain_module, "infer", None)  # the split is not judged anew
    found = explain(config(boxless, ids=(*ids, first.images[0].image_id)))
    assert found.images[: len(first.images)] == first.images
    assert tuple(d.image_id for d in found.images[len(first.images) :]) == found.added_ids == ids
    assert (found.boxes, found.randomised, found.options) == (first.boxes, first.randomised, first.options)
    assert {d.file for d in found.images} == set(files_of(boxless))
    assert files_of(boxless).items() >= files.items()


@pytest.mark.parametrize("file", ["../../x.png", "../aside/x.png", "{outside}/x.png", "a\0.png"])
def test_a_file_outside_of_the_folder_is_not_taken_over(boxless: Path, file: str) -> None:
    """A tampered ``explain.json`` has nothing copied into the folder, or written elsewhere."""
    outside = boxless.parent
    named = file.format(outside=outside)
    for there in (outside, boxless / "aside"):  # `explain/../../x.png` and `explain/../aside/x.png`
        there.mkdir(exist_ok=True)
        (there / "x.png").write_bytes(b"not a map")
    explain(config(boxless, count=1))
    path = boxless / "explain" / "explain.json"
    content = json.loads(path.read_text())
    content["images"][0]["file"] = named
    path.write_text(json.dumps(content))
    before = {there: there.stat().st_mtime_ns for there in (outside / "x.png", boxless / "aside" / "x.png")}
    image_id = Dataset.open(outside / "dataset").rows("val")["image_id"].iloc[5]
    found = explain(config(boxless, ids=(image_id,)))
    assert [drawn.file for drawn in found.images][:-1] == [each["file"] for each in content["images"][1:]]
    assert {path.name for path in found.folder.iterdir()} == {drawn.file for drawn in found.images} | {"explain.json"}
    assert {there: there.stat().st_mtime_ns for there in before} == before


def test_an_added_image_is_as_it_is_alone(boxless: Path) -> None:
    explain(config(boxless, count=1))
    image_id = Dataset.open(boxless.parent / "dataset").rows("val")["image_id"].iloc[5]
    added = explain(config(boxless, ids=(image_id,))).images[-1]
    shutil.rmtree(boxless / "explain")
    (alone,) = explain(config(boxless, ids=(image_id,))).images
    assert added.probability == pytest.approx(alone.probability, abs=1e-5)
    assert (added.image_id, added.kind, added.hit) == (alone.image_id, alone.kind, alone.hit)


def test_maps_of_another_kind_replace_the_earlier_ones_and_that_is_said(
    boxless: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = len(explain(config(boxless)).images)
    image_id = Dataset.open(boxless.parent / "dataset").rows("val")["image_id"].iloc[5]
    with caplog.at_level("INFO", "pneumo_fast"):
        found = explain(config(boxless, ids=(image_id,), method="hirescam"))
    assert [d.image_id for d in found.images] == [image_id]
    assert {p.name for p in found.folder.iterdir()} == {d.file for d in found.images} | {"explain.json"}
    assert f"the {before} earlier heat maps in {boxless / 'explain'} are replaced" in caplog.text


def test_a_model_without_a_square_map_is_refused(boxless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps_module, "map_layers", lambda *_: {})
    with pytest.raises(ConfigError, match="no layer of model 'resnet18' gives a square map of images of 32 pixels: co"):
        explain(config(boxless))


def test_a_map_of_another_size_is_not_repeated(boxless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps_module, "class_maps", lambda *_: (torch.zeros(4), torch.zeros(4, 1, 1)))
    with pytest.raises(ConfigError, match=r"layer 'layer2' gives a map of \(1, 1\) places, \(4, 4\) expected: use an"):
        explain(config(boxless))


def test_without_boxes_what_can_be_done_is_done(boxless: Path) -> None:
    found = explain(config(boxless))
    assert found.boxes is None
    assert found.randomised.hit_rate is None
    assert found.images
    assert any("has a box: the pointing game needs boxes" in note for note in found.notes)


def test_a_single_image_with_a_box(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everyone = explain_module._boxes
    monkeypatch.setattr(explain_module, "_boxes", lambda *a: dict(list(everyone(*a).items())[:1]))
    found = explain(config(trained, count=1))
    assert found.boxes is not None
    assert (found.boxes.images, found.randomised.images) == (1, 1)


def with_boxes(folder: Path, x: float, *rows: int) -> Path:
    """A dataset of noise in which some validation images have one box of 8 pixels in the left upper corner."""
    make_dataset(folder)
    table = pd.DataFrame(
        [
            {"image_id": f"val, {row}", "x": x, "y": 0, "width": 8, "height": 8}
            | {"source_width": 32, "source_height": 32}
            for row in rows
        ]
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["tables"]["boxes.csv"] = write_table(folder, "boxes.csv", table)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def alike(tmp_path: Path) -> Path:
    """A run on two datasets that give their images the same ids, but boxes to different ones."""
    folders = [with_boxes(tmp_path / "one", 0.0, 1), with_boxes(tmp_path / "other", 16.0, 1, 4)]
    run = make_run(tmp_path / "run", folders[0])
    change(run, dataset_identity=open_datasets(folders).identity)
    write_config(run, {"config": {"datasets": [str(folder) for folder in folders]}})
    return run


def test_images_of_one_id_have_the_boxes_of_their_own_dataset(alike: Path) -> None:
    judged = open_run(alike, None, "cpu")
    rows = judged.rows("val")
    boxes = explain_module._boxes(judged, rows)
    per_dataset = len(rows) // 2
    assert {row: [corners[0, 0] for corners in own] for row, own in boxes.items()} == {
        1: [0.0], per_dataset + 1: [16.0], per_dataset + 4: [16.0]
    }  # fmt: skip


def test_an_id_of_several_images_has_to_be_told_apart(alike: Path) -> None:
    with pytest.raises(ConfigError, match="id 'val, 4' names 2 images of split 'val', each of another dataset: name"):
        explain(config(alike, ids=("val, 4",)))
    (drawn,) = explain(config(alike, ids=("val, 4",), dataset=alike.parent / "other")).images
    assert drawn.hit is not None


def test_boxes_are_cut_off_at_the_edges_and_those_outside_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(tmp_path / "run", with_boxes(tmp_path / "dataset", 28.0, 1, 4))
    judged = open_run(run, None, "cpu")
    rows = judged.rows("val")
    assert [corners[0][2, 0] for corners in explain_module._boxes(judged, rows).values()] == [32.0, 32.0]
    outside = replace(judged, dataset=replace(judged.dataset, boxes=judged.dataset.boxes.assign(x=[32.0, 4.0])))
    assert list(explain_module._boxes(outside, rows)) == [4]
    assert "1 boxes lie outside of their images or have no area, and are left out" in caplog.text


def test_progress_reaches_the_end(boxless: Path) -> None:
    calls: list[tuple[int, int]] = []
    explain(config(boxless, batch_size=4), lambda done, total: calls.append((done, total)))
    assert calls[-1] == (11, 11)


def test_an_image_whose_file_is_lost_is_passed_over(phantoms: PhantomSet, tmp_path: Path) -> None:
    """The first of the split, and the first with a box; named, such an image ends it with the name of its file."""
    dataset = index_phantoms(phantoms, tmp_path, max_rejects=2)
    run, rows = make_run(tmp_path / "run", dataset.path), dataset.rows("val")
    before = explain(config(run, count=100))
    boxed = next(drawn.image_id for drawn in before.images if drawn.hit is not None)
    lost = {rows["image_id"][0], boxed}
    for image_id in lost:
        (tmp_path / "images" / f"{image_id}.dcm").unlink()
    after = explain(config(run, count=100))
    assert {drawn.image_id for drawn in after.images} == set(rows["image_id"]) - lost
    assert before.boxes is not None
    assert after.boxes is not None
    assert after.boxes.images == before.boxes.images - len(lost & set(dataset.boxes["image_id"]))
    assert unread_note(len(lost)) in after.notes
    with pytest.raises(DatasetError, match=f"image file {boxed}.dcm cannot be read"):
        explain(config(run, ids=(boxed,)))


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ({"layer": "layer7"}, ConfigError, "layer 'layer7' gives no map: use one of .*layer3"),
        ({"layer": "fc"}, ConfigError, "layer 'fc' gives no map: use one of .*layer3"),
        ({"ids": ("val, 0", "nobody")}, ConfigError, "1 of 2 ids are not in split 'val', first 'nobody'"),
        ({"run": Path("nowhere")}, RunError, "run pneumo-fast train first"),
    ],
)
def test_what_cannot_be_explained(boxless: Path, values: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        explain(config(**{"run": boxless, **values}))
    assert not (boxless / "explain").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "lime"}, "method 'lime' is unknown: use one of gradcam"),
        ({"count": 0}, "count 0"),
        ({"threshold": 1.5}, "threshold 1.5 is not a probability"),
        ({"resamples": 1}, "resamples 1"),
        ({"seed": 10**23}, "seed 100000000000000000000000: a whole number of 64 bits expected"),
        ({"split": "x"}, "split 'x' is unknown"),
    ],
)
def test_options_that_cannot_work(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(Path("run"), **values)


def test_a_full_disk_leaves_no_figures(boxless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: Path, _data: bytes | str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(explain_module, "write_atomic", full)
    with pytest.raises(RunError, match=r"explain cannot be written \(No space left on device\)"):
        explain(config(boxless))
    assert not (boxless / "explain" / "explain.json").exists()
