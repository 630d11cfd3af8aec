"""Cores and memory that this process may use: the machine's, or less within a container or a batch job (cgroups)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
PROC: Final = Path("/proc")


def usable_cores() -> int:
    """Cores that this process may keep busy: by its affinity, and by the quota of its control groups."""
    cores = len(os.sched_getaffinity(0))
    for group in _control_groups("cpu"):
        limit = _words(group / "cpu.max")
        limit = limit or _words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us")
        if len(limit) == 2 and limit[0] not in {"max", "-1"}:  # quota and period, in microseconds
            cores = min(cores, max(1, math.ceil(int(limit[0]) / int(limit[1]))))
    return cores


def usable_memory() -> tuple[int, int]:
    """Bytes that are free, and bytes in all; the page cache counts as free, for it makes room where it is asked to."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = 1024 * _table(PROC / "meminfo").get("MemAvailable:", whole // 1024)
    for group in _control_groups("memory"):
        limit = _words(group / "memory.max") or _words(group / "memory.limit_in_bytes")
        used = _words(group / "memory.current") or _words(group / "memory.usage_in_bytes")
        if limit and used and limit[0] != "max":
            table = _table(group / "memory.stat")
            cached = sum(table.get(f"total_{name}", table.get(name, 0)) for name in ("active_file", "inactive_file"))
            whole = min(whole, int(limit[0]))
            free = min(free, max(0, int(limit[0]) - int(used[0]) + cached))
    return free, whole


def _control_groups(controller: str) -> Iterator[Path]:
    """Folders of this process's control groups (cgroups(7), version 1 or 2), each before the one that it lies in.

    A container may see the name that its group has outside; then the root of what it sees is its group.
    """
    for line in _lines(PROC / "self/cgroup"):
        _, controllers, name = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            root = CGROUPS / controllers if controllers else CGROUPS
            group = root / name.lstrip("/")
            yield from (each for each in (group, *group.parents) if each.is_relative_to(root))


def _table(path: Path) -> dict[str, int]:
    """A file of lines with a name and a number, as ``memory.stat``."""
    return {words[0]: int(words[1]) for words in map(str.split, _lines(path)) if words[1:] and words[1].isdigit()}


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: Path) -> list[str]:
    """The lines of a file of the kernel; none where this kernel or this group has no such file."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
