"""Targets of auxiliary supervision: masks move as the images do, and every image has its own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.selection import join_datasets, limit_images, select_fold
from pneumo_fast.loading.augment import Augmentation
from pneumo_fast.loading.batches import Rank
from pneumo_fast.loading.samplers import parts_by_share
from pneumo_fast.loading.targets import NO_CLASS, Targets, TargetTable, box_masks, boxes_of, points_along
from tests.support.augmented import augmented
from tests.support.loaders import EVERYWHERE, Place, load
from tests.support.make_dataset import CLASSES, coverage, make_dataset

SIZE, CELLS = 32, 4
FINE = 4  # times as fine as the stored image the reference's mask image is
GREY = ("contrast", "brightness", "noise")
STRENGTHS = [None, *(Augmentation(strength=s, flip=f, seed=3) for s in ("light", "strong") for f in (False, True))]


def shown(augmentation: Augmentation | None) -> str:
    return f"{augmentation.strength} {augmentation.flip}" if augmentation else "none"


AUGMENTATIONS = pytest.mark.parametrize("augmentation", STRENGTHS, ids=shown)


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Images of their own boxes: 30 for training, of which 14 are positive."""
    labels = {"train": [0, 1] * 14 + [0, 0], "val": [0, 1] * 3}
    return make_dataset(tmp_path_factory.mktemp("data") / "painted", labels=labels, size=SIZE, findings=True)


def mask_image(boxes: pd.DataFrame) -> NDArray[np.float64]:
    """Boxes of one image, drawn finer than it is stored."""
    lengths = ["x", "y", "width", "height"]
    return coverage(boxes.assign(**{name: boxes[name] * FINE for name in lengths}), SIZE * FINE, fine=4)


def cell_means(images: NDArray[Any], cells: int) -> NDArray[np.float64]:
    """Means over the cells of images (n, size, size)."""
    side = images.shape[-1] // cells
    return np.asarray(images.reshape(-1, cells, side, cells, side).mean((2, 4)), dtype=np.float64)


def masks_of(targets: Targets | None, cells: int = CELLS) -> NDArray[np.float32]:
    assert targets is not None
    masks: NDArray[np.float32] = box_masks(targets.boxes, targets.matrices, SIZE, cells).cpu().numpy()
    return masks


@AUGMENTATIONS
@pytest.mark.parametrize("cells", [2, 4, 8])
def test_masks_are_those_of_the_reference(painted: Dataset, augmentation: Augmentation | None, cells: int) -> None:
    rows = painted.rows("train")
    numbers = np.arange(len(rows))
    targets = TargetTable.of(painted, rows, ()).batch(2, numbers, augmentation, torch.device("cpu"))
    whole = np.stack([mask_image(painted.boxes[painted.boxes["image_id"] == name]) for name in rows["image_id"]])
    if augmentation:
        drawn = augmentation.draw(2, numbers, SIZE)
        unchanged: Any = {name: np.full(len(rows), float(name == "contrast")) for name in GREY}
        finer = drawn.matrix * np.array([1, 1, FINE], dtype=np.float32)
        whole = augmented(whole, replace(drawn, matrix=finer, **unchanged))
    found = masks_of(targets, cells)
    error = found - cell_means(whole, cells)
    assert np.abs(error).max() <= 1 / points_along(cells), "each of two edges is off by half of the points' distance"
    assert abs(error.mean()) < 0.002
    assert error.std() < 0.02
    assert found[rows["label"] == 1].max((1, 2)).min() > 0.1
    assert not found[rows["label"] == 0].any()


def check_alike(images: NDArray[Any], masks: NDArray[Any], least: float = 0.97) -> None:
    """Images of boxes, however their grey levels were changed, have the masks of those boxes."""
    cells = cell_means(images[:, 0], CELLS)
    for image, mask in zip(cells, masks, strict=True):
        if mask.any():
            assert np.corrcoef(image.ravel(), mask.ravel())[0, 1] > least
        else:
            assert image.std() < 0.05


@EVERYWHERE
@pytest.mark.parametrize(
    ("order", "augmentation"),
    [*(("shuffle", strength) for strength in STRENGTHS), ("windowed", STRENGTHS[-1]), ("weighted", STRENGTHS[-1])],
    ids=lambda value: value if isinstance(value, str) else shown(value),
)
def test_masks_move_with_the_images(
    painted: Dataset, place: Place, order: str, augmentation: Augmentation | None
) -> None:
    options: dict[str, Any] = {"batch_size": 8, "order": order, "window": 2, "augmentation": augmentation}
    with load(painted, "train", place, normalization=(0.0, 1.0), targets=True, **options) as loader:
        for epoch in (0, 3):
            for batch, (images, labels) in enumerate(loader.epoch(epoch)):
                masks = masks_of(loader.targets(epoch, batch))
                check_alike(images.cpu().numpy(), masks)
                np.testing.assert_array_equal(masks.any((1, 2)), labels.cpu().numpy() == 1)


