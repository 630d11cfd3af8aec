"""Which device and which data type: a table of what is asked for and what is there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pneumo_fast import devices
from pneumo_fast.devices import cpu_gains_from_bfloat16, resolve_amp, resolve_device
from pneumo_fast.errors import ConfigError, DeviceError

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
Pretend = Callable[[int], None]


@pytest.fixture
def pretend_gpus(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """Make torch say that there are so many GPUs."""

    def pretend(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


@pytest.mark.parametrize(
    ("name", "gpus", "expected"),
    [
        ("auto", 0, CPU),
        ("auto", 2, GPU),
        ("cpu", 0, CPU),
        ("cpu", 2, CPU),
        ("cpu:0", 0, CPU),
        ("cuda", 1, GPU),
        ("cuda:1", 2, torch.device("cuda", 1)),
    ],
)
def test_devices_that_are_there(pretend_gpus: Pretend, name: str, gpus: int, expected: torch.device) -> None:
    pretend_gpus(gpus)
    assert resolve_device(name) == expected


@pytest.mark.parametrize(
    ("name", "gpus", "message"),
    [
        ("cuda", 0, "device 'cuda' is asked for, but 0 GPUs are visible: use --device cpu or auto"),
        ("cuda:1", 1, "device 'cuda:1' is asked for, but 1 GPUs are visible"),
        ("gpu", 1, "no device is called 'gpu': use auto, cpu, cuda or cuda:N"),
        ("", 1, "no device is called ''"),
        ("cuda:-1", 1, "no device is called 'cuda:-1'"),
        ("cuda:x", 1, "no device is called 'cuda:x'"),
        ("meta", 1, "device 'meta' is not supported"),
        ("mps", 1, "device 'mps' is not supported"),
    ],
)
def test_devices_that_are_not_there(pretend_gpus: Pretend, name: str, gpus: int, message: str) -> None:
    pretend_gpus(gpus)
    with pytest.raises(DeviceError) as error:
        resolve_device(name)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("device", "gains", "amp", "dtype", "expected"),
    [
        (CPU, True, False, None, None),
        (GPU, True, False, None, None),
        (CPU, True, True, None, torch.bfloat16),
        (CPU, False, True, None, None),
        (CPU, True, True, "bfloat16", torch.bfloat16),
        (CPU, False, True, "bfloat16", torch.bfloat16),
        (GPU, True, True, None, torch.float16),
        (GPU, True, True, "float16", torch.float16),
        (GPU, True, True, "bfloat16", torch.bfloat16),
    ],
)
def test_data_types_of_mixed_precision(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    device: torch.device,
    gains: bool,
    amp: bool,
    dtype: str | None,
    expected: torch.dtype | None,
) -> None:
    monkeypatch.setattr(devices, "cpu_gains_from_bfloat16", lambda: gains)
    with caplog.at_level(logging.INFO):
        assert resolve_amp(device, amp=amp, dtype=dtype) == expected
    falls_back = amp and expected is None
    assert [record.levelname for record in caplog.records] == ["WARNING"] * falls_back
    if falls_back:
        assert "no faster on this CPU: training in float32 (--amp-dtype bfloat16 insists)" in caplog.text


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("device", [CPU, GPU], ids=["cpu", "gpu"])
def test_a_data_type_without_amp(device: torch.device, dtype: str) -> None:
    with pytest.raises(ConfigError, match=f"amp-dtype {dtype} is given without amp: add --amp"):
        resolve_amp(device, amp=False, dtype=dtype)


def test_float16_on_a_cpu() -> None:
    with pytest.raises(ConfigError, match="amp-dtype float16 needs a GPU"):
        resolve_amp(CPU, amp=True, dtype="float16")


@pytest.mark.parametrize(
    ("cpuinfo", "gains"),
    [
        ("processor : 0\nflags : fpu amx_bf16\n\nprocessor : 1\n", True),
        ("flags\t\t: fpu sse avx512f avx512_bf16 avx512vl\n", False),
        ("Features\t: fp asimd bf16 sve\n", False),
        ("model name : amx_bf16 edition\nflags : fpu\n", False),
        ("", False),
        (None, False),
    ],
)
def test_bfloat16_is_read_off_the_cpu_s_flags(
    monkeypatch: pytest.MonkeyPatch, cpuinfo: str | None, gains: bool
) -> None:
    def read_text(path: Path) -> str:
        assert str(path) == "/proc/cpuinfo"
        if cpuinfo is None:
            raise FileNotFoundError(path)
        return cpuinfo

    monkeypatch.setattr(Path, "read_text", read_text)
    assert cpu_gains_from_bfloat16() is gains
