"""Small folders of noise to convert, and what became of them, read by nothing but NumPy and pandas."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from pneumo_fast.conversion.convert import ConvertSummary, convert
from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.phantoms.dicom_file import write_dicom

SIZE = 32
DTYPES = pytest.mark.parametrize("dtype", ["float16", "uint8"])
LAYOUTS = pytest.mark.parametrize("layout", ["shards", "folder"])


def contents(folder: Path) -> dict[str, str]:
    """Every file and folder below a folder, hidden ones too, with the checksum of its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


def write_input(folder: Path, *, images: int = 12, shapes: Sequence[tuple[int, int]] = [(48, 64)]) -> ConvertConfig:
    """Noise of 8 bits, every third image positive, in a folder with its table; a configuration to convert it."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(images)
    for number in range(images):
        pixels = rng.integers(0, 256, shapes[number % len(shapes)], dtype=np.uint8)
        write_dicom(folder / "images" / f"i{number}.dcm", pixels, PatientAge="051Y", PatientSex="F")
    rows = "".join(f"i{number},{int(number % 3 == 0)}\n" for number in range(images))
    (folder / "labels.csv").write_text("patientId,Target\n" + rows)
    return ConvertConfig(
        keep_ids=True,
        images=folder / "images",
        labels=folder / "labels.csv",
        out=folder / "dataset",
        size=SIZE,
        val_fraction=0.25,
        workers=1,
    )


def run(config: ConvertConfig, **changes: Any) -> ConvertSummary:
    return convert(replace(config, **changes))


def rejects(folder: Path) -> list[tuple[str, str]]:
    table = pd.read_csv(folder / "rejects.csv", keep_default_na=False)
    assert table["detail"].str.len().gt(0).all()
    assert table["path"].is_monotonic_increasing
    return list(zip(table["path"], table["reason"], strict=True))


def stored_images(path: Path) -> dict[str, NDArray[np.float64]]:
    """Pixels in [0, 1] by image id, read by nothing but NumPy and pandas."""
    scale = json.loads((path / "manifest.json").read_text())["scale"]
    index = pd.read_csv(path / "index.csv", dtype={"image_id": str})
    files = {name: np.load(path / name) for name in index["shard"].unique()}
    return {
        row["image_id"]: np.asarray(files[row["shard"]].reshape(-1, SIZE, SIZE)[row["row"]], dtype=np.float64) / scale
        for row in index.to_dict("records")
    }
