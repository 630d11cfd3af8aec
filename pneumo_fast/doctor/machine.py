"""What this machine has, and what is missing."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo_fast import __version__
from pneumo_fast.doctor.nodes import Answer
from pneumo_fast.doctor.parts import TORCH, Part, examine, examine_extras, fault_of
from pneumo_fast.radiograph.pixels import Decoders, installed_decoders
from pneumo_fast.resources import usable_cores

if TYPE_CHECKING:
    from pneumo_fast.doctor.gpus import Gpu


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What was found; None where only PyTorch could tell, and it cannot be imported."""

    pneumo_fast: str
    """Version."""
    python: str
    system: str
    cores: int
    """Those that this process may use."""
    memory_bytes: int | None
    free_memory_bytes: int | None
    free_disk_bytes: int
    """Where the command runs."""
    cuda: str | None
    """Version that PyTorch is built for; None for a build without CUDA."""
    device: str | None
    """What ``--device auto`` takes."""
    gpus: tuple[Gpu, ...]
    decoders: tuple[Decoders, ...]
    """Those of each transfer syntax; files of any other are rejected."""
    parts: tuple[Part, ...]
    """PyTorch, the GPU's driver and the optional parts."""
    nodes: tuple[Answer, ...] = ()
    """What the DICOM nodes answered that were asked."""

    @property
    def exit_code(self) -> int:
        """1 if a node did not answer as it should."""
        return int(any(answer.fault for answer in self.nodes))


def examine_machine() -> Machine:
    """Look at this machine and at what is installed; changes nothing."""
    cuda = device = free = whole = None
    gpus: tuple[Gpu, ...] = ()
    parts = [examine(TORCH)]
    if not fault_of("torch"):
        import torch  # noqa: PLC0415  # only where it can be imported

        from pneumo_fast.devices import device_memory, resolve_device  # noqa: PLC0415  # imports torch
        from pneumo_fast.doctor.gpus import find_gpus  # noqa: PLC0415  # imports torch

        gpus, driver = find_gpus()
        parts.append(driver)
        cuda, device = torch.version.cuda, str(resolve_device("auto"))
        free, whole = device_memory(torch.device("cpu"))
    return Machine(
        pneumo_fast=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        cores=usable_cores(),
        memory_bytes=whole,
        free_memory_bytes=free,
        free_disk_bytes=shutil.disk_usage(Path()).free,
        cuda=cuda,
        device=device,
        gpus=gpus,
        decoders=tuple(installed_decoders()),
        parts=(*parts, *examine_extras()),
    )
