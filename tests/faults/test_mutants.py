"""Damaged DICOM files, thousands of them: each is an image or a rejection, and none costs a worker process."""

from __future__ import annotations

import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom.data
import pytest
import torch
from numpy.typing import NDArray

from pneumo_fast.conversion.convert import convert
from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.loading.loader import Loader
from pneumo_fast.loading.options import LoadConfig
from pneumo_fast.radiograph.rejection import REASONS
from pneumo_fast.vocabulary import Decode, Layout
from tests.faults.fault_tools import Site
from tests.support.repository import SHARED

LARGEST_BYTES = 2_000_000
BATCH = 500
SIZE = 48
DECODES: tuple[Decode, ...] = ("fast", "exact", "gpu") if torch.cuda.is_available() else ("fast", "exact")
ROWS, COLUMNS, BITS = b"\x28\x00\x10\x00US", b"\x28\x00\x11\x00US", b"\x28\x00\x00\x01US"


def flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def flip_bits_of_header(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 4, 16))):
        data[rng.randrange(128, min(2000, len(data)))] ^= 1 << rng.randrange(8)


def truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def cut_out(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 2, 100, 10_000))]


def swap_lengths(data: bytearray, rng: random.Random) -> None:
    """Exchange two 16-bit fields of the header, on even offsets, where lengths stand."""
    one, other = (2 * rng.randrange(64, min(1000, len(data) // 2)) for _ in range(2))
    data[one : one + 2], data[other : other + 2] = data[other : other + 2], data[one : one + 2]


def grow_length(data: bytearray, rng: random.Random) -> None:
    position = 2 * rng.randrange(66, min(1000, len(data) // 2))
    data[position : position + 4] = struct.pack("<I", rng.choice((0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, 0x80000000)))


def absurd_sizes(data: bytearray, rng: random.Random) -> None:
    for tag in (ROWS, COLUMNS, BITS):
        position = bytes(data).find(tag)
        if position >= 0 and rng.random() < 0.7:
            value = rng.choice((0, 1, 7, 33, 1000, 8000, 32767, 65535))
            data[position + 8 : position + 10] = struct.pack("<H", value)


MUTATIONS: list[Callable[[bytearray, random.Random], None]] = [
    flip_bits, flip_bits_of_header, truncate, cut_out, swap_lengths, grow_length, absurd_sizes,
]  # fmt: skip


def sources(site: Site) -> list[list[Path]]:
    """Files to damage, in groups of equal weight: phantoms, pydicom's own test files, real files where they are."""
    pydicoms = sorted((Path(pydicom.data.__file__).parent / "test_files").rglob("*.dcm"))
    real = [*sorted(SHARED.glob("rsna16/*/*.dcm")), *sorted(SHARED.glob("variants/*.dcm"))]
    phantoms = sorted(site.phantoms.images.glob("*.dcm"))[:40]
    groups = [[path for path in group if 200 < path.stat().st_size <= LARGEST_BYTES] for group in (phantoms, pydicoms)]
    return [*groups, real] if real else groups


def write_mutants(folder: Path, originals: list[list[Path]], numbers: range, seed: int) -> None:
    """Write damaged files and a table of them; the train split needs a sound image, so one comes first."""
    (folder / "images").mkdir(parents=True)
    shutil.copy(originals[0][0], folder / "images" / "sound.dcm")
    for number in numbers:
        rng = random.Random(f"{seed} {number}")
        data = bytearray(rng.choice(rng.choice(originals)).read_bytes())
        for mutate in rng.choices(MUTATIONS, k=rng.choice((1, 1, 2))):
            if len(data) > 200:
                mutate(data, rng)
        (folder / "images" / f"mutant-{number:05d}.dcm").write_bytes(data)
    names = [path.stem for path in sorted((folder / "images").iterdir())]
    pd.DataFrame({"patientId": names, "Target": [i % 2 for i in range(len(names))]}).to_csv(
        folder / "labels.csv", index=False
    )


def test_mutants(site: Site, mutants: int, campaign_seed: int, tmp_path: Path) -> None:
    originals = sources(site)
    for first in range(0, mutants, BATCH):
        folder = tmp_path / str(first)
        decode = DECODES[first // BATCH % len(DECODES)]
        numbers = range(first, min(first + BATCH, mutants))
        write_mutants(folder, originals, numbers, campaign_seed)
        config = ConvertConfig(
            keep_ids=True,
            images=folder / "images",
            labels=folder / "labels.csv",
            out=folder / "dataset",
            size=SIZE,
            val_fraction=0.0,
            workers=2,
            max_rejects=1.0,
            decode=decode,
        )

        manifest = convert(config).manifest

        index, rejects = (pd.read_csv(config.out / name) for name in ("index.csv", "rejects.csv"))
        stem = rejects["path"].str.removesuffix(".dcm")
        assert sorted([*index["image_id"], *stem]) == sorted(path.stem for path in config.images.iterdir())
        assert set(rejects["reason"]) <= set(REASONS) - {"crashed", "timeout"}, rejects[
            rejects["reason"].isin(["crashed", "timeout"])
        ]
        assert sum(manifest.rejects.values()) == len(rejects)
        for shard in manifest.shards:
            images = np.load(config.out / shard.name)
            assert images.shape == (shard.rows, SIZE, SIZE)
            assert images.min() >= 0.0, index.loc[shard.name == index["shard"], "image_id"]
            assert images.max() <= 1.0
            assert np.isfinite(images).all()
        shutil.rmtree(folder)


def test_mutants_straight_from_the_files(site: Site, mutants: int, campaign_seed: int, tmp_path: Path) -> None:
    """Each is rejected by its header, or is an image, that of the converted dataset, or is left out with a reason."""
    originals = sources(site)
    for first in range(0, mutants, BATCH):
        folder = tmp_path / str(first)
        write_mutants(folder, originals, range(first, min(first + BATCH, mutants)), campaign_seed + 1)
        datasets = {layout: open_mutants(folder, layout) for layout in ("source", "shards")}
        images, left_out = load_all(datasets["source"])
        stored, none = load_all(datasets["shards"])
        assert not none
        assert images.keys() == stored.keys()
        assert all(np.array_equal(images[name], stored[name]) for name in images)
        rejected = set(pd.read_csv(datasets["source"].path / "rejects.csv")["path"])
        names = {path.name for path in (folder / "images").iterdir()}
        assert {*(f"{name}.dcm" for name in images), *left_out, *rejected} == names
        assert len(images) + len(left_out) + len(rejected) == len(names)
        assert set(left_out.values()) <= set(REASONS) - {"crashed", "timeout", "not_readable", "changed"}
        shutil.rmtree(folder)


def open_mutants(folder: Path, layout: Layout) -> Dataset:
    options: dict[str, Any] = {"keep_ids": True, "size": SIZE, "val_fraction": 0.0, "workers": 2, "max_rejects": 1.0}
    images, labels = folder / "images", folder / "labels.csv"
    convert(ConvertConfig(images=images, labels=labels, out=folder / layout, layout=layout, **options))
    return Dataset.open(folder / layout)


def load_all(dataset: Dataset) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
    """Images in [0, 1] by their id, and why files were left out."""
    ids = dataset.rows("train")["image_id"].tolist()
    images: dict[str, NDArray[np.float32]] = {}
    config = LoadConfig(batch_size=32, order="shuffle")
    with Loader(dataset, "train", config, device=torch.device("cpu"), normalization=(0.0, 1.0)) as loader:
        for batch, _ in loader.epoch(0):
            images |= {ids[row]: image[0].numpy().copy() for row, image in zip(loader.rows, batch, strict=True)}
        return images, {reject["path"]: reject["reason"] for reject in loader.rejects}


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_mutation_changes_something(mutate: Callable[[bytearray, random.Random], None], site: Site) -> None:
    before = sources(site)[0][0].read_bytes()
    after = [bytearray(before) for _ in range(5)]
    for seed, data in enumerate(after):
        mutate(data, random.Random(seed))
    assert any(data != before for data in after)
