"""Which recipe learns best? Arms x seeds x folds by patient, each compared with the first arm on the same patients.

    python benchmarks/recipes.py --dataset DIR --work DIR                  validation folds, to choose by
    python benchmarks/recipes.py --dataset DIR --work DIR --split test     patients never used to choose: look once
    python benchmarks/recipes.py ... --arm reference --arm recommended --seeds 3 --out FILE.json --figure FILE.png

Each training goes into WORK/ARM/seed-S-fold-F and is resumed there, one at a time; a finished one is not repeated.
Judged is the best checkpoint by validation AUROC. A difference is paired by patient, seed and fold; its interval is a
bootstrap's over patients, and over the trainings.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import surroundings
from benchmarks.shortcuts import shortcuts
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.evaluation.evaluate import evaluate
from pneumo_fast.evaluation.options import EvaluateConfig
from pneumo_fast.formatting import TERMINAL
from pneumo_fast.metrics.intervals import Bootstrap, Estimate, estimate, percentile_interval
from pneumo_fast.metrics.ranking import auroc, average_precision, resampled
from pneumo_fast.metrics.summary import Figures
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.recipes import RECIPES
from pneumo_fast.training.setup import open_data
from pneumo_fast.training.train import train
from pneumo_fast.vocabulary import Split

STRONGER: Final = {name: value for name, value in RECIPES["recommended"].items() if name != "epochs"}
ARMS: Final[dict[str, dict[str, Any]]] = {
    "reference": {},
    "recommended": STRONGER,
    "light augmentation": STRONGER | {"augment": "light"},
    "without EMA": STRONGER | {"ema": None},
    "label smoothing": STRONGER | {"label_smoothing": 0.1},
    "batch of 32": STRONGER | {"batch_size": 32},
    "4 epochs at half size": STRONGER | {"half_size_epochs": 4},
    "flips": STRONGER | {"flip": True},
    "weighted sampling": STRONGER | {"order": "weighted"},
    "twice the epochs": STRONGER | {"epochs": 20},
    "boxes taught": STRONGER | {"teach": ("boxes",)},
    "boxes taught, weight 10": STRONGER | {"teach": ("boxes",), "teach_boxes_weight": 10.0},
    "classes taught": STRONGER | {"teach": ("classes",)},
    "boxes and classes taught": STRONGER | {"teach": ("boxes", "classes")},
    "both, boxes on layer4": STRONGER
    | {
        "teach": ("boxes", "classes"),
        "teach_stage": "layer4",
        "teach_boxes_weight": 2.0,
    },
}
"""Options of ``train`` by the arm's name; the first is what the others are compared with."""
RESAMPLES: Final = 2000
FIGURES: Final = ("AUROC", "AP")
VIEWS: Final = ("AP", "PA")


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """One finished training of an arm, judged."""

    arm: str
    seed: int
    fold: int
    best_epoch: int
    epochs: int
    train_seconds: float
    """Of all epochs, validation left out."""
    auroc: float
    average_precision: float
    others: dict[str, float | None]
    """Rates at a probability of 0.5 by view, and the expected calibration error, in [0, 1]."""
    resampled: NDArray[np.float64]
    """AUROC and average precision of each resample, shape (resamples, 2); the same patients for every arm."""

    @property
    def pair(self) -> tuple[int, int]:
        """What it has in common with the other arms' trainings."""
        return self.seed, self.fold

    @property
    def figures(self) -> NDArray[np.float64]:
        """AUROC and average precision, shape (2,)."""
        return np.array([self.auroc, self.average_precision])


