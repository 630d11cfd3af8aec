"""Contenders deliver the same images and labels; one that delivers something else, hangs or fails is found."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks import processes
from benchmarks.contenders import Epochs
from benchmarks.inputs import store_dataset, store_numbered
from benchmarks.load_stage import prepare
from benchmarks.loaders import OWN
from benchmarks.processes import AbsentError, Entry, Process, devices
from benchmarks.serve import Child
from pneumo_fast.dataset.folder import Dataset
from tests.support.make_dataset import make_dataset


def sorted_epoch(epochs: Epochs) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Images and labels of one epoch, whatever its order."""
    with closing(epochs):
        batches = [(images.clone(), labels.clone()) for images, labels in next(epochs)]
    images, labels = (torch.cat(parts).numpy() for parts in zip(*batches, strict=True))
    order = np.argsort(images.sum(axis=(1, 2, 3)))
    return images[order], labels[order]


OURS = [("pneumo-fast", {"engine": engine, "dtype": dtype}) for engine in ("fused", "dali", "resident")
        for dtype in ("float16", "uint8")]  # fmt: skip
OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("DataLoader", {"workers": 0}),
    ("memory map", {"workers": 0}),
    ("float32 in RAM", {"workers": 0}),
    ("DALI readers.numpy", {"threads": 1}),
]


@pytest.mark.filterwarnings("ignore:.*DALI.*")
@pytest.mark.parametrize(("name", "setting"), [*OURS, *OTHERS])
def test_all_loaders_deliver_the_same_images_and_labels(tmp_path: Path, name: str, setting: dict[str, Any]) -> None:
    given = make_dataset(tmp_path / "given")
    stored = store_dataset(given.path, tmp_path / "forms", 100)
    cpu = torch.device("cpu")
    reference = sorted_epoch(OWN["DataLoader"](stored, cpu, 4, workers=0))
    assert len(reference[0]) == len(Dataset.open(given.path).rows("train"))
    images, labels = sorted_epoch(OWN[name](stored, cpu, 4, **setting))
    np.testing.assert_allclose(images, reference[0], atol=0.01)  # uint8 is rounded
    np.testing.assert_array_equal(labels, reference[1])


def test_a_contender_that_delivers_something_else_is_found(tmp_path: Path) -> None:
    stored = store_dataset(make_dataset(tmp_path / "given").path, tmp_path / "forms", 100)

    def spoiled(change: Callable[[torch.Tensor, torch.Tensor], Any]) -> Callable[..., Epochs]:
        def make(*arguments: Any, **setting: Any) -> Epochs:
            for epoch in OWN["DataLoader"](*arguments, **setting):
                yield (change(*batch) for batch in epoch)

        return make

    changes: list[tuple[Callable[[torch.Tensor, torch.Tensor], Any], str]] = [
        (lambda images, labels: (images.half(), labels), "float16"),
        (lambda images, labels: (images + 0.01, labels), "the images' mean is"),
        (lambda images, labels: (images[:1], labels[:1]), "images, 21 expected"),
        (lambda images, labels: (images[:, 0], labels), "float32"),
    ]
    for change, message in changes:
        with pytest.raises(RuntimeError, match=message):
            Child(stored, spoiled(change), torch.device("cpu"), 4, workers=0)


def test_the_rows_of_numbered_images_are_read_off_their_pixels(tmp_path: Path) -> None:
    given = make_dataset(tmp_path / "given", labels={"train": [0, 1, 1, 0] * 20, "val": [0]}, size=32)
    numbered = store_numbered(given.path, tmp_path / "numbered", 70)
    assert numbered.folder.index["label"].is_monotonic_increasing
    for name, setting in (("pneumo-fast", {"engine": "fused", "dtype": "uint8"}), ("DataLoader", {"workers": 0})):
        child = Child(numbered, OWN[name], torch.device("cpu"), 8, **setting)
        (epoch,) = child.rows(epochs=1)
        child.epochs.close()
        assert sorted(row for batch in epoch for row in batch) == list(range(70))


def test_a_contender_that_hangs_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = store_dataset(make_dataset(tmp_path / "given").path, tmp_path / "forms", 100)
    entry = Entry(name="x", contender="pneumo-fast")
    monkeypatch.setattr(processes, "PATIENCE_S", 0.01)  # it takes longer than that to start
    with pytest.raises(AbsentError, match=r"^it gave no answer within 0 s"):
        Process(prepare(stored, entry), entry, devices()[0], 4, {"engine": "fused"})


def test_a_contender_that_fails_says_why(tmp_path: Path) -> None:
    stored = store_dataset(make_dataset(tmp_path / "given").path, tmp_path / "forms", 100)
    entry = Entry(name="x", contender="pneumo-fast")
    with pytest.raises(AbsentError, match=r"^ConfigError: batch size 0 is too small"):
        Process(prepare(stored, entry), entry, devices()[0], 0, {"engine": "fused"})
