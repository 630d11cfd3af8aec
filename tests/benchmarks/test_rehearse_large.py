"""The rehearsal with many images makes files that are all converted, each different, and measures every step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.rehearse_large import make
from pneumo_fast.conversion.convert import convert
from pneumo_fast.conversion.options import ConvertConfig
from tests.support.repository import ROOT


def test_every_file_is_an_image_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(Path("images"), Path("labels.csv"), 40)
    manifest = convert(
        ConvertConfig(
            images=Path("images"), labels=Path("labels.csv"), out=Path("dataset"), group_column="patient", size=16
        )
    ).manifest
    assert sum(shard.rows for shard in manifest.shards) == 40
    assert not manifest.rejects
    assert not any(manifest.duplicates.values())


@pytest.mark.slow
def test_every_step_is_measured(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks/rehearse_large.py"), "--images", "300", "--out", "out.json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment, cwd=tmp_path)
    steps = json.loads((tmp_path / "out.json").read_text())["steps"]
    assert list(steps) == ["convert", "plan", "verify", "train on 64 images"]
    assert all(step["seconds"] > 0 and step["peak_gigabytes"] > 0.05 for step in steps.values())
