"""Where NVIDIA DALI is not installed the CPU's engines serve, and asking for it says what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pneumo_fast.loading import loader
from pneumo_fast.loading.options import LoadConfig
from tests.support.untrained_run import make_dataset

HIDDEN = "import sys; sys.modules['nvidia.dali'] = None; from pneumo_fast.cli.app import main; main()"


def pneumo_fast(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process that cannot import DALI."""
    return subprocess.run(
        [sys.executable, "-c", HIDDEN, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize(
    ("device", "installed", "engine"), [("cpu", False, "fused"), ("cuda", True, "dali"), ("cuda", False, "fused")]
)
def test_auto_takes_dali_only_where_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, device: str, installed: bool, engine: str
) -> None:
    feed: Any = SimpleNamespace(device=torch.device(device))
    monkeypatch.setattr(loader, "device_memory", lambda _: (0, 0))
    monkeypatch.setattr(loader, "split_bytes", lambda _: 1)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object() if installed else None)
    assert loader._choose(LoadConfig(batch_size=2), feed) == engine
    assert ("DALI is not installed: batches are made on the CPU" in caplog.text) == (
        (device, installed) == ("cuda", False)
    )


def test_every_command_works_without_it(tmp_path: Path) -> None:
    make_dataset(tmp_path / "dataset")
    options = ("--device", "cpu", "--resamples", "100")
    for arguments in (
        ("train", "--epochs", "1", "--batch-size", "2", "--device", "cpu"), ("evaluate", *options),
        ("explain", "--count", "1", *options), ("report",),
    ):  # fmt: skip
        ended = pneumo_fast(tmp_path, *arguments)
        assert ended.returncode == 0, ended.stderr
    ended = pneumo_fast(tmp_path, "train", "--out", "other", "--loader", "dali", "--batch-size", "2")
    assert ended.returncode == 1
    assert "install the package nvidia-dali-cuda120" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "other").exists()
