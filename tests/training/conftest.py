"""Data that tests of training share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.make_dataset import make_dataset


@pytest.fixture(scope="session")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """21 training images of 32 pixels with boxes and three classes. Not to be changed."""
    path = tmp_path_factory.mktemp("data") / "painted"
    make_dataset(path, size=32, findings=True)
    return path
