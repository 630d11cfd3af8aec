"""A dataset of noise, written by hand, and a run on it whose network was never trained; what evaluating it wrote."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pneumo_fast.dataset.folder import Dataset, write_table
from pneumo_fast.dataset.format import INDEX_TYPES, ShardInfo
from pneumo_fast.evaluation.options import EvaluateConfig
from pneumo_fast.run.checkpoint import Trained, load_trained, save_checkpoint
from pneumo_fast.run.folder import read_config, write_config
from pneumo_fast.run.layout import BEST, FIGURES, METRICS, PREDICTIONS
from pneumo_fast.run.model import build_model
from tests.support.make_dataset import manifest_of, write_shard

SIZE = 32
LABELS = {"train": [0, 1, 0, 1], "val": [0, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0], "test": [0, 0, 0]}


def make_dataset(path: Path, *, mean: float = 0.5, std: float = 0.25, size: int = SIZE) -> Path:
    """A dataset of noise, written by hand: positives a little brighter, two images to a patient."""
    path.mkdir()
    rng = np.random.default_rng(7)
    shards, index = [], []
    for split, labels in LABELS.items():
        if not labels:
            continue
        level = 0.2 + 0.3 * np.array(labels)[:, None, None] + 0.3 * rng.random((len(labels), 1, 1))
        images = (level * rng.random((len(labels), size, size))).astype(np.float16)
        name = f"{split}-00000.npy"
        byte_count, checksum = write_shard(path / name, images)
        shards.append(ShardInfo(name=name, split=split, rows=len(labels), bytes=byte_count, checksum=checksum))
        index += [
            {"image_id": f"{split}, {row}", "split": split, "shard": name, "row": row, "label": label}
            | {"group": f"{split}{row // 2}", "height": size, "width": size}
            for row, label in enumerate(labels)
        ]
    unknown = {name: kind() for name, kind in INDEX_TYPES.items()}
    table = pd.DataFrame([unknown | image for image in index])
    tables = {"index.csv": write_table(path, "index.csv", table)}
    boxes = pd.DataFrame(columns=["image_id", "x", "y", "width", "height", "source_width", "source_height"])
    tables["boxes.csv"] = write_table(path, "boxes.csv", boxes)
    manifest = manifest_of(shards, tables, size=size, mean=mean, std=std)
    (path / "manifest.json").write_text(manifest.to_json())
    return path


def make_run(path: Path, dataset: Path) -> Path:
    path.mkdir()
    torch.manual_seed(0)
    checkpoint = Trained(
        settings={},
        arch="resnet18",
        size=SIZE,
        mean=0.5,
        std=0.25,
        pos_weight=1.0,
        dataset_identity=Dataset.open(dataset).identity,
        epoch=3,
        best=0.5,
        monitor="auroc",
        best_epoch=3,
        history=[],
        model=build_model().state_dict(),
    )
    save_checkpoint(checkpoint, path / BEST)
    write_config(path, {"config": {"datasets": [str(dataset)]}})
    return path


def change(run: Path, **values: Any) -> None:
    """Write the run's checkpoint again with other values."""
    save_checkpoint(replace(load_trained(run / BEST), **values), run / BEST)


def leave_old_result(run: Path, split: str = "val") -> dict[str, str]:
    """Files as an earlier evaluation left them; what :func:`results` gives of them."""
    folder = run / "eval" / f"{Path(read_config(run).config['datasets'][0]).name}-{split}"
    folder.mkdir(parents=True)
    for name in (METRICS, PREDICTIONS, *FIGURES):
        (folder / name).write_text("old")
    return results(run)


def results(run: Path) -> dict[str, str]:
    """All that evaluations have written, by its path."""
    return {str(path): path.read_text("latin-1") for path in (run / "eval").rglob("*") if path.is_file()}


def evaluated(run: Path) -> Path:
    """The folder that was written last."""
    return max((run / "eval").glob(f"*/{METRICS}"), key=lambda path: path.stat().st_mtime_ns).parent


def config(run: Path, **values: Any) -> EvaluateConfig:
    return EvaluateConfig(run=run, **{"device": "cpu", "resamples": 100, **values})


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_json(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((evaluated(run) / METRICS).read_text())
    return content
