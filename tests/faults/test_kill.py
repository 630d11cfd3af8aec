"""``kill -9`` at random moments costs nothing: resumed, a conversion ends with the dataset it would have written."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.fault_tools import GONE_S, Site, kill

SHARED_MEMORY = str(Path("/dev", "shm"))
VICTIMS = ("parent", "worker", "all")
LAYOUTS = ("shards", "folder")
LONGEST_S = 1.8  # about as long as the conversion takes; where it is over sooner, the moment is moved forward


def test_kill_at_random_moment(
    moment: int, campaign_seed: int, site: Site, undisturbed: dict[str, dict[str, str]]
) -> None:
    rng = random.Random(f"{campaign_seed} {moment}")
    victim, layout = VICTIMS[moment % 3], LAYOUTS[moment // 3 % 2]
    out = f"killed-{moment}"

    process = _kill(site, out, layout, victim, rng)

    text = "".join(process.communicate(timeout=60))
    if victim == "worker":
        assert process.returncode == 0, text
    else:
        _assert_no_worker_after(site, time.monotonic() + GONE_S)
        site.convert(out, "--layout", layout, "--resume")
    site.assert_clean(out)
    assert site.contents(out) == undisturbed[layout]
    shutil.rmtree(site.folder / out)


def _kill(site: Site, out: str, layout: str, victim: str, rng: random.Random) -> subprocess.Popen[str]:
    """Start a conversion and kill who is to be killed at a random moment before its end."""
    longest = LONGEST_S
    while True:
        process = site.start(out, "--layout", layout)
        time.sleep(rng.uniform(0.2, longest))
        while victim == "worker" and not site.workers() and process.poll() is None:
            time.sleep(0.005)
        workers = site.workers()
        if process.poll() is None and (workers or victim != "worker"):
            assert not _maps_shared_memory(process.pid, *workers)
            chosen = {"parent": [process.pid], "worker": [rng.choice(workers or [0])], "all": [process.pid, *workers]}
            for victim_pid in chosen[victim]:
                kill(victim_pid)
            return process
        process.communicate()
        shutil.rmtree(site.folder / out)
        longest = max(longest / 2, 0.3)


def _assert_no_worker_after(site: Site, deadline: float) -> None:
    while workers := site.workers():
        assert time.monotonic() < deadline, f"workers left behind: {workers}"
        time.sleep(0.01)


def _maps_shared_memory(*processes: int) -> bool:
    """Whether any process has a file of /dev/shm mapped, which would outlive it."""
    maps = []
    for process in processes:
        try:
            maps.append(Path(f"/proc/{process}/maps").read_text())
        except OSError:  # it has just ended
            continue
    return any(SHARED_MEMORY in text for text in maps)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_interrupted_resume_is_resumed(layout: str, site: Site, undisturbed: dict[str, dict[str, str]]) -> None:
    out = f"twice-{layout}"
    for delay_s in (0.8, 0.9):
        process = site.start(out, "--layout", layout, "--resume")
        time.sleep(delay_s)
        os.killpg(process.pid, 9)
        process.communicate()

    site.convert(out, "--layout", layout, "--resume")

    assert site.contents(out) == undisturbed[layout]
