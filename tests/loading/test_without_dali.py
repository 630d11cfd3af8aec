"""Where NVIDIA DALI is not installed the CPU's engines serve, and asking for it says what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pneumo_fast.extras import DALI
from pneumo_fast.loading import choose
from pneumo_fast.loading.options import LoadConfig
from tests.support.untrained_run import make_dataset

HIDDEN = """
import json, sys
sys.modules["nvidia.dali"] = None
from pneumo_fast.cli.app import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["pneumo-fast", *arguments]
    try:
        main()
    except SystemExit as end:
        print("ended with", end.code or 0, flush=True)
"""


def type_all(folder: Path, *lines: str) -> subprocess.CompletedProcess[str]:
    """Command lines, one after the other in a process that cannot import DALI."""
    words = json.dumps([line.split() for line in lines])
    return subprocess.run(
        [sys.executable, "-c", HIDDEN, words], cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.parametrize(
    ("device", "installed", "engine"), [("cpu", False, "fused"), ("cuda", True, "dali"), ("cuda", False, "fused")]
)
def test_auto_takes_dali_only_where_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, device: str, installed: bool, engine: str
) -> None:
    feed: Any = SimpleNamespace(device=torch.device(device), reader=None)
    monkeypatch.setattr(choose, "device_memory", lambda _: (0, 0))
    monkeypatch.setattr(choose, "split_bytes", lambda _: 1)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object() if installed else None)
    assert choose.choose_engine(LoadConfig(batch_size=2), feed) == engine
    assert ("DALI is not installed: batches are made on the CPU" in caplog.text) == (
        (device, installed) == ("cuda", False)
    )


def test_every_command_works_without_it(tmp_path: Path) -> None:
    make_dataset(tmp_path / "dataset")
    ended = type_all(
        tmp_path,
        "train --epochs 1 --batch-size 2 --device cpu",
        "evaluate --device cpu --resamples 100",
        "explain --device cpu --resamples 100 --count 1",
        "report",
        "train --out other --loader dali --batch-size 2",
    )
    codes = [line for line in ended.stdout.splitlines() if line.startswith("ended with")]
    assert codes == ["ended with 0"] * 4 + ["ended with 1"], ended.stderr
    assert DALI.command in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "other").exists()
