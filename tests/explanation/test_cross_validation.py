"""Explaining a cross-validation: each image by the model of its own fold."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from pneumo_fast.errors import ConfigError
from pneumo_fast.evaluation.inference import open_run
from pneumo_fast.explanation.explain import explain
from pneumo_fast.explanation.maps import Maps
from pneumo_fast.explanation.options import ExplainConfig
from tests.support.folds import make_folds
from tests.support.untrained_run import make_dataset


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folds")
    return make_folds(folder / "run", make_dataset(folder / "dataset"))


def maps_of(run: Path, batch_size: int) -> dict[str, np.ndarray]:
    """The map of each image of the validation split."""
    config = ExplainConfig(run=run, device="cpu", layer="layer1", batch_size=batch_size)
    judged = open_run(run, None, "cpu")
    rows = judged.rows("val")
    with closing(Maps(judged, rows, config)) as maps:
        everything = [
            (int(row), m) for batch, found in maps(np.arange(len(rows))) for row, m in zip(batch, found, strict=True)
        ]
    assert [row for row, _ in everything] == list(range(len(rows)))
    return {rows["image_id"][row]: m for row, m in everything}


@pytest.mark.parametrize("batch_size", [4, 64])
def test_a_map_is_that_of_the_images_own_fold(run: Path, batch_size: int) -> None:
    pooled = maps_of(run, batch_size)
    alone = [maps_of(run / f"fold-{fold}", 64) for fold in (1, 2, 3)]
    assert sum(map(len, alone)) == len(pooled) == 15
    for maps in alone:
        for image_id, expected in maps.items():
            assert pooled[image_id] == pytest.approx(expected, abs=1e-5)
    assert all(m.max() > 0 for m in pooled.values())


def test_what_is_written(run: Path) -> None:
    found = explain(ExplainConfig(run=run, device="cpu", resamples=100, count=1))
    assert len(found.run.folds) == 3
    assert (run / "explain" / "explain.json").exists()
    assert not (run / "fold-1" / "explain").exists()


def test_another_split_is_for_one_fold_which_is_named_for_a_shell(run: Path, tmp_path: Path) -> None:
    named = tmp_path / "ö x"
    named.symlink_to(run)
    with pytest.raises(ConfigError, match=r"of its own images, split 'val': .* for instance '[^']*/ö x/fold-1'$"):
        explain(ExplainConfig(run=named, device="cpu", split="test"))
