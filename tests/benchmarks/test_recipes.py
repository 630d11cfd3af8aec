"""Recipes are compared on the same patients, with what needs no lungs beside them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image

from benchmarks.recipes import Training, main, summarize, table
from benchmarks.shortcuts import attributes, fit, shortcuts
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.metrics.ranking import auroc
from pneumo_fast.vocabulary import Dtype


def training(arm: str, seed: int, auroc: float, noise: float = 0.0) -> Training:
    patients = np.random.default_rng(seed).normal(0, 0.05, (200, 1))  # the same for every arm
    own = np.random.default_rng(len(arm)).normal(0, noise, (200, 1))
    others = {"sensitivity AP": 0.9, "sensitivity PA": auroc, "specificity AP": None, "specificity PA": 0.5, "ECE": 0.1}
    return Training(
        arm=arm, seed=seed, fold=1, best_epoch=3, epochs=4, train_seconds=1.0, auroc=auroc, average_precision=0.5,
        others=others,
        resampled=np.hstack([auroc + patients + own, 0.5 + patients + own]),
    )  # fmt: skip


def test_a_difference_is_paired_by_patient_and_seed() -> None:
    found = summarize([training("a", 0, 0.80), training("b", 0, 0.83, noise=0.001)])
    gain = found["b"]["differences"]["AUROC"]
    assert gain["value"] == pytest.approx(0.03)
    assert 0.02 < gain["low"] < gain["high"] < 0.04  # the patients' own spread, 0.05, is in both
    wide = found["b"]["figures"]["AUROC"]
    assert wide["high"] - wide["low"] > 0.1
    assert found["a"]["differences"] == {}
    text = table(found, {}, "val")
    assert "b                          0.900  0.830  0.070  -      0.500  0.100" in text
    assert max(map(len, text.splitlines())) <= 80


def test_trainings_that_differ_widen_the_interval() -> None:
    alike = summarize([training("a", s, 0.8) for s in range(3)] + [training("b", s, 0.82) for s in range(3)])
    apart = summarize([training("a", s, 0.8) for s in range(3)] + [training("b", s, 0.8 + 0.02 * s) for s in range(3)])
    assert alike["b"]["differences"]["AUROC"]["low"] is None  # no resample changes it
    gain = apart["b"]["differences"]["AUROC"]
    assert gain["low"] < 0.005
    assert gain["high"] > 0.035


def test_the_logistic_regression_finds_the_odds() -> None:
    view = np.array([[1.0], [1.0], [1.0], [1.0], [0.0], [0.0], [0.0], [0.0]])
    labels = np.array([1, 1, 1, 0, 1, 0, 0, 0])
    logits = fit(view, labels, np.array([[1.0], [0.0]]))
    np.testing.assert_allclose(logits, [np.log(3), -np.log(3)], atol=0.01)


def test_shortcuts_of_a_dataset(convert_phantoms: Callable[[Dtype], Path]) -> None:
    opened = Dataset.open(convert_phantoms("float16"))
    found = shortcuts(opened, "val", 100)
    assert list(found) == ["always negative", "mask area alone", "view alone", "age, sex, view"]
    train, rows = opened.rows("train"), opened.rows("val")
    labels = train["label"].to_numpy(dtype=np.int64)
    scores = fit(attributes(train, ["view"]), labels, attributes(rows, ["view"]))
    assert found["view alone"].value == pytest.approx(auroc(rows["label"].to_numpy(dtype=np.int64), scores))


def test_end_to_end(
    convert_phantoms: Callable[[Dtype], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, figure = tmp_path / "found.json", tmp_path / "found.png"
    command = [
        "recipes",
        "--dataset",
        convert_phantoms("float16"),
        "--work",
        tmp_path / "runs",
        "--epochs",
        1,
        "--folds",
        2,
    ]
    command += ["--arm", "reference", "--arm", "recommended", "--out", out, "--figure", figure]
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    content = json.loads(out.read_text())
    assert [(one["arm"], one["seed"], one["fold"]) for one in content["trainings"]] == [
        ("reference", 0, 1), ("recommended", 0, 1),
    ]  # fmt: skip
    low, high = (content["trainings"][k]["auroc"] for k in (0, 1))
    assert content["summary"]["recommended"]["differences"]["AUROC"]["value"] == pytest.approx(high - low)
    assert image.imread(figure).ndim == 3
    before = (tmp_path / "runs/reference/seed-0-fold-1/best.pt").stat().st_mtime_ns
    main()
    assert (tmp_path / "runs/reference/seed-0-fold-1/best.pt").stat().st_mtime_ns == before
