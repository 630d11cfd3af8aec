"""The examples of ``docs/python.md`` run, in order, and give what stands beside them."""

from __future__ import annotations

import math
import re
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
import pytest
import torch

import pneumo_fast as pf
from tests.support.repository import DOCS

pytestmark = pytest.mark.usefixtures("one_thread")

DOCUMENT = DOCS / "python.md"


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the names of the examples stand for once all have run."""
    folder = tmp_path_factory.mktemp("examples")
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    (folder / "examples.py").write_text("\n".join(blocks))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return run_path("examples.py")


def test_dataset(names: dict[str, Any]) -> None:
    assert names["summary"].images == len(names["dataset"].index) == 40
    assert names["problems"] == []
    assert sum(names["counts"]["train"].values()) == len(names["dataset"].rows("train"))
    assert names["patients"].sum() == names["dataset"].index["group"].nunique()  # no patient in two splits
    size, dtype, mean, std = names["stored"]
    assert (size, dtype) == (32, np.float16)
    assert 0 < std < 1 > mean > 0


def test_radiograph(names: dict[str, Any]) -> None:
    pixels = names["pixels"]
    assert (pixels.shape, pixels.dtype) == ((224, 224), np.float32)
    assert 0 <= pixels.min() < pixels.max() <= 1


def test_training_loop(names: dict[str, Any]) -> None:
    images, labels = names["images"], names["labels"]
    assert images.shape[1:] == (1, 32, 32)
    assert images.dtype == labels.dtype == torch.float32
    assert labels.shape == images.shape[:1]
    assert math.isfinite(names["loss"].item())


def test_run(names: dict[str, Any]) -> None:
    probabilities = names["probabilities"]
    assert (probabilities.shape, probabilities.dtype) == ((len(names["dataset"].rows("val")),), np.float64)
    assert 0 <= names["auroc"].low <= names["auroc"].value <= names["auroc"].high <= 1
    assert names["explanation"].images
    assert names["page"] == Path("run") / "report.html"
    assert names["scored"] == len(names["predicted"]) == 40
    assert names["predicted"]["probability"].between(0, 1).all()
    assert names["exported"].path == Path("run") / "model.pt2"
    assert names["comparison"].n == len(probabilities)
    assert names["best"](names["images"]).shape == (len(names["images"]), 1)


def test_errors(names: dict[str, Any]) -> None:
    assert names["message"] == (
        "dataset elsewhere does not exist: name a dataset folder, or run pneumo-fast convert first"
    )
    assert names["exit_code"] == pf.PneumoError.exit_code == 1
