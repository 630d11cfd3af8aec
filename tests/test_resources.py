"""What a process may use, by control groups as a container, a batch job or neither has them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pneumo_fast import devices, resources
from pneumo_fast.devices import resolve_device
from pneumo_fast.resources import usable_cores, usable_memory

MEMINFO = "MemTotal:       16000000 kB\nMemAvailable:   8000000 kB\n"
Kernel = Callable[[dict[str, str]], None]


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """A machine of eight cores with these files below ``/proc`` and ``/sys/fs/cgroup``."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(resources, "PROC", tmp_path / "proc")
    monkeypatch.setattr(resources, "CGROUPS", tmp_path / "cgroup")

    def write(files: dict[str, str]) -> None:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    return write


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        pytest.param({}, 8, id="no control groups"),
        pytest.param({"proc/self/cgroup": "0::/\n"}, 8, id="the root of version 2, which has no limits"),
        pytest.param({"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "max 100000\n"}, 8, id="no quota"),
        pytest.param({"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "250000 100000\n"}, 3, id="two and a half cores"),
        pytest.param({"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "10000 100000\n"}, 1, id="a tenth of a core"),
        pytest.param({"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "1600000 100000\n"}, 8, id="more than there are"),
        pytest.param(
            {"proc/self/cgroup": "0::/job/step\n", "cgroup/job/cpu.max": "200000 100000\n",
             "cgroup/job/step/cpu.max": "max 100000\n"}, 2, id="the quota of the group around it",
        ),
        pytest.param(
            {"proc/self/cgroup": "3:cpu,cpuacct:/docker/7\n1:name=systemd:/\n", "cgroup/cpu,cpuacct/cpu.cfs_quota_us":
             "400000\n", "cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 4, id="version 1, named as outside",
        ),
        pytest.param(
            {"proc/self/cgroup": "3:cpu:/\n", "cgroup/cpu/cpu.cfs_quota_us": "-1\n",
             "cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 8, id="version 1, no quota",
        ),
    ],
)  # fmt: skip
def test_cores_are_those_of_the_narrowest_quota(kernel: Kernel, files: dict[str, str], cores: int) -> None:
    kernel(files)
    assert usable_cores() == cores


@pytest.mark.parametrize(
    ("files", "free", "whole"),
    [
        pytest.param({"proc/self/cgroup": "0::/\n"}, 8_192_000_000, None, id="the machine's"),
        pytest.param(
            {"proc/self/cgroup": "0::/job\n", "cgroup/job/memory.max": "4000\n", "cgroup/job/memory.current": "3000\n",
             "cgroup/job/memory.stat": "file 9000\nactive_file 500\ninactive_file 200\n"}, 1700, 4000, id="version 2",
        ),
        pytest.param(
            {"proc/self/cgroup": "4:memory:/x\n", "cgroup/memory/memory.limit_in_bytes": "4000\n",
             "cgroup/memory/memory.usage_in_bytes": "3900\n", "cgroup/memory/memory.stat":
             "active_file 7\ninactive_file 7\ntotal_active_file 300\ntotal_inactive_file 0\n"}, 400, 4000,
            id="version 1",
        ),
        pytest.param(
            {"proc/self/cgroup": "4:memory:/\n", "cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
             "cgroup/memory/memory.usage_in_bytes": "3900\n"}, 8_192_000_000, None, id="version 1, no limit",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/\n", "cgroup/memory.max": "4000\n", "cgroup/memory.current": "5000\n"}, 0, 4000,
            id="more is used than is allowed",
        ),
    ],
)  # fmt: skip
def test_memory_is_that_of_the_narrowest_limit(
    kernel: Kernel, files: dict[str, str], free: int, whole: int | None
) -> None:
    kernel({"proc/meminfo": MEMINFO} | files)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert usable_memory() == (free, whole or machine)


def test_on_a_cpu_pytorch_takes_no_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    try:
        for cores, taken in ((threads + 1, threads), (1, 1)):
            monkeypatch.setattr(devices, "usable_cores", lambda cores=cores: cores)
            resolve_device("cpu")
            assert torch.get_num_threads() == taken
    finally:
        torch.set_num_threads(threads)
