"""Conversions on a Dask cluster: a real scheduler and two workers, as processes of this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
import pytest

from tests.faults.fault_tools import MARK, Site, kill, make_site, poisonous, wait_for

pytest.importorskip("distributed", reason="the extra dask is not installed")

BROKEN, POISON = "zz-broken", "zz-poison"
Process = subprocess.Popen[bytes]


class Cluster:
    """A scheduler and its workers, whose worker processes find a file in the site that kills them."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.reads = site.folder / "reads.log"
        site.folder.mkdir(exist_ok=True)
        self._contact = site.folder / "scheduler.json"
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        wait_for(site.folder, self._contact.name)
        while not self._contact.stat().st_size:  # the scheduler opens it first and then writes
            time.sleep(0.02)
        self.address = json.loads(self._contact.read_text())["address"]
        self.workers = [self.start_worker(), self.start_worker()]

    def start_worker(self) -> Process:
        return self._start("worker", "--nthreads", "1", "--no-nanny", "--no-dashboard")

    def _start(self, role: str, *arguments: str) -> Process:
        environment = {MARK: str(self.site.folder), **poisonous({POISON: "segfault"}, self.reads)}
        contact = ("--scheduler-file", str(self._contact))
        with (self.site.folder / f"{role}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{role}", *contact, *arguments],
                env=os.environ | environment,
                stdout=log,
                stderr=log,
            )

    def stop(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Phantoms, one broken file and one that kills the cluster's workers."""
    site = make_site(tmp_path_factory.mktemp("dask"), 160)
    with site.phantoms.labels.open("a") as table:
        for name in (BROKEN, POISON):
            (site.phantoms.images / f"{name}.dcm").write_bytes(b"no radiograph")
            table.write(f"{name},,,,,0\n")
    return replace(site, arguments=("--size", "64", "--shard-size", "4", "--max-rejects", "2"))


@pytest.fixture(scope="module")
def local(site: Site) -> dict[str, str]:
    """What a conversion on this machine alone writes; the poison is none to it but for the reason."""
    log = site.folder / "local.log"
    replace(site, environment=poisonous({POISON: "segfault"}, log)).convert("local")
    return site.contents("local")


@pytest.fixture(scope="module")
def cluster(site: Site) -> Iterator[Cluster]:
    cluster = Cluster(site)
    yield cluster
    cluster.stop()
    assert not site.processes()


def test_cluster_writes_the_same_bytes(site: Site, local: dict[str, str], cluster: Cluster) -> None:
    said = site.convert("remote", "--scheduler", cluster.address)

    assert site.contents("remote") == local
    assert "162/162" in said  # the progress bar
    rejects = pd.read_csv(site.folder / "remote" / "rejects.csv", index_col="path")["reason"]
    assert rejects.to_dict() == {f"{BROKEN}.dcm": "not_dicom", f"{POISON}.dcm": "crashed"}
    assert Counter(cluster.reads.read_text().split())[POISON] == 2
    _assert_no_worker_left(site)


@pytest.mark.slow
def test_interrupted_client_stops_the_cluster(site: Site, local: dict[str, str], cluster: Cluster) -> None:
    process = site.start("interrupted", "--scheduler", cluster.address)
    wait_for(site.folder / "interrupted" / ".convert", "*-0*.json")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)

    assert process.returncode == 130
    site.assert_clean("interrupted")
    site.convert("interrupted", "--scheduler", cluster.address, "--resume")
    assert site.contents("interrupted") == local


def test_killed_dask_worker_costs_nothing(site: Site, local: dict[str, str], cluster: Cluster) -> None:
    process = site.start("shot", "--scheduler", cluster.address)
    wait_for(site.folder / "shot" / ".convert", "*-0*.json")
    victim = cluster.workers.pop(0)
    victim.kill()
    victim.wait()
    cluster.workers.append(cluster.start_worker())

    text = "".join(process.communicate(timeout=120))

    assert process.returncode == 0, text
    assert site.contents("shot") == local
    _assert_no_worker_left(site)


@pytest.mark.slow
def test_killed_client_resumes(site: Site, local: dict[str, str], cluster: Cluster) -> None:
    process = site.start("killed", "--scheduler", cluster.address)
    wait_for(site.folder / "killed" / ".convert", "*-0*.json")
    kill(process.pid)
    process.communicate()

    site.convert("killed", "--scheduler", cluster.address, "--resume")

    assert site.contents("killed") == local


def test_nothing_answers(site: Site) -> None:
    said = site.convert("nowhere", "--scheduler", "tcp://127.0.0.1:9", expect=1)
    assert "error: no Dask scheduler answers at tcp://127.0.0.1:9" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_lost_scheduler_is_told(site: Site) -> None:
    lost = Cluster(replace(site, folder=site.folder / "lost"))
    process = site.start("orphan", "--scheduler", lost.address)
    wait_for(site.folder / "orphan" / ".convert", "*-0*.json")
    lost.stop()

    text = "".join(process.communicate(timeout=120))

    assert process.returncode == 1
    last = text.strip().splitlines()[-1]  # after what Dask itself logs
    assert last.startswith("error: the Dask cluster at tcp://127.0.0.1:")
    assert last.endswith("then resume with --resume")


def _assert_no_worker_left(site: Site) -> None:
    """The cluster is idle, not stopped: only its own processes are left."""
    deadline = time.monotonic() + 2.0
    while site.workers():
        assert time.monotonic() < deadline
        time.sleep(0.02)
