"""The references that conversion is compared with."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import JPEGBaseline8Bit

from benchmarks.rivals import bilinear, chosen_plugin, run_rivals
from pneumo_fast.phantoms.make import PhantomSet

PLUGINS = get_decoder(JPEGBaseline8Bit).available_plugins


def test_the_reference_resize_looks_at_two_neighbours_in_each_direction() -> None:
    ramp = np.arange(8, dtype=np.float32)[None, :].repeat(8, axis=0)
    np.testing.assert_allclose(bilinear(ramp, 4)[0], [0.5, 2.5, 4.5, 6.5])
    spike = np.zeros((8, 8), np.float32)
    spike[0, 0] = 1.0
    assert bilinear(spike, 2).sum() == 0.0  # it aliases: the spike is between the positions it looks at


def test_the_reference_writes_one_small_file_for_each_image(phantoms: PhantomSet, tmp_path: Path) -> None:
    paths = sorted(map(str, phantoms.images.iterdir()))[:5]
    assert run_rivals(["reference", str(tmp_path), "32", "pillow"], paths, 2, dict(os.environ)) > 0
    stored = [np.load(tmp_path / f"{Path(path).stem}.npy") for path in paths]
    assert {(image.shape, image.dtype.name) for image in stored} == {((32, 32), "float16")}
    assert 0 <= np.min(stored) < np.max(stored) <= 1


def test_a_process_that_fails_stops_the_measurement(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="'ready'"):
        run_rivals(["decode"], [str(tmp_path / "none.dcm")], 1, dict(os.environ))


def test_pydicom_chooses_one_of_its_plugins(phantoms: PhantomSet) -> None:
    assert chosen_plugin(next(phantoms.images.iterdir())) in PLUGINS
