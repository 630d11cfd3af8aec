"""What a command does with its configuration, and what it shows."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.training.options import TrainConfig

Run = Callable[..., Any]


def test_a_run_is_repeated_but_for_what_is_given(config_of: Run, tmp_path: Path) -> None:
    before = TrainConfig(
        datasets=(Path("a"), Path("b")), shares=(1.0, 2.0), out=Path("old"), lr=0.5, seed=3, compile=True, ema=0.9
    )
    (tmp_path / "config.json").write_text(json.dumps({"config": asdict(before)}, default=str))
    for path in (tmp_path, tmp_path / "config.json"):
        again = config_of("train", "--config", path, "--lr", "0.25", "--out", "new")
        assert again == replace(before, lr=0.25, out=Path("new"))


def test_a_batch_size_that_was_found_is_repeated(config_of: Run, tmp_path: Path) -> None:
    assert config_of("train", "--batch-size", "auto").batch_size == "auto"
    content = {"config": asdict(TrainConfig(batch_size="auto")), "resolved": {"batch_size": 48}}
    (tmp_path / "config.json").write_text(json.dumps(content, default=str))
    assert config_of("train", "--config", tmp_path).batch_size == 48
    assert config_of("train", "--config", tmp_path, "--batch-size", "auto").batch_size == "auto"


def test_a_cross_validation_is_repeated_with_every_fold(config_of: Run, tmp_path: Path) -> None:
    (tmp_path / "fold-1").mkdir()
    content = {"config": asdict(TrainConfig(folds=3, fold=1, lr=0.5))}
    (tmp_path / "fold-1" / "config.json").write_text(json.dumps(content, default=str))
    again, one = (config_of("train", "--config", path, "--fold", "2") for path in (tmp_path, tmp_path / "fold-1"))
    assert again == one
    again = config_of("train", "--config", tmp_path)
    assert (again.folds, again.fold, again.lr) == (3, None, 0.5)


@pytest.mark.usefixtures("place")
def test_closing_summary(run_cli: Run) -> None:
    ended = run_cli("convert", "images", "labels.csv", "--val-fraction", "0.3", "--size", "32", "--workers", "1")
    manifest = Dataset.open(Path("dataset")).manifest
    assert (ended.code, ended.err) == (0, "")
    for words in (
        *(f"{split} {of['0']} {of['1']} {of['0'] + of['1']}" for split, of in manifest.counts.items()),
        "Rows without a file: 0",
        "Files without a row: 0",
        f"Leaks between splits: {manifest.split['leaks']}",
        f"mean {manifest.mean:.4f}, std {manifest.std:.4f}",
        "images/s",
    ):
        assert words in " ".join(ended.out.split())


@pytest.mark.usefixtures("place", "quick")
def test_training_straight_from_images_says_what_was_rejected(run_cli: Run) -> None:
    """Summary first, then the training; a run that is resumed finds nothing left to index."""
    shutil.copytree("images", "all")
    next(Path("all").iterdir()).write_bytes(b"")
    given = ["train", "--images", "all", "--labels", "labels.csv", "--size", "32", "--max-rejects", "1"]
    ended = run_cli(*given, "--epochs", "1")
    said = " ".join(ended.out.split())
    assert ended.code == 0
    assert "not_dicom 1" in said
    assert "Images indexed" in said
    assert re.search(r"Mean and std are from \d+ training images; pixels stay in the source files", said)
    assert said.index("Leaks between splits") < said.index("Best checkpoint")
    assert "Next: pneumo-fast train" not in said
    assert "Nothing was left to convert" in run_cli(*given, "--epochs", "2", "--resume").out


@pytest.mark.parametrize(
    ("folder", "options", "images"),
    [
        pytest.param("rsna16", ["--size", "64"], 16, id="rsna16"),
        pytest.param("rsna_sample", ["--groups", "mappings.json"], 161, id="rsna_sample", marks=pytest.mark.slow),
    ],
)
def test_from_radiographs_to_metrics(
    shared_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_cli: Run,
    folder: str,
    options: list[str],
    images: int,
) -> None:
    source = shared_data / folder
    monkeypatch.chdir(tmp_path)
    options = [str(source / word) if word.endswith(".json") else word for word in options]
    tables = [source / "stage_2_train_images", source / "stage_2_train_labels.csv", "data"]
    assert run_cli("convert", *tables, *options, "--val-fraction", "0.3").code == 0
    assert run_cli("train", "data", "--out", "run", "--epochs", "2", "--batch-size", "8", "--amp").code == 0
    assert run_cli("evaluate", "run").code == 0
    assert run_cli("explain", "run", "--count", "1").code == 0
    assert run_cli("report", "run").code == 0
    assert run_cli("export", "run").code == 0
    assert Path("run/report.html").exists()
    assert len(pd.read_csv("data/index.csv")) == images
    assert len(Path("run/history.jsonl").read_text().splitlines()) == 2
    validation = Dataset.open(Path("data")).rows("val")
    judged = Path("run/eval/data-val")
    predictions = pd.read_csv(judged / "predictions.csv")
    assert predictions.iloc[:, 0].tolist() == validation["image_id"].tolist()
    assert json.loads((judged / "metrics.json").read_text())


@pytest.mark.parametrize("name", ["my.yaml", "nothing.json", "."])
def test_a_configuration_that_is_none_is_told(tmp_path: Path, run_cli: Callable[..., Any], name: str) -> None:
    (tmp_path / "my.yaml").write_text("lr: 1")
    ended = run_cli("train", "--config", tmp_path / name)
    assert ended.code == 2
    assert "a run folder or its config.json expected, whose options are taken over" in " ".join(ended.err.split())


def test_weights_that_are_no_file_are_told(noise: Path, tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    ended = run_cli("train", noise, "--out", tmp_path / "run", "--weights", "imagenet", "--batch-size", "8")
    assert ended.code == 2
    assert "weights 'imagenet': no such file; give a file of weights, default for" in " ".join(ended.err.split())
    assert not (tmp_path / "run").exists()


def test_training_says_first_what_it_will_do(noise: Path, tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    ended = run_cli("train", noise, "-o", tmp_path / "a run", "--epochs", "1", "--batch-size", "8", "--device", "cpu")
    said = " ".join(ended.out.split())
    for words in (
        "Data ", "training 21 (6 positive), validation 13 (4 positive); ", "Model resnet18, 11.2 million parameters, ",
        "images of 32 x 32 pixels", "Training 1 epoch, batches of 8, adam at 0.0001, positives weigh 2.5",
        "Device cpu, float32, batches by the fused engine", "Writes to ",
    ):  # fmt: skip
        assert words in said
    assert said.index("Writes to") < said.index("epoch loss")
    assert ended.out.rstrip().endswith(f"Next: pneumo-fast evaluate '{tmp_path / 'a run'}'")
    ended = run_cli(
        "train", noise, "-o", tmp_path / "a run", "--epochs", "2", "--batch-size", "8", "--device", "cpu", "--resume"
    )
    assert "epochs 2 to 2 (resumed)" in " ".join(ended.out.split())
