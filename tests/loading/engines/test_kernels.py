"""Compiled kernels are kept on disk; a cache that is damaged or cannot be written costs a warning, never an image."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba", reason="the extra fast is not installed")

PROGRAM = """
import json, sys
import numpy as np
from pneumo_fast.loading.engines.kernels import load

found = {}
for bits, dtype in ((16, np.float16), (8, np.uint8)):
    images = np.arange(3 * 40).reshape(3, 40).astype(dtype)
    out = np.empty((2, 40), np.float32)
    kernels = load(bits)
    kernels.gather(images.view(f"uint{bits}"), np.array([2, 0]), out, np.float32(1), np.float32(0.5))
    assert (out == (images[[2, 0]].astype(np.float32) - 1) * 0.5).all(), out
    found[bits] = [sum(each.stats.cache_hits.values()) for each in kernels]
print(json.dumps(found))
"""
Run = Callable[[], tuple[dict[str, list[int]], str]]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def run(cache: Path) -> Run:
    """Loads and uses the kernels in a new process.

    It gives cache hits of (stream, gather, read) by type, and what was said.
    """

    def run() -> tuple[dict[str, list[int]], str]:
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
        )
        found: dict[str, list[int]] = json.loads(done.stdout)
        return found, done.stderr

    return run


def test_are_compiled_once(run: Run) -> None:
    assert run() == ({"16": [0, 0, 0], "8": [0, 0, 0]}, "")
    assert run() == ({"16": [1, 1, 1], "8": [1, 1, 1]}, "")


def damage(content: bytes, how: str) -> bytes:
    return {"empty": b"", "cut": content[: len(content) // 2], "garbage": np.random.default_rng(0).bytes(500)}[how]


@pytest.mark.parametrize(("ending", "how"), [("nbi", "empty"), ("nbi", "cut"), ("nbi", "garbage"), ("nbc", "cut")])
def test_a_damaged_cache_is_not_used(run: Run, cache: Path, ending: str, how: str) -> None:
    run()
    for path in cache.rglob(f"*.{ending}"):
        path.write_bytes(damage(path.read_bytes(), how))
    found, said = run()
    assert not any(map(any, found.values()))
    assert "compiled kernels cannot be kept on disk or read from there" in said


def test_where_nothing_can_be_written_kernels_are_compiled_at_every_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kernels = pytest.importorskip("pneumo_fast.loading.engines.kernels")
    monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])
    out = np.empty((1, 16), np.float32)
    kernels.load.__wrapped__(8).gather(np.ones((1, 16), np.uint8), np.array([0]), out, np.float32(0), np.float32(1))
    assert (out == 1).all()
    assert len(caplog.records) == 1
    assert "set NUMBA_CACHE_DIR" in caplog.messages[0]
