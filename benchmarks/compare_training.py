"""Does this trainer learn as well as a plain loop? K folds by patient, several seeds, the same images and settings.

    python benchmarks/compare_training.py --dataset DIR --out FILE.json

For each fold and seed three trainings: a minimal reference loop (torchvision, ``DataLoader``, Adam, nothing else), this
package with the same settings, and with stronger ones (``RECIPE``). Compared is the AUROC of the fold's
validation images after the last epoch, so nothing is chosen by it; the interval is a bootstrap's over the pairs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import surroundings
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.loading.reader import ShardReader
from pneumo_fast.metrics.ranking import auroc
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.setup import open_data
from pneumo_fast.training.train import train

RECIPE: dict[str, Any] = {
    "augment": "light", "optimizer": "adamw", "weight_decay": 0.01, "schedule": "onecycle", "lr": 1e-3, "ema": 0.99,
}  # fmt: skip
RESAMPLES = 10_000


def main() -> None:
    """Compare, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="dataset that convert wrote, with patients")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--out", type=Path, help="file for the figures (JSON)")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="pneumo-fast-compare-") as temporary:
        for number, (seed, fold) in enumerate(_pairs(arguments.seeds, arguments.folds)):
            config = TrainConfig(
                datasets=(arguments.dataset,), out=Path(temporary, str(number)), epochs=arguments.epochs, seed=seed,
                batch_size=arguments.batch_size, folds=arguments.folds, fold=fold, device="cpu",
            )  # fmt: skip
            row = {
                "seed": seed,
                "fold": fold,
                "reference": reference(config, arguments.batch_size),
                "ours": train(config).history[-1]["val_auroc"],
                "recipe": train(replace(config, out=Path(temporary, f"{number}r"), **RECIPE)).history[-1]["val_auroc"],
            }
            rows.append(row)
            print(" ".join(f"{name} {value:.3f}" for name, value in row.items()), file=sys.stderr, flush=True)
    summary = {name: difference(rows, name) for name in ("ours", "recipe")}
    for name, (mean, low, high) in summary.items():
        print(f"{name} minus reference: {mean:+.3f} AUROC, 95 % interval {low:+.3f} to {high:+.3f}, {len(rows)} pairs")
    settings = {name: getattr(arguments, name) for name in ("folds", "seeds", "epochs", "batch_size")}
    text = json.dumps(
        {"surroundings": surroundings(), "settings": settings, "recipe": RECIPE, "rows": rows, "differences": summary}
    )
    if arguments.out:
        arguments.out.write_text(text + "\n")


def _pairs(seeds: int, folds: int) -> Iterator[tuple[int, int]]:
    return ((seed, fold) for seed in range(seeds) for fold in range(1, folds + 1))


def reference(config: TrainConfig, batch_size: int) -> float:
    """AUROC of the minimal loop on the fold's validation images after the last epoch."""
    dataset = open_data(config).dataset
    (images, labels), (held_out, truth) = (_tensors(dataset, split) for split in ("train", "val"))
    torch.manual_seed(config.seed)
    model = torchvision.models.resnet18(weights=None)
    model.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    model.fc = nn.Linear(512, 1)
    loss = nn.BCEWithLogitsLoss(pos_weight=(labels == 0).sum() / (labels == 1).sum())
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
    batches = DataLoader(TensorDataset(images, labels), batch_size=batch_size, shuffle=True)
    for _ in range(config.epochs):
        model.train()
        for x, y in batches:
            optimizer.zero_grad()
            loss(model(x)[:, 0], y).backward()
            optimizer.step()
    with torch.inference_mode():
        return auroc(truth.numpy().astype(np.int64), model.eval()(held_out)[:, 0].numpy())


def _tensors(dataset: Dataset, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    rows = dataset.rows(split)
    reader = ShardReader(dataset, rows)
    images = (reader.read_unit(np.arange(len(rows))) - dataset.mean) / dataset.std
    reader.close()
    return torch.from_numpy(images[:, None].astype(np.float32)), torch.tensor(rows["label"].to_numpy(np.float32))


def difference(rows: list[dict[str, Any]], name: str) -> tuple[float, float, float]:
    """Mean of the paired differences from the reference, and its 95 % interval."""
    found = np.array([row[name] - row["reference"] for row in rows])
    chosen = np.random.default_rng(0).integers(0, len(found), (RESAMPLES, len(found)))
    low, high = np.quantile(found[chosen].mean(axis=1), [0.025, 0.975])
    return float(found.mean()), float(low), float(high)


if __name__ == "__main__":
    main()
