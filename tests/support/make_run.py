"""An evaluated and explained run as its files alone, for the tests of the report: no model, no images of people."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.format import FORMAT, FORMAT_VERSION, Manifest
from pneumo_fast.evaluation import operating_points
from pneumo_fast.evaluation.compute import judge
from pneumo_fast.evaluation.identity import DatasetIdentity, RunIdentity
from pneumo_fast.evaluation.options import EvaluateConfig
from pneumo_fast.evaluation.results import Evaluation, Predictions, describe_intervals, predictions_csv, to_json
from pneumo_fast.explanation.options import ExplainConfig
from pneumo_fast.explanation.pointing import BoxFigures
from pneumo_fast.explanation.results import Drawn, Explanation
from pneumo_fast.explanation.results import to_json as explained
from pneumo_fast.explanation.sanity import Randomised
from pneumo_fast.metrics.intervals import Estimate, group_numbers
from pneumo_fast.metrics.scored import Sample, sigmoid
from pneumo_fast.run.folder import write_config, write_history
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.plan import Resolved, describe_run

EPOCHS = 6
THRESHOLDS = (0.5, 0.25)
KINDS = {(1, True): "TP", (0, True): "FP", (1, False): "FN", (0, False): "TN"}
NOTE = "The checkpoint was selected on these images, in /somebody/else/runs/one, so the metrics are optimistic."
"""With a path, as no note should have one."""
HOSTILE = "<img src=x onerror=alert(1)>&\"'"

RESOLVED = Resolved(
    device=torch.device("cpu"), amp_dtype=torch.bfloat16, pos_weight=3.0, batch_size=64, loader="fused", processes=1
)


def make_run(
    folder: Path,
    *,
    images: int = 160,
    hostile: bool = False,
    pictures: int = 3,
    one_class: bool = False,
) -> Path:
    """Write ``folder/run`` and ``folder/dataset``; the run's path.

    Parameters
    ----------
    hostile : bool
        Whether an image has an id that is markup.
    pictures : int
        Heat maps of each kind.
    one_class : bool
        Whether every image is negative.
    """
    rows = _rows(images, hostile=hostile)
    if one_class:
        rows["label"] = 0
    identity = _write_dataset(folder / "dataset", rows)
    run = folder / "run"
    run.mkdir()
    (run / "best.pt").write_bytes(b"weights")
    _write_training(folder, identity)
    evaluation = _evaluation(
        run, folder / "dataset", identity, rows, EvaluateConfig(thresholds=THRESHOLDS, resamples=100)
    )
    evaluation.folder.mkdir(parents=True)
    (evaluation.folder / "predictions.csv").write_text(predictions_csv(evaluation.predictions, THRESHOLDS))
    (evaluation.folder / "metrics.json").write_text(json.dumps(to_json(evaluation), allow_nan=False))
    _write_explanation(run, evaluation, pictures)
    return run


def change_json(path: Path, **values: Any) -> None:
    """Write a JSON file again with other values at its top; a value of ``...`` takes the key away."""
    content = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def _rows(images: int, *, hostile: bool) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    label = (np.arange(images) % 4 == 0).astype(np.int64)
    names = np.array(["Normal", "No Lung Opacity / Not Normal"])[rng.integers(0, 2, images)]
    return pd.DataFrame({
        "image_id": [HOSTILE if hostile and row == 0 else f"image-{row:04d}" for row in range(images)],
        "label": label,
        "group": [f"{row // 2:016x}" for row in range(images)],
        "sex": rng.choice(["F", "M"], images),
        "age": rng.integers(5, 95, images).astype(str),
        "view": np.where(rng.random(images) < 0.3 + 0.4 * label, "AP", "PA"),
        "class": np.where(label == 1, "Lung Opacity", names),
    })  # fmt: skip


def _logits(rows: pd.DataFrame) -> Any:
    """Two overlapping heaps, a probability of exactly 0.5 and 0.25 among them."""
    rng = np.random.default_rng(8)
    logits = rng.normal(-1.2 + 2.6 * rows["label"].to_numpy(), 1.3).astype(np.float32)
    logits[:2] = 0.0
    return logits


def _write_dataset(path: Path, rows: pd.DataFrame) -> str:
    """A dataset's manifest alone; its identity."""
    path.mkdir()
    n, positives = len(rows), int(rows["label"].sum())
    manifest = Manifest(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        created_by="tests",
        layout="shards",
        image_shape=(224, 224),
        dtype="float16",
        scale=1.0,
        mean=0.4812345,
        std=0.2712345,
        ids="pseudonyms",
        preprocessing={"decode": "fast", "window": "auto", "resampling": "antialiased bilinear", "aspect": "kept"},
        split={
            "seed": 3,
            "by": "group",
            "groups": 1234,
            "ungrouped_images": 5,
            "leaks": "none: no patient is in two splits",
        },
        counts={"train": {"0": 900, "1": 300}, "val": {"0": n - positives, "1": positives}},
        input={
            "label_rows": 1500,
            "rows_without_file": 7,
            "files_without_row": 2,
            "dropped_ungrouped": 0,
            "burned_in": 1,
        },
        duplicates={"equal_pixels": 4, "equal_pixels_across_splits": 1, "equal_uids": 0, "equal_uids_across_splits": 0},
        rejects={"not_dicom": 11, "corrupt": 2},
        arguments={"options": {"size": 224, "val_fraction": 0.2, "seed": 3}},
        shards=(),
        tables={},
    )
    text = manifest.to_json()
    (path / "manifest.json").write_text(text)
    return hashlib.sha256(text.encode()).hexdigest()


