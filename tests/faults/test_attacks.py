"""Attacks drawn at random: none ends in a traceback, hangs, touches a file of somebody else's or loses a result."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from pneumo_fast.run.checkpoint import load_resumable, load_trained
from tests.faults.attacks import ATTACKS, RESUME
from tests.faults.interruptions import INTERRUPTIONS
from tests.faults.world import FOREIGN, RESULTS, World, make_world

pytestmark = pytest.mark.filterwarnings("ignore")  # a spoiled file may well be warned of


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def test_attack(world: World, attack: int, campaign_seed: int, tmp_path: Path) -> None:
    rng = random.Random(f"{campaign_seed} {attack}")
    spoiled = world.copy(tmp_path / "world")
    command = ATTACKS[attack % len(ATTACKS)](spoiled, rng)
    before = spoiled.contents(*(f"run/{pattern}" for pattern in RESULTS))

    ended = spoiled.run(*command)

    assert not ended.raised, ended.raised
    assert ended.code in {0, 1, 2}, ended
    if ended.code and command[0] != "verify":  # which lists all that it finds
        assert sum(line.startswith("error: ") for line in ended.err.splitlines()) == 1, ended.err
        assert spoiled.contents(*before) == before
    for path in (spoiled.folder / "other").glob("*.npy"):
        images = np.load(path).astype(np.float32) / (255 if "uint8" in command else 1)
        assert np.isfinite(images).all()
        assert 0.0 <= images.min() <= images.max() <= 1.0
    assert "\x1b" not in ended.out + ended.err
    assert_foreign_files_stand(spoiled)
    shutil.rmtree(spoiled.folder)


def test_interruption(world: World, interruption: int, campaign_seed: int, tmp_path: Path) -> None:
    rng = random.Random(f"{campaign_seed} {interruption}")
    upset = world.copy(tmp_path / "world")
    before = upset.contents(*(f"run/{pattern}" for pattern in RESULTS))

    command, ended = rng.choice(INTERRUPTIONS)(upset, rng)

    assert not ended.raised, ended.raised
    assert ended.code in {0, 1, 128 + signal.SIGTERM, -signal.SIGTERM, -signal.SIGKILL}, ended
    if ended.code == 1:
        assert sum(line.startswith("error: ") for line in ended.err.splitlines()) == 1, ended.err
    assert_results_stand(upset, before, command)
    again = upset.run(*command)
    assert (again.code, again.raised) == (0, ""), again
    assert_results_stand(upset, before, command)
    if (upset.folder / "other").exists():
        assert upset.run("verify", "other").code == 0
    left = [path.name for path in upset.folder.rglob(".*") if path.name.endswith((".partial", ".new", ".old", ".lock"))]
    assert not left
    assert_foreign_files_stand(upset)
    shutil.rmtree(upset.folder)


def assert_results_stand(upset: World, before: dict[str, str], command: tuple[str, ...]) -> None:
    """Every result has the bytes that it had, which are also those that the command writes; checkpoints are whole."""
    trained = {f"run/{name}" for name in ("best.pt", "last.pt", "history.jsonl")} if command == RESUME else set()
    names = before.keys() - trained
    assert upset.contents(*names) == {name: before[name] for name in names}
    load_trained(upset.folder / "run" / "best.pt")
    load_resumable(upset.folder / "run" / "last.pt")


def assert_foreign_files_stand(spoiled: World) -> None:
    assert [(spoiled.folder / name).read_text() for name in FOREIGN] == ["somebody's"] * len(FOREIGN)
