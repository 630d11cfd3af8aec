"""Which device to run on, and which AMP data type pays there."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import torch

from pneumo_fast.errors import ConfigError, DeviceError
from pneumo_fast.resources import usable_cores, usable_memory

logger = logging.getLogger(__name__)


def resolve_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` into a device that is there.

    ``auto`` is the first GPU where there is one, else the CPU. For a CPU, PyTorch's threads are limited to the cores
    that this process may use: threads beyond a container's quota only wait for each other.

    Raises
    ------
    DeviceError
        If the name is no such device, or the GPU it names is not there.
    """
    if name == "auto":
        name = "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"no device is called {name!r}: use auto, cpu, cuda or cuda:N") from error
    if device.type == "cpu":
        torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
        return torch.device("cpu")
    if device.type != "cuda":
        raise DeviceError(f"device {name!r} is not supported: use auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count()
    current = torch.cuda.current_device() if torch.cuda.is_initialized() else 0  # type: ignore[no-untyped-call]
    index = device.index if ":" in name else current
    if index >= count:
        raise DeviceError(f"device {name!r} is asked for, but {count} GPUs are visible: use --device cpu or auto")
    return torch.device("cuda", index)


def cpu_gains_from_bfloat16() -> bool:
    """Say whether this CPU multiplies matrices of bfloat16 (AMX).

    With the vector instructions alone (AVX-512) a training step takes 1.2 to 1.6 times as long as in float32
    (``docs/experiments.md``), and with neither ten times.
    """
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:  # elsewhere than on Linux
        return False
    return re.search(r"^flags\s*:.*\bamx_bf16\b", text, re.MULTILINE) is not None


def resolve_amp(device: torch.device, *, amp: bool, dtype: str | None) -> torch.dtype | None:
    """Choose the data type of mixed precision; None means plain float32.

    Unless ``dtype`` names one: float16 on a GPU; on a CPU bfloat16 where that is faster, else float32.

    Raises
    ------
    ConfigError
        If ``dtype`` is given without ``amp``, or is float16 on a CPU, where no gradient scaling protects it.
    """
    if dtype is not None and not amp:
        raise ConfigError(f"amp-dtype {dtype} is given without amp: add --amp")
    if not amp:
        return None
    if device.type == "cuda":
        return torch.bfloat16 if dtype == "bfloat16" else torch.float16
    if dtype == "float16":
        raise ConfigError("amp-dtype float16 needs a GPU: use bfloat16, or omit --amp-dtype")
    if dtype == "bfloat16" or cpu_gains_from_bfloat16():
        return torch.bfloat16
    logger.warning("bfloat16 is no faster on this CPU: training in float32 (--amp-dtype bfloat16 insists)")
    return None


def device_memory(device: torch.device) -> tuple[int, int]:
    """Bytes that are free, and bytes in all."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)
    return usable_memory()


def too_large(batch_size: int, device: torch.device) -> str:
    """What is said where a batch takes more memory than there is."""
    return f"batches of {batch_size} do not fit into the memory of {device}: use a smaller --batch-size"
