"""A run that scores phantoms, and options to serve it with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.phantoms.make import PhantomSet
from pneumo_fast.run.model_input import ModelInput
from pneumo_fast.serving.options import ServeConfig
from pneumo_fast.vocabulary import Dtype
from tests.support.serving import SENDER
from tests.support.untrained_run import change, make_run

Options = Callable[..., ServeConfig]


@pytest.fixture(scope="session")
def run(convert_phantoms: Callable[[Dtype], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the phantoms, not trained; not to be changed."""
    folder = convert_phantoms("float16")
    made = make_run(tmp_path_factory.mktemp("served") / "run", folder)
    dataset = Dataset.open(folder)
    change(made, mean=dataset.mean, std=dataset.std, input=ModelInput.of(dataset))
    return made


@pytest.fixture(scope="session")
def phantom(phantoms: PhantomSet) -> Path:
    """A radiograph of 64 x 64 pixels."""
    return min(phantoms.images.iterdir())


@pytest.fixture(scope="session")
def make_options(run: Path) -> Options:
    """Makes options for a server that writes below a folder."""

    def make(folder: Path, **values: Any) -> ServeConfig:
        fixed: dict[str, Any] = {"runs": (run,), "allow": (SENDER,), "port": 0, "device": "cpu", "workers": 1}
        fixed |= {"spool": folder / "spool"} | ({} if "forward" in values else {"dicom_out": folder / "results"})
        return ServeConfig(**fixed | values)

    return make
