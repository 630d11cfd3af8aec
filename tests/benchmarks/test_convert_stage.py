"""The files that are converted."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.convert_stage import replicate
from pneumo_fast.errors import ConfigError
from pneumo_fast.phantoms.make import PhantomSet


@pytest.mark.parametrize("count", [3, 100])
def test_files_are_linked_under_new_ids_until_there_are_enough(
    phantoms: PhantomSet, tmp_path: Path, count: int
) -> None:
    made = replicate(phantoms.images, tmp_path / "made", count)
    originals = {path.read_bytes() for path in phantoms.images.iterdir()}
    assert len(set(made.paths)) == count
    assert all(Path(path).read_bytes() in originals for path in made.paths)
    assert len(made.labels.read_text().splitlines()) == count + 1
    assert ("replicated" in made.about["from"]) == (count > len(originals))


def test_radiographs_that_are_not_jpeg_baseline_are_refused(shared_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give JPEG Baseline files"):
        replicate(shared_data / "variants", tmp_path / "made", 1)
