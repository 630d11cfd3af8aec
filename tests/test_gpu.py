"""What a GPU gives is what a CPU gives: decoding, training in every precision, checkpoints, scores and heat maps."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pneumo_fast.conversion.gpu_decoder import DECODED_ON_GPU, TOLERANCE, GpuDecoder
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.evaluation.evaluate import evaluate
from pneumo_fast.evaluation.options import EvaluateConfig
from pneumo_fast.explanation.cam import class_maps
from pneumo_fast.loading.loader import Loader
from pneumo_fast.loading.options import LoadConfig
from pneumo_fast.phantoms.make import PhantomSet
from pneumo_fast.run.checkpoint import load_trained
from pneumo_fast.run.layout import BEST
from pneumo_fast.run.model import build_model
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.train import train
from pneumo_fast.vocabulary import REJECTS, Dtype
from tests.conversion.test_gpu_decoder import FRAMES
from tests.support.devices import NO_GPU
from tests.support.make_dataset import stored_images
from tests.support.sources import index_phantoms
from tests.support.training import results

GPU = "cuda"
pytestmark = [pytest.mark.gpu, NO_GPU]


@pytest.fixture
def dataset(convert_phantoms: Callable[[Dtype], Path]) -> Path:
    return convert_phantoms("float16")


def trained(dataset: Path, out: Path, device: str, **options: Any) -> Path:
    """A run of few steps at a small rate, in which differences have no time to grow."""
    options = {"epochs": 1, "batch_size": 8, "lr": 1e-5} | options
    train(TrainConfig(datasets=(dataset,), out=out, device=device, **options))
    return out


def logits(run: Path, device: str) -> Any:
    return evaluate(EvaluateConfig(run=run, device=device, resamples=100)).predictions.logits


@pytest.mark.parametrize("loader", ["dali", "resident"])
@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({}, 0.005),
        ({"amp": True}, 0.01),
        ({"amp": True, "amp_dtype": "bfloat16"}, 0.03),
        ({"augment": "strong", "ema": 0.9, "clip_norm": 1.0}, 0.01),
        ({"teach": ("boxes", "classes")}, 0.01),
    ],
    ids=["float32", "float16", "bfloat16", "augmented", "taught"],
)
def test_training_agrees(options: dict[str, Any], tolerance: float, loader: str, dataset: Path, tmp_path: Path) -> None:
    without = {name: value for name, value in options.items() if name not in {"amp", "amp_dtype"}}
    (expected,) = results(trained(dataset, tmp_path / "cpu", "cpu", **without))
    (found,) = results(trained(dataset, tmp_path / "gpu", GPU, loader=loader, **options))
    for name in ("train_loss", "val_loss"):
        assert found[name] == pytest.approx(expected[name], rel=tolerance), name


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # by torch's own compiler
@pytest.mark.parametrize("loader", ["dali", "resident"])
def test_compiled_training_agrees(phantoms: PhantomSet, loader: str, tmp_path: Path) -> None:
    """At 64 pixels: where the last maps have one pixel, PyTorch 2.11 compiles a wrong layout on a GPU, and fails."""
    dataset = index_phantoms(phantoms, tmp_path, layout="shards", out=tmp_path / "dataset", size=64).path
    (expected,) = results(trained(dataset, tmp_path / "cpu", "cpu"))
    (found,) = results(trained(dataset, tmp_path / "gpu", GPU, loader=loader, compile=True))
    for name in ("train_loss", "val_loss"):
        assert found[name] == pytest.approx(expected[name], rel=0.01), name


def test_a_run_goes_on_from_gpu_to_cpu_and_back(dataset: Path, tmp_path: Path) -> None:
    for epochs, device in enumerate((GPU, "cpu", GPU), start=1):
        run = trained(dataset, tmp_path / "run", device, epochs=epochs, resume=True)
    other = trained(dataset, tmp_path / "other", "cpu", epochs=3)
    assert [record["epoch"] for record in results(run)] == [1, 2, 3]
    for found, expected in zip(results(run), results(other), strict=True):  # of training, noise grows by the step
        assert found["val_loss"] == pytest.approx(expected["val_loss"], rel=0.004)


def test_evaluation_agrees(dataset: Path, tmp_path: Path) -> None:
    run = trained(dataset, tmp_path / "run", GPU, epochs=2, lr=1e-3)
    np.testing.assert_allclose(logits(run, GPU), logits(run, "cpu"), atol=0.01)


@pytest.mark.parametrize("layer", ["layer3", "layer4"])
def test_heat_maps_agree(layer: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # a map is a difference, in which rounding shows
    checkpoint = load_trained(trained(dataset, tmp_path / "run", "cpu", epochs=2, lr=1e-3) / BEST)
    model = build_model(checkpoint.arch)
    model.load_state_dict(checkpoint.model)
    pixels = torch.from_numpy(stored_images(Dataset.open(dataset), "val").astype(np.float32))
    images = ((pixels - checkpoint.mean) / checkpoint.std)[:, None]
    (_, expected), (_, found) = (
        class_maps(model.eval().to(device), layer, images.to(device), "gradcam") for device in ("cpu", GPU)
    )
    torch.testing.assert_close(found.cpu(), expected, atol=0.01 * float(expected.max()), rtol=0.01)


def converted_by_both(phantoms: PhantomSet, folder: Path, **options: Any) -> tuple[Dataset, Dataset]:
    """The phantoms decoded by the CPU in full, and by the GPU."""
    cpu, gpu = (
        index_phantoms(phantoms, folder, decode=decode, layout="shards", out=folder / decode, **options)
        for decode in ("exact", "gpu")
    )
    return cpu, gpu


def test_decoding_agrees(phantoms: PhantomSet, tmp_path: Path) -> None:
    exact, decoded = converted_by_both(phantoms, tmp_path)
    assert decoded.index["notes"].str.contains(DECODED_ON_GPU).all()
    assert decoded.manifest.input[DECODED_ON_GPU] == len(decoded.index)
    assert (decoded.index["image_id"] == exact.index["image_id"]).all()
    stored, found = (stored_images(dataset, "train").astype(np.float32) for dataset in (exact, decoded))
    assert 255 * np.abs(stored - found).max() <= TOLERANCE


def test_decoding_while_training_agrees(phantoms: PhantomSet, tmp_path: Path) -> None:
    exact, decoded = converted_by_both(phantoms, tmp_path)
    source = index_phantoms(phantoms, tmp_path, decode="gpu")
    with ExitStack() as held:
        loaders = [
            Loader(dataset, "train", LoadConfig(batch_size=8), device=torch.device(GPU), normalization=(0, 1))
            for dataset in (source, decoded, exact)
        ]
        epochs = [held.enter_context(loader).epoch(0) for loader in loaders]
        for (images, _), (same, _), (other, _) in zip(*epochs, strict=True):
            assert torch.equal(images, same)
            assert float(255 * (images - other).abs().max()) <= TOLERANCE


def test_frames_of_any_size_agree() -> None:
    images = GpuDecoder(0).decode(FRAMES)
    assert images is not None
    for image, frame in zip(images, FRAMES, strict=True):
        np.testing.assert_allclose(image, frame.by_cpu(), atol=TOLERANCE)


def test_a_gpu_loses_no_file_that_the_cpu_reads(phantoms: PhantomSet, tmp_path: Path) -> None:
    """Of two damaged files one is cut short, and one has zeros in its frame, which libjpeg may not notice."""
    shutil.copytree(phantoms.images, tmp_path / "images")
    cut, spoilt, *_ = sorted((tmp_path / "images").iterdir())
    cut.write_bytes(cut.read_bytes()[:-300])
    whole = spoilt.read_bytes()
    spoilt.write_bytes(whole[:-400] + bytes(100) + whole[-300:])
    exact, decoded = converted_by_both(phantoms, tmp_path, max_rejects=2)
    assert decoded.index["image_id"].tolist() == exact.index["image_id"].tolist()
    expected, rejects = (pd.read_csv(dataset.path / REJECTS) for dataset in (exact, decoded))
    assert rejects.to_dict() == expected.to_dict()
    assert cut.name in set(rejects["path"])
