"""The script of ``docs/export.md`` runs as it stands, without this package, and says what evaluate says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import pneumo_fast as pf
from tests.support.repository import DOCS
from tests.support.untrained_run import config, evaluated, make_dataset, make_run

SIZE = 32
OUTPUTS = ["logit", "probability", "calibrated_probability"]
Score = Callable[..., pd.DataFrame]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported run, beside its dataset."""
    folder = tmp_path_factory.mktemp("exported")
    run = make_run(folder / "run", make_dataset(folder / "dataset", size=SIZE))
    pf.evaluate(config(run))
    pf.export_model(pf.ExportConfig(runs=(run,)))
    return run


@pytest.fixture
def score(run: Path, tmp_path: Path) -> Score:
    """What the script prints about some files."""
    document = DOCS / "export.md"
    (script,) = re.findall(r"^```python\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)
    assert "pneumo_fast" not in script
    (tmp_path / "score.py").write_text(script)

    def call(*paths: Path) -> pd.DataFrame:
        command = [sys.executable, "-W", "error", tmp_path / "score.py", run / "model.onnx", *paths]
        ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
        assert ended.stderr.strip() == "Research software: not for clinical use."
        return pd.read_csv(StringIO(ended.stdout))

    return call


def test_stored_images(run: Path, score: Score) -> None:
    said = score(run.parent / "dataset" / "val-00000.npy")
    judged = pd.read_csv(evaluated(run) / "predictions.csv")
    assert said[OUTPUTS].to_numpy() == pytest.approx(judged[OUTPUTS].to_numpy(), abs=1e-5)


def test_stored_bytes_are_divided_by_255(score: Score, tmp_path: Path) -> None:
    image = np.random.default_rng(3).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
    np.save(tmp_path / "bytes.npy", image)
    np.save(tmp_path / "floats.npy", image.astype(np.float32) / 255)
    one, other = score(tmp_path / "bytes.npy", tmp_path / "floats.npy")[OUTPUTS].to_numpy()
    assert one == pytest.approx(other, abs=1e-6)


@pytest.mark.parametrize("shape", [(101, 77), (50, 120), (32, 40), (SIZE, SIZE)])
def test_a_picture_is_fitted_as_convert_does(score: Score, tmp_path: Path, shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(4).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    np.save(tmp_path / "fitted.npy", pf.read_radiograph(tmp_path / "a.png", SIZE).pixels)
    one, other = score(tmp_path / "a.png", tmp_path / "fitted.npy")[OUTPUTS].to_numpy()
    assert one == pytest.approx(other, abs=1e-5)