def main() -> None:
    """Train what is missing, judge all, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True, help="dataset that convert wrote, with patients")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--arm", action="append", choices=list(ARMS), help="arm to train; may be repeated (all)")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each arm and fold (1)")
    parser.add_argument("--folds", type=int, default=4, help="parts of the patients (4)")
    parser.add_argument("--fold", type=int, action="append", help="part to validate on; may be repeated (1)")
    parser.add_argument("--epochs", type=int, default=10, help="of arms that say nothing else (10)")
    parser.add_argument("--amp", action="store_true", help="mixed precision, in every arm")
    parser.add_argument("--split", choices=["val", "test"], default="val", help="what to judge on (val)")
    parser.add_argument("--out", type=Path, help="file for the figures (JSON)")
    parser.add_argument("--figure", type=Path, help="file for the plot (PNG)")
    arguments = parser.parse_args()
    arms = arguments.arm or list(ARMS)
    trainings = [
        run_arm(arm, seed, fold, arguments)
        for seed in range(arguments.seeds)
        for fold in arguments.fold or [1]
        for arm in arms
    ]
    summary = summarize(trainings)
    alone = shortcuts(_judged(arguments, trainings[0]), arguments.split, RESAMPLES)
    print(table(summary, alone, arguments.split))
    if arguments.out:
        content = {
            "surroundings": surroundings(),
            "settings": {name: getattr(arguments, name) for name in ("seeds", "folds", "epochs", "amp", "split")},
            "dataset": Dataset.open(arguments.dataset).identity,
            "arms": {arm: ARMS[arm] for arm in arms},
            "trainings": [{k: v for k, v in asdict(each).items() if k != "resampled"} for each in trainings],
            "summary": summary,
            "shortcuts": {name: asdict(value) for name, value in alone.items()},
        }
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")
    if arguments.figure:
        draw(summary, arguments.split).savefig(arguments.figure, dpi=150)


def run_arm(arm: str, seed: int, fold: int, arguments: argparse.Namespace) -> Training:
    """Train one arm, or resume it, and judge its best checkpoint."""
    options = {"epochs": arguments.epochs, "amp": arguments.amp, **ARMS[arm]}
    out = arguments.work / arm.replace(" ", "-") / f"seed-{seed}-fold-{fold}"
    config = TrainConfig(
        datasets=(arguments.dataset,), out=out, folds=arguments.folds, fold=fold, seed=seed, resume=True, **options
    )
    print(f"{arm}, seed {seed}, fold {fold}", file=sys.stderr, flush=True)
    trained = train(config)
    split: Split = arguments.split
    evaluated = evaluate(EvaluateConfig(run=out, split=split, resamples=100))
    found = evaluated.predictions
    labels, logits = found.labels, found.logits
    return Training(
        arm=arm, seed=seed, fold=fold, best_epoch=trained.best_epoch, epochs=trained.epochs,
        train_seconds=sum(record["train_seconds"] for record in trained.history),
        auroc=auroc(labels, logits), average_precision=average_precision(labels, logits),
        others=_others(evaluated.figures),
        resampled=resampled(labels, logits, found.groups, Bootstrap(resamples=RESAMPLES)),
    )  # fmt: skip


def _others(figures: Figures) -> dict[str, float | None]:
    by_view = {group.value: group for group in figures.subgroups if group.column == "view"}
    rates = {
        f"{name} {view}": getattr(by_view[view], name).value if view in by_view else None
        for name in ("sensitivity", "specificity")
        for view in VIEWS
    }
    return rates | {"calibration error": figures.probability.ece.value}


def _judged(arguments: argparse.Namespace, one: Training) -> Dataset:
    """The data of one training's fold."""
    config = TrainConfig(datasets=(arguments.dataset,), folds=arguments.folds, fold=one.fold, seed=one.seed)
    return open_data(config).dataset