def _write_training(folder: Path, identity: str) -> None:
    run, dataset = folder / "run", folder / "dataset"
    config = TrainConfig(datasets=(dataset,), out=run, epochs=EPOCHS, lr=3e-4, augment="light", amp=True)
    manifest = Manifest.from_json((dataset / "manifest.json").read_text())
    nothing = pd.DataFrame()
    opened = Dataset(
        path=dataset, manifest=manifest, index=nothing, boxes=nothing, identity=identity, key_ids=frozenset()
    )
    write_config(run, describe_run(config, opened, RESOLVED))
    steps = [(epoch, 0.6 * 0.8**epoch) for epoch in range(1, EPOCHS + 1)]
    write_history(
        run,
        [
            {
                "epoch": epoch,
                "train_loss": loss,
                "val_loss": loss + 0.05 * epoch,
                "val_accuracy": 0.75 + 0.02 * epoch,
                "val_auroc": 0.9 - 0.2 * loss,
                "val_ap": 0.8 - 0.3 * loss,
                "lr": 3e-4,
            }
            for epoch, loss in steps
        ],
    )


def _evaluation(run: Path, dataset: Path, identity: str, rows: pd.DataFrame, config: EvaluateConfig) -> Evaluation:
    """What evaluate would find."""
    sample = Sample(labels=rows["label"].to_numpy(), logits=_logits(rows), groups=group_numbers(rows["group"]))
    chosen = operating_points.halve(rows, 0)
    assert chosen is not None
    sha256 = hashlib.sha256((run / "best.pt").read_bytes()).hexdigest()
    fitted = operating_points.fit(
        sample.take(chosen), 3.0, config, sha256, f"half of the patients ({chosen.sum()} images)"
    )
    reported = np.ones(sample.n, bool) if fitted is None else ~chosen
    where = f"the other half ({reported.sum()} images)"
    return Evaluation(
        folder=run / "eval" / "dataset-val",
        split="val",
        selected_on_this_data=True,
        figures=judge(sample, rows, config, fitted, reported, where, rows),
        predictions=Predictions(
            image_ids=tuple(rows["image_id"]),
            labels=sample.labels,
            logits=_logits(rows),
            probabilities=sample.probabilities,
            calibrated=None if fitted is None else sigmoid(fitted.calibration.apply(sample.logits)),
            reported=reported,
            groups=sample.groups,
        ),
        intervals=describe_intervals(rows["group"], config.resamples, config.seed),
        overlap=None,
        notes=(NOTE,),
        run=RunIdentity(
            path=str(run),
            checkpoint="best.pt",
            sha256=sha256,
            arch="resnet18",
            epoch=4,
            mean=0.4812345,
            std=0.2712345,
            dataset_identity=identity,
        ),
        dataset=DatasetIdentity(path=str(dataset), identity=identity, trained_on=True, name="dataset"),
        device="cpu",
        options=config,
    )


def _write_explanation(run: Path, evaluation: Evaluation, pictures: int) -> None:
    (run / "explain").mkdir()
    entries: list[Drawn] = []
    predictions = evaluation.predictions
    of_kind: dict[str, int] = dict.fromkeys(KINDS.values(), 0)
    answers = zip(predictions.image_ids, predictions.labels.tolist(), predictions.probabilities.tolist(), strict=True)
    for image_id, label, probability in answers:
        kind = KINDS[label, probability >= 0.5]
        if of_kind[kind] == pictures:
            continue
        of_kind[kind] += 1
        name = f"{kind}-{of_kind[kind]:02d}.png"
        draw_heat_map(len(entries)).save(run / "explain" / name)
        entries.append(
            Drawn(
                image_id=image_id,
                label=label,
                probability=probability,
                kind=kind,
                file=name,
                hit=of_kind[kind] % 2 == 1 if label else None,
                energy_share=0.4 if label else None,
            )
        )
    explanation = Explanation(
        folder=run / "explain",
        created_by="tests",
        method="gradcam",
        layer="layer4",
        map_size=(7, 7),
        split="val",
        threshold=0.5,
        boxes=BoxFigures(
            images=40,
            hit_rate=_estimate(0.725),
            hit_rate_random_point=_estimate(0.1),
            hit_rate_centre_point=_estimate(0.05),
            energy_share=_estimate(0.41),
            box_area_share=_estimate(0.12),
        ),
        randomised=Randomised(
            images=64,
            rank_correlation=_estimate(0.03),
            hit_rate=_estimate(0.1),
            text="The maps follow the weights.",
        ),
        images=tuple(entries),
        intervals=evaluation.intervals,
        notes=("Maps are 7 x 7 fields, drawn larger.",),
        run=evaluation.run,
        dataset=evaluation.dataset,
        device="cpu",
        options=ExplainConfig(run=run, count=pictures, seed=7),
    )
    (run / "explain" / "explain.json").write_text(json.dumps(explained(explanation)))


def _estimate(value: float) -> Estimate:
    return Estimate(value=value, low=max(0.0, value - 0.1), high=min(1.0, value + 0.1))


def draw_heat_map(number: int) -> Image.Image:
    """A picture as large and plain as a test needs."""
    across, down = np.meshgrid(np.linspace(0, 1, 120), np.linspace(0, 1, 120))
    grey = 90 + 80 * np.cos(6 * across + number) * np.sin(3 * down)
    heat = 120 * np.exp(-20 * ((across - 0.4) ** 2 + (down - 0.5 - 0.02 * number) ** 2))
    pixels = np.stack([grey + heat, grey + 0.3 * heat, grey - 0.5 * heat], axis=-1).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(pixels)
    ImageDraw.Draw(picture).rectangle([30, 40, 70, 90], outline=(230, 159, 0), width=2)
    return picture
