"""Training straight from images: the run is that of the converted dataset, and a file that fails costs its image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pneumo_fast.conversion import convert as convert_module
from pneumo_fast.conversion.convert import convert
from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.errors import ConfigError, ConvertError, RunError
from pneumo_fast.evaluation import inference
from pneumo_fast.evaluation.evaluate import evaluate
from pneumo_fast.evaluation.options import EvaluateConfig
from pneumo_fast.loading.engines import source
from pneumo_fast.phantoms.make import PhantomSet
from pneumo_fast.run.checkpoint import load_trained
from pneumo_fast.run.layout import BEST
from pneumo_fast.training.cross_validation import cross_validate
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.train import train
from pneumo_fast.vocabulary import REJECTS
from tests.support.sources import index_phantoms
from tests.support.training import results, small

pytestmark = pytest.mark.usefixtures("one_thread", "quick", "shared_worker", "cheap")


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """One worker process at a time; and what was trained with the small network is judged with it."""
    for module in (convert_module, source):
        monkeypatch.setattr(module, "worker_count", lambda *_, **__: 1)
    monkeypatch.setattr(inference, "build_model", lambda *_: small())


@pytest.fixture
def config(phantoms: PhantomSet, tmp_path: Path) -> TrainConfig:
    """Straight from the phantoms."""
    return TrainConfig(
        datasets=(tmp_path / "source",), images=phantoms.images, labels=phantoms.labels, groups=phantoms.mappings,
        size=32, epochs=2, batch_size=8, out=tmp_path / "run", device="cpu", test_fraction=0.2, augment="light",
    )  # fmt: skip


def convert_as(config: TrainConfig, out: Path) -> None:
    assert config.images
    assert config.labels
    convert(
        ConvertConfig(
            images=config.images,
            labels=config.labels,
            groups=config.groups,
            size=32,
            test_fraction=0.2,
            out=out,
        )
    )


def test_the_run_is_that_of_the_converted_dataset(config: TrainConfig, tmp_path: Path) -> None:
    train(config)
    convert_as(config, tmp_path / "dataset")
    train(TrainConfig(
        datasets=(tmp_path / "dataset",), epochs=2, batch_size=8, out=tmp_path / "other", device="cpu", augment="light"
    ))  # fmt: skip
    assert results(tmp_path / "run") == results(tmp_path / "other")
    assert not list((tmp_path / "source").glob("*.npy"))
    judged = [evaluate(EvaluateConfig(run=tmp_path / run, split="test", resamples=100)) for run in ("run", "other")]
    assert judged[0].predictions.logits.tolist() == judged[1].predictions.logits.tolist()


def test_a_cache_is_the_converted_dataset(config: TrainConfig, tmp_path: Path) -> None:
    train(replace(config, datasets=(Path("dataset"),), cache=tmp_path / "cache", epochs=1))
    convert_as(config, tmp_path / "dataset")
    assert Dataset.open(tmp_path / "cache").identity == Dataset.open(tmp_path / "dataset").identity
    assert not (tmp_path / "source").exists()


def test_options_of_the_tables_reach_the_conversion(config: TrainConfig, phantoms: PhantomSet, tmp_path: Path) -> None:
    train(replace(config, class_info=phantoms.class_info, decode="exact", max_rejects=5, epochs=1))
    dataset = Dataset.open(tmp_path / "source")
    assert set(dataset.index["class"]) > {"Normal", "Lung Opacity"}
    assert dataset.manifest.preprocessing["decode"] == "exact"
    assert dataset.manifest.source
    assert dataset.manifest.source.max_rejects == 5


def test_a_run_resumes_on_the_tables_that_are_there(config: TrainConfig, tmp_path: Path) -> None:
    train(replace(config, epochs=1))
    written = (tmp_path / "source" / "manifest.json").stat().st_mtime_ns
    train(replace(config, resume=True))
    assert (tmp_path / "source" / "manifest.json").stat().st_mtime_ns == written
    assert len(results(tmp_path / "run")) == 2


def test_files_that_fail_are_listed_and_not_judged(phantoms: PhantomSet, tmp_path: Path) -> None:
    dataset = index_phantoms(phantoms, tmp_path, max_rejects=2)
    lost = [dataset.rows(split)["shard"][1] for split in ("train", "val")]
    for name in lost:
        (tmp_path / "images" / name).write_bytes(b"\0" * 132 + b"gone")
    train(TrainConfig(datasets=(dataset.path,), epochs=2, batch_size=8, out=tmp_path / "run", device="cpu"))
    assert pd.read_csv(tmp_path / "run" / REJECTS)["path"].tolist() == sorted(lost)
    evaluation = evaluate(EvaluateConfig(run=tmp_path / "run", resamples=100))
    assert lost[1].removesuffix(".dcm") not in evaluation.predictions.image_ids
    assert len(evaluation.predictions.image_ids) == len(dataset.rows("val")) - 1
    assert "The source file of 1 image of the split can no longer be read; the others were evaluated." in (
        evaluation.notes
    )


def test_equal_pixels_of_source_files_are_not_known(phantoms: PhantomSet, tmp_path: Path) -> None:
    one, other = (index_phantoms(phantoms, tmp_path / name) for name in ("one", "other"))
    train(TrainConfig(datasets=(one.path,), epochs=1, batch_size=8, out=tmp_path / "run", device="cpu"))
    overlap = evaluate(EvaluateConfig(run=tmp_path / "run", dataset=other.path, resamples=100)).overlap
    assert overlap
    assert overlap.images is None


def test_a_batch_with_a_single_image_left_is_no_step(phantoms: PhantomSet, tmp_path: Path) -> None:
    dataset = index_phantoms(phantoms, tmp_path, max_rejects=1.0)
    for name in dataset.rows("train")["shard"][6:]:
        (tmp_path / "images" / name).unlink()
    summary = train(TrainConfig(datasets=(dataset.path,), epochs=3, batch_size=8, out=tmp_path / "run", device="cpu"))
    assert summary.epochs == 3
    assert load_trained(tmp_path / "run" / BEST).epoch


def test_every_fold_is_trained(config: TrainConfig, tmp_path: Path) -> None:
    assert len(cross_validate(replace(config, folds=2, epochs=1)).folds) == 2
    assert len(cross_validate(replace(config, folds=2, epochs=1, overwrite=True)).folds) == 2
    assert (tmp_path / "source" / "manifest.json").exists()


def test_a_taken_run_folder_is_said_before_anything_is_read(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").touch()
    with pytest.raises(RunError, match="not empty"):
        train(config)
    assert not (tmp_path / "source").exists()


def test_tables_of_other_images_are_not_replaced_unasked(config: TrainConfig) -> None:
    train(replace(config, epochs=1))
    other = replace(config, size=48, out=config.out.with_name("other"))
    with pytest.raises(ConvertError, match="what differs: size"):
        train(other)
    with pytest.raises(ConvertError, match="name another folder"):
        train(replace(other, overwrite=True))
    with pytest.raises(ConvertError, match="what differs: max-rejects"):
        train(replace(config, max_rejects=7, resume=True))


def test_what_cannot_work_is_said_before_anything_is_read(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="torchvision has no classifier"):
        train(replace(config, model="nothing"))
    assert not (tmp_path / "source").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": Path("i")}, "images without labels"),
        ({"size": 64}, "size without images and labels: give both --images and --labels, or a dataset"),
        ({"cache": Path("c"), "labels": Path("l")}, "labels, cache without images"),
        ({"images": Path("i"), "labels": Path("l"), "datasets": (Path("a"), Path("b"))}, "images with 2 datasets"),
        (
            {"images": Path("i"), "labels": Path("l"), "datasets": (Path("a"),), "cache": Path("c")},
            "cache with dataset a",
        ),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**options)


def test_several_processes_are_refused(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="run convert first"):
        train(config)