def summarize(trainings: Sequence[Training]) -> dict[str, dict[str, Any]]:
    """For each arm its figures, and their differences from the first arm's, where pairs are there."""
    arms = list(dict.fromkeys(each.arm for each in trainings))
    first = {each.pair: each for each in trainings if each.arm == arms[0]}
    summary = {}
    for arm in arms:
        own = [each for each in trainings if each.arm == arm]
        pairs = [(each, first[each.pair]) for each in own if each.pair in first and arm != arms[0]]
        summary[arm] = {
            "trainings": len(own),
            "best_epochs": [each.best_epoch for each in own],
            "train_seconds": float(np.mean([each.train_seconds for each in own])),
            "others": {name: _mean([each.others[name] for each in own]) for name in own[0].others},
            "figures": _estimates([each.figures for each in own], [each.resampled for each in own]),
            "differences": _estimates(
                [each.figures - other.figures for each, other in pairs],
                [each.resampled - other.resampled for each, other in pairs],
            ),
        }
    return summary


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _estimates(
    values: Sequence[NDArray[np.float64]], resampled: Sequence[NDArray[np.float64]]
) -> dict[str, dict[str, Any]]:
    """The mean over trainings, of each figure, with its interval over patients and trainings.

    Parameters
    ----------
    values : sequence of ndarray, shape (figures,)
        One per training.
    resampled : sequence of ndarray, shape (resamples, figures)
    """
    if not values:
        return {}
    draws = np.stack(resampled, axis=1)  # (resamples, trainings, figures)
    chosen = np.random.default_rng(0).integers(draws.shape[1], size=draws.shape[:2])
    means = np.take_along_axis(draws, chosen[:, :, None], axis=1).mean(axis=1)
    return {
        name: asdict(estimate(float(np.mean([value[k] for value in values])), percentile_interval(means[:, k])))
        for k, name in enumerate(FIGURES)
    }


def table(summary: dict[str, dict[str, Any]], alone: dict[str, Estimate], split: str) -> str:
    """What people read, at most 80 columns wide."""
    lines = [f"{split}: mean over trainings, 95 % interval over patients and trainings"]
    lines += ["", f"{'arm':<27}{'n':<4}{'epochs':<9}{'AUROC':<20}AP"]
    for arm, found in summary.items():
        best = ",".join(map(str, found["best_epochs"]))
        lines.append(f"{arm:<27}{found['trainings']:<4}{best:<9}" + _columns(found["figures"]))
    first = next(iter(summary))
    if len(summary) > 1:
        lines += ["", f"{f'minus {first}':<40}{'AUROC':<20}AP"]
        lines += [f"{arm:<40}{_columns(found['differences'], '+')}" for arm, found in summary.items() if arm != first]
    lines += ["", f"{'at probability 0.5':<27}{'sensitivity':<21}{'specificity':<14}calibration"]
    lines.append(f"{'':<27}{'AP':<7}{'PA':<7}{'AP-PA':<7}{'AP':<7}{'PA':<7}error")
    for arm, found in summary.items():
        ap, pa, *rest = found["others"].values()
        gap = None if ap is None or pa is None else ap - pa
        lines.append(f"{arm:<27}" + "".join(f"{TERMINAL.number(value):<7}" for value in (ap, pa, gap, *rest)).rstrip())
    lines += ["", "without looking at the lungs"]
    lines += [f"{name:<24}{_with_interval(value)}".rstrip() for name, value in alone.items()]
    return "\n".join(lines)


def _columns(figures: dict[str, Any], sign: str = "") -> str:
    cells = [_with_interval(Estimate(**figures[name]), sign) for name in FIGURES if name in figures]
    return "".join(f"{cell:<20}" for cell in cells).rstrip()


def _with_interval(value: Estimate, sign: str = "") -> str:
    if value.value is None:
        return "none"
    ends = "" if value.low is None else f" ({value.low:{sign}.3f},{value.high:{sign}.3f})"
    return f"{value.value:{sign}.3f}{ends}".replace("0.", ".")


def draw(summary: dict[str, dict[str, Any]], split: str) -> Figure:
    """Each arm's difference in AUROC from the first, with its interval."""
    arms = [arm for arm, found in summary.items() if found["differences"]]
    figure = Figure(figsize=(8.0, 1.4 + 0.35 * len(arms)), layout="constrained")
    axes = figure.add_subplot()
    for place, arm in enumerate(reversed(arms)):
        found = Estimate(**summary[arm]["differences"]["AUROC"])
        if found.low is not None and found.high is not None:
            axes.plot([found.low, found.high], [place, place], color="#0072B2", linewidth=2)
        axes.plot(found.value or 0.0, place, "o", color="#0072B2")
    axes.axvline(0, color="#767676", linewidth=0.8)
    axes.set_yticks(range(len(arms)), list(reversed(arms)))
    axes.set_xlabel(f"AUROC minus that of {next(iter(summary))}, {split}: mean and 95 % interval")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
