"""The pointing game's strongest rival: where boxes are most often, by view."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd

from benchmarks.pointing import play, view_rate
from pneumo_fast.dataset.folder import Dataset
from tests.support.untrained_run import make_run


def with_boxes(dataset: Dataset) -> Dataset:
    """Positive images have a box on the left where the view is AP, and on the right where it is PA."""
    index = dataset.index.assign(view=["AP" if row % 2 else "PA" for row in range(len(dataset.index))])
    side = dict(zip(index["image_id"], index["view"], strict=True))
    boxes = pd.DataFrame(
        {"image_id": image_id, "x": 4.0 if side[image_id] == "AP" else 44.0, "y": 20.0, "width": 12.0, "height": 20.0,
         "source_width": 64.0, "source_height": 64.0}
        for image_id in index.loc[index["label"] == 1, "image_id"]
    )  # fmt: skip
    return replace(dataset, index=index, boxes=boxes)


def test_each_view_has_its_own_place(dataset: Dataset) -> None:
    assert view_rate(with_boxes(dataset), "val").value == 1.0


def test_a_place_that_is_never_right(dataset: Dataset) -> None:
    made = with_boxes(dataset)
    trained_on = made.boxes["image_id"].isin(made.rows("train")["image_id"])
    moved = made.boxes.assign(y=made.boxes["y"].where(trained_on, 44.0))
    assert view_rate(replace(made, boxes=moved), "val").value == 0.0


def test_runs_are_beside_what_saw_no_image(own_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "arm").mkdir()
    run = make_run(tmp_path / "arm" / "run", own_dataset)
    found = play([run], None, "val")
    assert list(found) == [
        "arm/run", "most frequent place of a box, by view", "the centre", "a random point", "random weights",
    ]  # fmt: skip
    explained = json.loads((run / "explain" / "explain.json").read_text())
    for name, key in (("arm/run", ""), ("the centre", "_centre_point"), ("a random point", "_random_point")):
        assert found[name].value == explained["boxes"][f"hit_rate{key}"]["value"]
    assert found["random weights"].value == explained["randomised"]["hit_rate"]["value"]