def check_loader(dataset: Dataset, **options: Any) -> None:
    augmentation = Augmentation(strength="strong", flip=True)
    more = {"order": "shuffle", "augmentation": augmentation, "targets": True, "batch_size": 8, **options}
    with load(dataset, "train", normalization=(0.0, 1.0), **more) as loader:
        for batch, (images, _) in enumerate(loader.epoch(1)):
            check_alike(images.numpy(), masks_of(loader.targets(1, batch)))


def test_several_datasets_whose_images_are_called_alike(painted: Dataset, tmp_path: Path) -> None:
    other = make_dataset(tmp_path / "other", labels={"train": [1, 1, 0] * 9}, size=SIZE, findings=True)
    assert set(other.index["image_id"]) & set(painted.index["image_id"])
    joint = join_datasets([painted, other, other])
    check_loader(joint)
    sizes = [len(each.rows("train")) for each in (painted, other, other)]
    check_loader(joint, parts=parts_by_share(sizes, (1, 2, 2)))


def test_folds_and_fewer_images(painted: Dataset) -> None:
    check_loader(select_fold(painted, 3, 2, seed=1))
    check_loader(limit_images(painted, 11))


def test_each_process_has_its_share_whatever_was_delivered(painted: Dataset) -> None:
    options: dict[str, Any] = {"batch_size": 7, "order": "shuffle", "augmentation": STRENGTHS[-1], "targets": True}
    with ExitStack() as stack:
        whole, *shares = (
            stack.enter_context(load(painted, "train", rank=rank, classes=CLASSES, **options))
            for rank in (Rank(), *(Rank(number=n, world_size=3) for n in range(3)))
        )
        for batch in (4, 0):
            expected, parts = whole.targets(2, batch), [share.targets(2, batch) for share in shares]
            assert expected
            for number, value in enumerate(expected):
                assert torch.equal(torch.cat([part[number] for part in parts if part]), value)
        with pytest.raises(IndexError, match="batch 5 of an epoch of 5"):
            whole.targets(2, 5)


def test_a_loader_that_is_not_asked_has_none(painted: Dataset) -> None:
    with load(painted, "train", batch_size=8) as loader:
        assert loader.targets(0, 0) is None


def table(painted: Dataset, boxes: Sequence[tuple[float, ...]], ids: Sequence[str]) -> TargetTable:
    frame = pd.DataFrame([(*box, SIZE, SIZE) for box in boxes], columns=list(painted.boxes.columns)[1:])
    return TargetTable.of(replace(painted, boxes=frame.assign(image_id=ids)), painted.rows("train"), CLASSES[:2])


def test_boxes_that_cannot_be_are_left_out(painted: Dataset) -> None:
    outside, flat, no_number = (40.0, 3.0, 5.0, 5.0), (3.0, 3.0, 0.0, 5.0), (np.nan, 3.0, 5.0, 5.0)
    beyond = (-4.0, 28.0, 10.0, 100.0)
    ids = ["train-1", "train-3", "train-5", "train-7", "train-7"]
    found = table(painted, [outside, flat, no_number, beyond, flat], ids)
    assert found.boxes[7].tolist() == [[0.0, 28.0, 6.0, 32.0]]
    assert np.isfinite(found.boxes).all()
    assert found.boxed[[1, 3, 5, 7]].tolist() == [0, 0, 0, 1], "a positive image without a box says nothing"
    assert found.boxed[::2].all(), "a negative one says that there is none"


def test_no_boxes_at_all(painted: Dataset) -> None:
    without = replace(painted, boxes=painted.boxes[:0])
    assert TargetTable.of(without, painted.rows("train"), ()).boxes.shape == (30, 0, 4)
    targets = TargetTable.of(without, painted.rows("train"), ()).batch(0, np.arange(4), None, torch.device("cpu"))
    assert not masks_of(targets).any()
    assert not masks_of(targets.first(0)).size


def test_classes_are_numbered_in_their_order(painted: Dataset) -> None:
    rows = painted.rows("train")
    numbers = TargetTable.of(painted, rows, CLASSES[:2]).classes
    expected = {CLASSES[0]: 0, CLASSES[1]: 1, CLASSES[2]: NO_CLASS}
    assert numbers.tolist() == [expected[name] for name in rows["class"]]


def test_boxes_of_converted_images_are_in_stored_pixels(dataset: Dataset) -> None:
    """Phantoms of 64 pixels, stored with 32."""
    rows = dataset.rows("train")
    boxes, lost = boxes_of(dataset, rows)
    assert len(boxes) == dataset.boxes["image_id"].isin(rows["image_id"]).sum()
    assert lost == 0
    first, table = boxes.iloc[0], TargetTable.of(dataset, rows, ())
    left, top, right, bottom = table.boxes[int(first["number"]), 0].tolist()
    assert first["source_width"] == 64
    expected = [first["x"] / 2, first["y"] / 2, first["width"] / 2, first["height"] / 2]
    assert [left, top, right - left, bottom - top] == pytest.approx(expected, abs=1e-5)
