"""Prediction: the whole path, beside its two halves alone, which share the cores where there is no GPU."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.convert_stage import Radiographs, replicate
from benchmarks.measure import Contender, Result, Stage, Turn, race
from pneumo_fast.conversion.convert import convert
from pneumo_fast.conversion.executors import local_workers
from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.dataset.npy import Images
from pneumo_fast.prediction.files import find
from pneumo_fast.prediction.model import Model, open_model
from pneumo_fast.prediction.options import PredictConfig
from pneumo_fast.prediction.predict import predict
from pneumo_fast.prediction.reading import cut, read
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.train import train

PREDICT, READING, MODEL = "pneumo-fast predict", "reading alone", "model alone"
TRAINED_ON = 64  # images: the model has to be there, not to be good
SCORED_AGAIN = 512  # images that the model alone is measured on


def predict_stage(source: Path, folder: Path, *, count: int, size: int, workers: int, runs: int) -> Stage:
    """Race prediction, reading without a model, and the model on images that are in memory."""
    radiographs = replicate(source, folder, count)
    run = _train(radiographs, folder, size, workers)
    config = PredictConfig(inputs=(run, radiographs.images), workers=workers, keep_ids=True)
    model = open_model((run,), "auto")
    images = next(_read(config, model))
    stored = np.resize(images, (min(count, SCORED_AGAIN), *images.shape[1:]))
    contenders: dict[str, Contender] = {
        PREDICT: partial(_timed, count, partial(_predict, config)),
        READING: partial(_timed, count, lambda: sum(len(part) for part in _read(config, model))),
        MODEL: partial(_timed, len(stored), lambda: model.score(stored, config.batch_size)),
    }
    results = race(contenders, runs)
    return Stage(
        name="predict",
        conditions={"images": count}
        | radiographs.about
        | {"to": f"{size} x {size}", "workers": workers, "device": str(model.device)},
        results=results,
        ratios=_ratios(results, on_gpu=model.device.type == "cuda"),
    )


def _train(radiographs: Radiographs, folder: Path, size: int, workers: int) -> Path:
    dataset, run = folder / "dataset", folder / "run"
    options: dict[str, Any] = {"size": size, "workers": workers, "val_fraction": 0.3, "keep_ids": True}
    convert(ConvertConfig(images=radiographs.images, labels=radiographs.labels, out=dataset, **options))
    train(TrainConfig(datasets=(dataset,), out=run, epochs=1, limit_images=TRAINED_ON))
    return run


def _timed(images: int, work: Callable[[], object]) -> Turn:
    begin = time.perf_counter()
    work()
    return Turn(images=images, seconds=time.perf_counter() - begin)


def _predict(config: PredictConfig) -> None:
    with tempfile.TemporaryDirectory(prefix="pneumo-fast-bench-") as out:
        predict(PredictConfig(inputs=config.inputs, workers=config.workers, keep_ids=True, out=Path(out) / "out"))


def _read(config: PredictConfig, model: Model) -> Any:
    """The stored images of each part, as prediction reads them."""
    files, _ = find(config.paths, config.path_column)
    with tempfile.TemporaryDirectory(prefix="pneumo-fast-bench-") as work:
        tasks = cut(files, model, model.input.preprocessing.selection, Path(work), bytes(32))
        workers = config.workers or 1
        with local_workers(workers) as submit:
            for _, _, stored in read(tasks, submit, workers, config.timeout_s):
                part: Images = stored
                yield part


def _ratios(results: list[Result], *, on_gpu: bool) -> dict[str, float]:
    """Prediction over what its halves allow: one after the other on shared cores, the slower one beside a GPU."""
    rate = {result.name: result.median for result in results}
    if on_gpu:
        return {"predict / the slower of reading and model": rate[PREDICT] / min(rate[READING], rate[MODEL])}
    return {"predict / both one after the other": rate[PREDICT] * (1 / rate[READING] + 1 / rate[MODEL])}
