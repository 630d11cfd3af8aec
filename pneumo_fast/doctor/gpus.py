"""The GPUs that PyTorch sees."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from pneumo_fast.devices import device_memory
from pneumo_fast.doctor.parts import Part

DRIVER: Final = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """A GPU that PyTorch sees."""

    name: str
    compute_capability: str
    memory_bytes: int
    free_memory_bytes: int | None
    """None where the GPU does not tell, as where another process has it for itself."""


def find_gpus() -> tuple[tuple[Gpu, ...], Part]:
    """The GPUs, and their driver as a part of the installation."""
    with warnings.catch_warnings(record=True) as caught:  # that the driver is too old is said in a warning
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        gpus = tuple(map(_describe, range(count)))
    versions = {"NVIDIA driver": driver_version()}
    if gpus:
        return gpus, Part(name="GPU", versions=versions)
    return (), Part(
        name="GPU",
        versions=versions,
        fault=" ".join(str(caught[0].message).split()) if caught else None,
        cost="training and evaluation run on the CPU",
        remedy=_remedy(has_driver=versions["NVIDIA driver"] is not None),
    )


def driver_version() -> str | None:
    """Version of NVIDIA's driver; None where none is loaded."""
    try:
        found = re.search(r"Module.*?\s(\d+\.[\d.]+)", DRIVER.read_text())
    except OSError:
        return None
    return found[1] if found else None


def _describe(number: int) -> Gpu:
    known = torch.cuda.get_device_properties(number)
    try:
        free: int | None = device_memory(torch.device("cuda", number))[0]
    except RuntimeError:
        free = None
    return Gpu(
        name=known.name,
        compute_capability=f"{known.major}.{known.minor}",
        memory_bytes=known.total_memory,
        free_memory_bytes=free,
    )


def _remedy(*, has_driver: bool) -> str:
    if torch.version.cuda is None:
        return "this PyTorch is built without CUDA: choose another build on https://pytorch.org"
    if not has_driver:
        return f"an NVIDIA GPU with a driver for CUDA {torch.version.cuda}; nvidia-smi shows both"
    return (
        f"a driver for CUDA {torch.version.cuda}, which nvidia-smi shows beside its GPUs; CUDA_VISIBLE_DEVICES can "
        "hide them"
    )
