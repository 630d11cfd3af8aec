"""The model's answers against a plain pass over the arrays, and what cannot be opened or does not fit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pneumo_fast.errors import DatasetError, DeviceError, PneumoError, RunError
from pneumo_fast.evaluation.evaluate import evaluate
from pneumo_fast.run.checkpoint import load_trained
from pneumo_fast.run.folder import write_config
from pneumo_fast.run.layout import BEST, PREDICTIONS
from pneumo_fast.run.model import build_model
from tests.support.devices import DEVICES
from tests.support.untrained_run import (
    LABELS,
    change,
    config,
    evaluated,
    leave_old_result,
    make_dataset,
    read_csv,
    results,
)


def plain_logits(run: Path, dataset: Path, split: str) -> Any:
    """What the checkpoint says about a split, without loader or evaluation."""
    checkpoint = load_trained(run / BEST)
    images = np.load(dataset / f"{split}-00000.npy").astype(np.float32)
    model = build_model(checkpoint.arch)
    model.load_state_dict(checkpoint.model)
    with torch.no_grad():
        normalized = torch.from_numpy((images - checkpoint.mean) / checkpoint.std)
        return model.eval()(normalized[:, None])[:, 0].numpy()


@DEVICES
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_predictions_are_those_of_a_plain_pass(run: Path, dataset: Path, device: str, batch_size: int) -> None:
    result = evaluate(config(run, device=device, batch_size=batch_size))
    table = read_csv(evaluated(run) / PREDICTIONS)
    assert [row["image_id"] for row in table] == [f"val, {i}" for i in range(11)]
    assert [int(row["label"]) for row in table] == LABELS["val"]
    logits = np.array([float(row["logit"]) for row in table], dtype=np.float32)
    assert np.array_equal(logits, result.predictions.logits)
    assert logits == pytest.approx(plain_logits(run, dataset, "val"), abs=1e-5 if device == "cpu" else 1e-2)
    assert len(set(logits.tolist())) == 11


def test_another_dataset_is_normalized_as_the_run_was(run: Path, tmp_path: Path) -> None:
    other = make_dataset(tmp_path / "other", mean=0.1, std=0.9)
    first, second = evaluate(config(run)), evaluate(config(run, dataset=other))
    assert np.array_equal(first.predictions.logits, second.predictions.logits)
    assert (second.dataset.trained_on, second.selected_on_this_data) == (False, None)
    assert "not the run's training dataset" in second.notes[0]


def test_progress_reaches_the_end(run: Path) -> None:
    calls: list[tuple[int, int]] = []
    evaluate(config(run, batch_size=4), lambda done, total: calls.append((done, total)))
    assert calls == [(4, 11), (8, 11), (11, 11)]


def _no_checkpoint(run: Path, _dataset: Path) -> None:
    (run / BEST).unlink()


def _no_config(run: Path, _dataset: Path) -> None:
    (run / "config.json").unlink()


def _config_without_dataset(run: Path, _dataset: Path) -> None:
    write_config(run, {"config": {}})


def _no_dataset(_run: Path, dataset: Path) -> None:
    dataset.rename(dataset.with_name("moved"))


def _damaged_dataset(_run: Path, dataset: Path) -> None:
    (dataset / "val-00000.npy").unlink()


def _other_size(run: Path, _dataset: Path) -> None:
    change(run, size=64)


def _unknown_arch(run: Path, _dataset: Path) -> None:
    change(run, arch="resnet17")


def _other_arch(run: Path, _dataset: Path) -> None:
    change(run, arch="resnet34")


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (_no_checkpoint, RunError, "no checkpoint .*best.pt: run pneumo-fast train first"),
        (_no_config, RunError, "is not a run"),
        (_config_without_dataset, RunError, "does not say which dataset.*--dataset"),
        (_no_dataset, RunError, "which is not there: say where with --dataset"),
        (_damaged_dataset, DatasetError, "val-00000.npy is missing"),
        (_other_size, RunError, "trained on 64 x 64 images, dataset .* has 32 x 32: convert with --size 64"),
        (_unknown_arch, RunError, "does not fit model 'resnet17'"),
        (_other_arch, RunError, "does not fit model 'resnet34'.*[Mm]issing"),
    ],
)
def test_what_is_missing_or_does_not_fit_leaves_the_last_result(
    run: Path, dataset: Path, spoil: Any, kind: type[PneumoError], message: str
) -> None:
    before = leave_old_result(run)
    spoil(run, dataset)
    with pytest.raises(kind, match=message) as caught:
        evaluate(config(run))
    assert "\n" not in str(caught.value)
    assert results(run) == before


def test_a_dataset_that_moved_can_be_named(run: Path, dataset: Path) -> None:
    moved = dataset.rename(dataset.with_name("moved"))
    assert evaluate(config(run, dataset=moved)).dataset.trained_on


def test_a_split_that_is_not_there(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LABELS, "test", [])
    with pytest.raises(DatasetError, match="no 'test' images: its splits are train, val"):
        evaluate(config(run, dataset=make_dataset(tmp_path / "two"), split="test"))


def test_a_device_that_is_not_there(run: Path) -> None:
    with pytest.raises(DeviceError, match="no device is called 'tpu!'"):
        evaluate(config(run, device="tpu!"))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_logit_that_is_no_number_names_the_image_and_loses_nothing(run: Path, value: float) -> None:
    before = leave_old_result(run)
    state = load_trained(run / BEST).model
    state["fc.bias"].fill_(value)
    change(run, model=state)
    with pytest.raises(RunError, match=rf"gives the logit {value} for image 'val, 0' \(11 of 11 .*train again"):
        evaluate(config(run))
    assert results(run) == before
