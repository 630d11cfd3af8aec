"""What a trained model has to beat, on the same validation images.

``baselines.py DATASET RUN`` prints the AUROC of the run's own predictions, of the same network as it was before
training, and of a rule that looks at nothing but an image's mean brightness. It exits with 1 unless training got
beyond ``REQUIRED``.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from torchmetrics.functional.classification import binary_auroc

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.evaluation.folders import find_evaluation
from pneumo_fast.loading.loader import Loader
from pneumo_fast.loading.options import LoadConfig
from pneumo_fast.run.checkpoint import load_trained
from pneumo_fast.run.layout import BEST, PREDICTIONS
from pneumo_fast.run.model import build_model

REQUIRED = 0.95
UNTRAINED = 5  # one random network may be lucky or unlucky
BATCH_SIZE = 64


class Brightness(nn.Module):
    """Mean pixel of each image: (N, 1, H, W) to (N, 1)."""

    def forward(self, images_nchw: torch.Tensor) -> torch.Tensor:
        """Average over height and width."""
        return images_nchw.mean(dim=(2, 3))


@torch.inference_mode()
def scores_auroc(models: list[nn.Module], dataset: Dataset, split: str) -> list[float]:
    """AUROC of each model's raw output over a split, in one pass over the images."""
    scores: list[list[torch.Tensor]] = [[] for _ in models]
    truth = []
    with Loader(dataset, split, LoadConfig(batch_size=BATCH_SIZE), device=torch.device("cpu")) as loader:
        for images, labels in loader.epoch(0):
            truth.append(labels.to(torch.int64))  # a copy: the loader uses its memory again
            for model, score in zip(models, scores, strict=True):
                score.append(model(images).squeeze(1))
    return [auroc(torch.cat(score), torch.cat(truth)) for score in scores]


def auroc(scores: torch.Tensor, labels: torch.Tensor) -> float:
    """Area under the ROC curve of scores that need not be probabilities.

    torchmetrics passes scores outside [0, 1] through a sigmoid, which would tie the large ones; ranks do not.
    """
    ranks = torch.unique(scores, return_inverse=True)[1].double()
    return float(binary_auroc(ranks / len(scores), labels))


def untrained_model(arch: str, seed: int) -> nn.Module:
    """The network before its first step."""
    torch.manual_seed(seed)
    return build_model(arch).eval()


def trained_auroc(run: Path) -> float:
    """AUROC of what ``evaluate`` wrote for the validation images."""
    table = pd.read_csv(find_evaluation(run) / PREDICTIONS)
    return auroc(torch.tensor(table["logit"].to_numpy()), torch.tensor(table["label"].to_numpy()))


def main(dataset_path: Path, run: Path) -> int:
    """Print the comparison; the exit code says whether training got far enough."""
    dataset = Dataset.open(dataset_path)
    arch = load_trained(run / BEST).arch
    untrained = [untrained_model(arch, seed) for seed in range(UNTRAINED)]
    *by_chance, brightness = scores_auroc([*untrained, Brightness()], dataset, "val")
    (direction,) = scores_auroc([Brightness()], dataset, "train")
    if direction < 0.5:  # the rule may say "darker is ill", but must learn that from the training images
        brightness = 1.0 - brightness
    trained = trained_auroc(run)

    print(f"AUROC on the {len(dataset.rows('val'))} validation images (0.5 is chance, 1 is perfect)")
    print(f"  trained model                 {trained:.3f}")
    spread = f"mean of {UNTRAINED} seeds, {min(by_chance):.3f} to {max(by_chance):.3f}"
    print(f"  the same model, untrained     {statistics.mean(by_chance):.3f}  ({spread})")
    print(f"  mean brightness of the image  {brightness:.3f}")
    if trained <= REQUIRED:
        print(f"the model has not learnt: validation AUROC {trained:.3f}, expected above {REQUIRED}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
