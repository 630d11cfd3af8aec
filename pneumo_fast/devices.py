"""Which device to run on, and which AMP data type pays there."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from pneumo_fast.errors import DeviceError


def resolve_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` into a device that is there.

    ``auto`` is the first GPU where there is one, else the CPU.

    Raises
    ------
    DeviceError
        If the name is no such device, or the GPU it names is not there.
    """
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"no device is called {name!r}: use auto, cpu, cuda or cuda:N") from error
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type != "cuda":
        raise DeviceError(f"device {name!r} is not supported: use auto, cpu, cuda or cuda:N")
    index, count = device.index or 0, torch.cuda.device_count()
    if index >= count:
        raise DeviceError(f"device {name!r} is asked for, but {count} GPUs are visible: use --device cpu or auto")
    return torch.device("cuda", index)


def has_native_bfloat16(device: torch.device) -> bool:
    """Say whether the device multiplies bfloat16 in hardware; emulated, it is ten times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(_cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"})


def _cpu_flags() -> set[str]:
    """Instruction set flags as Linux lists them; empty where it does not."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return set(flags[1].split()) if flags else set()
