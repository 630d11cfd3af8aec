"""Attacks drawn at random: none ends in a traceback, hangs, touches a file of somebody else's or loses a result."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.faults.attacks import ATTACKS
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
    assert [(spoiled.folder / name).read_text() for name in FOREIGN] == ["somebody's"] * len(FOREIGN)
    shutil.rmtree(spoiled.folder)
