"""Whether heat maps point at findings better than what never saw the image.

    python benchmarks/pointing.py RUN... [--dataset DIR --split test --method hirescam --layer layer3 --out FILE.json]

Plays the pointing game with the heat maps of each run, all on the same images with boxes. Beside it stand the centre, a
random point, random weights, and the place that the boxes of the training images with the same view cover most often:
no map of a model that looks at the image should be worse than that.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import surroundings
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.evaluation.inference import open_run
from pneumo_fast.explanation.explain import explain
from pneumo_fast.explanation.options import ExplainConfig, Method
from pneumo_fast.explanation.pointing import Corners, hit, mask, mean_estimate, peak
from pneumo_fast.metrics.intervals import Estimate, group_numbers
from pneumo_fast.radiograph.resize import stored_boxes
from pneumo_fast.vocabulary import Split

RESAMPLES = 2000


def main() -> None:
    """Play, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders; explain is run in each")
    parser.add_argument("--dataset", type=Path, help="dataset folder (the first run's own)")
    parser.add_argument("--split", choices=["val", "test"], default="val", help="which images (val)")
    parser.add_argument("--method", choices=get_args(Method), default="gradcam", help="of the maps (gradcam)")
    parser.add_argument("--layer", help="layer that is mapped, of every run (that of explain)")
    parser.add_argument("--out", type=Path, help="file for the figures (JSON)")
    arguments = parser.parse_args()
    found = play(arguments.runs, arguments.dataset, arguments.split, arguments.method, arguments.layer)
    for name, rate in found.items():
        ends = "" if rate.low is None else f"  {rate.low:.3f} to {rate.high:.3f}"
        print(f"{name:<48}{'none' if rate.value is None else f'{rate.value:.3f}'}{ends}")
    if arguments.out:
        rates = {name: asdict(rate) for name, rate in found.items()}
        asked = {name: getattr(arguments, name) for name in ("split", "method", "layer")}
        content = {"surroundings": surroundings(), **asked, "hit_rates": rates}
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")


def play(
    runs: list[Path], dataset: Path | None, split: Split, method: Method = "gradcam", layer: str | None = None
) -> dict[str, Estimate]:
    """Share of the images with boxes whose map is highest in a box: of each run, and of what saw no image."""
    judged = open_run(runs[0], dataset, "auto")
    how = ExplainConfig(dataset=dataset, split=split, method=method, layer=layer, count=1, resamples=RESAMPLES)
    explained = [explain(replace(how, run=run)) for run in runs]
    first = explained[0]
    if first.boxes is None:
        sys.exit(f"{runs[0]}: no image of the {split} split has a box")
    found = {
        f"{run.parent.name}/{run.name}": one.boxes.hit_rate
        for run, one in zip(runs, explained, strict=True)
        if one.boxes
    }
    found |= {
        "most frequent place of a box, by view": view_rate(judged.dataset, split),
        "the centre": first.boxes.hit_rate_centre_point,
        "a random point": first.boxes.hit_rate_random_point,
        "random weights": first.randomised.hit_rate or Estimate(value=None),
    }
    return found


def view_rate(dataset: Dataset, split: str) -> Estimate:
    """Hit rate of the place that training images' boxes cover most often, for each view its own."""
    known, asked = boxed(dataset, "train"), boxed(dataset, split)
    places = {
        view: peak(np.mean([mask(boxes, dataset.size) for boxes in of_view], axis=0, dtype=np.float32))
        for view, of_view in known.groupby("view")["boxes"]
    }
    overall = peak(np.mean([mask(boxes, dataset.size) for boxes in known["boxes"]], axis=0, dtype=np.float32))
    hits = [
        float(hit(places.get(view, overall), boxes, dataset.size))
        for view, boxes in zip(asked["view"], asked["boxes"], strict=True)
    ]
    groups: NDArray[np.int64] = group_numbers(asked["group"])
    return mean_estimate(hits, groups, resamples=RESAMPLES, seed=0)


def boxed(dataset: Dataset, split: str) -> pd.DataFrame:
    """The positive images of a split that have boxes: their ``view``, ``group`` and ``boxes`` in stored pixels."""
    by_id: dict[str, Corners] = {
        str(image_id): stored_boxes(boxes, dataset.size) for image_id, boxes in dataset.boxes.groupby("image_id")
    }
    rows = dataset.rows(split)
    rows = rows[(rows["label"] == 1) & rows["image_id"].isin(by_id.keys())]
    boxes = pd.Series([by_id[image_id] for image_id in rows["image_id"]], rows.index, dtype=object)
    return rows[["view", "group"]].assign(boxes=boxes)


if __name__ == "__main__":
    main()
