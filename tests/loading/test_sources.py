"""Datasets whose pixels stay in the source files: the images of a conversion, and what becomes of files that fail."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pytest
import torch

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.verify import verify
from pneumo_fast.errors import ConfigError, ConvertError, DatasetError
from pneumo_fast.loading import choose
from pneumo_fast.loading.augment import Augmentation
from pneumo_fast.loading.batches import Rank
from pneumo_fast.loading.engines import source
from pneumo_fast.loading.engines.base import Feed
from pneumo_fast.loading.loader import Loader
from pneumo_fast.loading.sources import SourceReader
from pneumo_fast.phantoms.make import PhantomSet
from pneumo_fast.vocabulary import Dtype
from tests.support.loaders import Place, load
from tests.support.sources import index_phantoms

SOURCE = Place("source", "cpu")


@pytest.fixture
def indexed(phantoms: PhantomSet, tmp_path: Path) -> Dataset:
    """With files of its own."""
    return index_phantoms(phantoms, tmp_path, max_rejects=2)


def files_of(dataset: Dataset, split: str) -> list[Path]:
    """In storage order; ids are kept, so names are."""
    return [dataset.path.parent / "images" / name for name in dataset.rows(split)["shard"]]


def child_processes() -> set[str]:
    """Numbers of the processes that this one has started."""
    return {pid for children in Path("/proc/self/task").glob("*/children") for pid in children.read_text().split()}


def epochs(loader: Loader, count: int = 2) -> list[tuple[torch.Tensor, torch.Tensor]]:
    with loader:
        return [(images.clone(), labels.clone()) for epoch in range(count) for images, labels in loader.epoch(epoch)]


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
@pytest.mark.parametrize("order", ["sequential", "shuffle", "weighted"])
@pytest.mark.parametrize("share", [source.KEPT_SHARE, 0.0], ids=["kept", "decoded anew"])
def test_batches_are_those_of_the_converted_dataset(
    phantoms: PhantomSet,
    convert_phantoms: Callable[[Dtype], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: Dtype,
    order: str,
    share: float,
) -> None:
    monkeypatch.setattr(source, "KEPT_SHARE", share)
    converted, indexed = Dataset.open(convert_phantoms(dtype)), index_phantoms(phantoms, tmp_path, dtype=dtype)
    assert (indexed.mean, indexed.std) == (converted.mean, converted.std)  # there are few: all are in the sample
    augmentation = Augmentation(strength="strong", flip=True, seed=3) if order == "shuffle" else None
    options: dict[str, Any] = {"batch_size": 7, "order": order, "augmentation": augmentation}
    expected = epochs(load(converted, "train", **options))
    found = epochs(load(indexed, "train", SOURCE, **options))
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])


def test_tables_are_those_of_the_converted_dataset_but_for_what_only_pixels_tell(
    indexed: Dataset, convert_phantoms: Callable[[Dtype], Path]
) -> None:
    converted = Dataset.open(convert_phantoms("float16"))
    own = ["shard", "row", "pixel_hash"]
    pd.testing.assert_frame_equal(indexed.index.drop(columns=own), converted.index.drop(columns=own))
    assert (indexed.index["pixel_hash"] == "").all()
    pd.testing.assert_frame_equal(indexed.boxes, converted.boxes)
    assert not list(indexed.path.glob("*.npy"))
    assert verify(indexed.path) == []


def test_no_pixel_is_written_to_a_disk(indexed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    before = sorted(tmp_path.rglob("*"))
    with load(indexed, "train", SOURCE, batch_size=4) as loader:
        assert all(sorted(tmp_path.rglob("*")) == before for _ in loader.epoch(0))


def test_a_loader_goes_on_within_an_epoch(indexed: Dataset) -> None:
    with load(indexed, "train", SOURCE, batch_size=5, order="shuffle") as loader:
        batches = [images.clone() for images, _ in loader.epoch(1)]
        under_way = loader.epoch(1)
        _ = next(under_way), next(under_way)
        state = loader.state_dict()
    with load(indexed, "train", SOURCE, batch_size=5, order="shuffle") as other:
        other.load_state_dict(state)
        rest = [images.clone() for images, _ in other.epoch(1)]
    assert all(torch.equal(one, two) for one, two in zip(rest, batches[2:], strict=True))


@pytest.mark.parametrize("share", [source.KEPT_SHARE, 0.0], ids=["kept", "decoded anew"])
def test_a_loader_may_be_closed_within_an_epoch(
    indexed: Dataset, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr(source, "KEPT_SHARE", share)
    before = child_processes()
    with load(indexed, "train", SOURCE, batch_size=2) as loader:
        next(loader.epoch(0))
        assert child_processes() - before
    assert not child_processes() - before


def test_a_file_that_fails_costs_its_image_alone(indexed: Dataset) -> None:
    gone, cut, *_ = files_of(indexed, "train")
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:-300])
    rows, n = indexed.rows("train"), len(indexed.rows("train"))
    with load(indexed, "train", SOURCE, batch_size=4, order="shuffle", targets=True) as loader:
        for epoch in range(2):
            seen: list[int] = []
            for batch, (images, labels) in enumerate(loader.epoch(epoch)):
                targets = loader.targets(epoch, batch)
                assert targets is not None
                assert len(images) == len(labels) == len(loader.rows) == len(targets.boxes)
                assert labels.tolist() == rows["label"].to_numpy()[loader.rows].tolist()
                seen += loader.rows.tolist()
            assert sorted(seen) == list(range(2, n))
        rejects = {reject["path"]: reject["reason"] for reject in loader.rejects}
    assert rejects == {gone.name: "not_readable", cut.name: "corrupt"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU would decode")
def test_that_the_cpu_decodes_instead_of_a_gpu_is_said_once(
    phantoms: PhantomSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def beside_a_gpu(feed: Feed, reader: SourceReader, _: torch.device) -> source.SourceEngine:
        return source.SourceEngine(feed, reader, torch.device("cuda"))

    monkeypatch.setattr(choose, "SourceEngine", beside_a_gpu)
    exact, gpu = (
        index_phantoms(phantoms, tmp_path, decode=decode, out=tmp_path / decode) for decode in ("exact", "gpu")
    )
    found, expected = (epochs(load(dataset, "train", SOURCE, batch_size=4)) for dataset in (gpu, exact))
    assert all(torch.equal(ours[0], theirs[0]) for ours, theirs in zip(found, expected, strict=True))
    assert caplog.text.count("the GPU decoded none of") == 1


def test_too_many_that_fail_end_the_epoch(indexed: Dataset) -> None:
    for path in files_of(indexed, "train")[:3]:
        path.unlink()
    with (
        load(indexed, "train", SOURCE, batch_size=4) as loader,
        pytest.raises(DatasetError, match=r"3 of 28 image files cannot be read any more, 2 are allowed"),
    ):
        list(loader.epoch(0))


def test_workers_that_give_nothing_end_the_epoch(indexed: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise ConvertError("workers keep dying")

    monkeypatch.setattr(source.SourceEngine, "_unchanged", fail)
    with (
        load(indexed, "train", SOURCE, batch_size=4) as loader,
        pytest.raises(DatasetError, match=r"images cannot be decoded \(workers keep dying\)"),
    ):
        next(loader.epoch(0))


def test_workers_that_do_not_start_leave_no_memory_open(indexed: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError("no more processes")

    def held() -> list[Path]:
        links = Path("/proc/self/fd").iterdir()
        return [link for link in links if link.is_symlink() and "pneumo-fast-images" in str(link.readlink())]

    before = held()
    monkeypatch.setattr(source, "local_workers", fail)
    with pytest.raises(OSError, match="no more processes"):
        load(indexed, "train", SOURCE, batch_size=4)
    assert held() == before


def test_a_file_that_was_replaced_by_another_is_noticed(indexed: Dataset) -> None:
    rows, paths = indexed.rows("train"), files_of(indexed, "train")
    other = next(row for row in range(len(rows)) if rows["age"][row] != rows["age"][0])
    shutil.copy(paths[other], paths[0])
    with load(indexed, "train", SOURCE, batch_size=4) as loader:
        list(loader.epoch(0))
        assert [(reject["path"], reject["reason"]) for reject in loader.rejects] == [(paths[0].name, "changed")]


def test_a_reader_in_this_process_gives_the_same_images_and_names_a_file_that_fails(indexed: Dataset) -> None:
    rows = indexed.rows("val")
    reader = SourceReader(indexed, rows)
    images = reader.read_unit(np.arange(len(rows)))
    with load(indexed, "val", SOURCE, batch_size=len(rows), normalization=(0.0, 1.0)) as loader:
        assert np.array_equal(next(loader.epoch(0))[0][:, 0].numpy(), images)
    files_of(indexed, "val")[1].unlink()
    with pytest.raises(DatasetError, match=f"image file {rows['shard'][1]} cannot be read"):
        reader.read_unit(np.arange(len(rows)))


def test_nothing_in_the_dataset_names_a_file(phantoms: PhantomSet, tmp_path: Path) -> None:
    dataset = index_phantoms(phantoms, tmp_path, keep_ids=False)
    text = "".join(path.read_text() for path in dataset.path.iterdir())
    assert not any(path.stem in text for path in (tmp_path / "images").iterdir())
    with load(dataset, "val", SOURCE, batch_size=4) as loader:
        assert sum(len(labels) for _, labels in loader.epoch(0)) == len(dataset.rows("val"))


def test_another_hash_key_is_refused(phantoms: PhantomSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = index_phantoms(phantoms, tmp_path, keep_ids=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "other"))
    (tmp_path / "other" / "pneumo-fast").mkdir(parents=True)
    key = tmp_path / "other" / "pneumo-fast" / "hash.key"
    key.write_text("00" * 32)
    key.chmod(0o600)
    with pytest.raises(DatasetError, match="another hash key"):
        load(dataset, "val", SOURCE, batch_size=4)


@pytest.mark.parametrize("engine", ["fused", "dali", "resident"])
def test_engines_of_stored_images_are_refused(indexed: Dataset, engine: str) -> None:
    with pytest.raises(ConfigError, match=f"loader {engine} of images whose pixels are in the source files"):
        load(indexed, "val", Place(engine, "cpu"), batch_size=4)  # type: ignore[arg-type]


def test_the_engine_of_source_files_is_refused_for_stored_images(convert_phantoms: Callable[[Dtype], Path]) -> None:
    with pytest.raises(ConfigError, match="loader source of images whose pixels are stored"):
        load(Dataset.open(convert_phantoms("uint8")), "val", SOURCE, batch_size=4)


def test_several_processes_are_refused(indexed: Dataset) -> None:
    with pytest.raises(ConfigError, match="several processes"):
        load(indexed, "val", SOURCE, batch_size=4, rank=Rank(number=0, world_size=2))


def test_a_folder_of_source_files_that_is_gone_is_a_clear_line(indexed: Dataset) -> None:
    (indexed.path.parent / "images").rename(indexed.path.parent / "elsewhere")
    with pytest.raises(DatasetError, match=r"the folder of its images, .* is not there"):
        Dataset.open(indexed.path)


@pytest.mark.parametrize("change", [{"source": None}, {"layout": "shards"}])
def test_layout_and_source_go_together(indexed: Dataset, change: dict[str, object]) -> None:
    manifest = json.loads((indexed.path / "manifest.json").read_text()) | change
    (indexed.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DatasetError, match="layout"):
        Dataset.open(indexed.path)
