"""GPUs and their driver, with stand-ins for PyTorch's answers."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pneumo_fast.doctor import gpus
from pneumo_fast.doctor.gpus import driver_version, find_gpus


@pytest.fixture(autouse=True)
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that tells the driver's version."""
    monkeypatch.setattr(gpus, "DRIVER", tmp_path / "version")
    return tmp_path / "version"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12\nGCC version: 12.3.0", "535.183.01"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build", "570.86.15"),
        ("something else", None),
    ],
)
def test_driver_version(driver: Path, text: str, version: str | None) -> None:
    driver.write_text(text)
    assert driver_version() == version


def test_no_gpu_and_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    found, part = find_gpus()
    assert found == ()
    assert (part.versions, part.fault) == ({"NVIDIA driver": None}, None)
    assert part.cost == "training and evaluation run on the CPU"
    assert part.remedy == "an NVIDIA GPU with a driver for CUDA 13.2; nvidia-smi shows both"


def test_a_driver_that_is_too_old_is_the_fault(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn() -> bool:
        warnings.warn("CUDA initialization: The NVIDIA driver\non your system is too old", stacklevel=1)
        return False

    driver.write_text("Kernel Module  450.1.2  x")
    monkeypatch.setattr(torch.cuda, "is_available", warn)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    part = find_gpus()[1]
    assert part.fault == "CUDA initialization: The NVIDIA driver on your system is too old"
    assert part.remedy is not None
    assert part.remedy.startswith("a driver for CUDA 13.2")


def test_a_build_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built without CUDA" in str(find_gpus()[1].remedy)


def test_gpus_with_and_without_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def memory(device: torch.device) -> tuple[int, int]:
        if device.index:
            raise RuntimeError("all CUDA-capable devices are busy")
        return 3, 8

    known = SimpleNamespace(name="X1", major=9, minor=0, total_memory=8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _number: known)
    monkeypatch.setattr(gpus, "device_memory", memory)
    found, part = find_gpus()
    assert [(gpu.name, gpu.compute_capability, gpu.free_memory_bytes) for gpu in found] == [
        ("X1", "9.0", 3), ("X1", "9.0", None),
    ]  # fmt: skip
    assert (part.cost, part.remedy) == (None, None)
