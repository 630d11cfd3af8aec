"""Files that take their worker process down, or never let go of it, are rejected; nothing else is lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from tests.faults.fault_tools import Site, poisonous

POISONS = {"segfault": "crashed", "allocate": "crashed", "sleep": "timeout", "spin": "timeout"}


class Poisoned(NamedTuple):
    """What became of a conversion with files among the others that kill their worker."""

    out: Path
    poison: dict[str, str]
    reads: Counter[str]


@pytest.fixture(scope="module")
def poisoned(site: Site) -> Poisoned:
    """Two files of each kind, all of which meet in one shard or another of 40."""
    images = sorted(path.stem for path in site.phantoms.images.iterdir())
    poison = dict(zip(images[::20], [*POISONS, *POISONS], strict=True))
    log = site.folder / "reads.log"
    hooked = replace(
        site,
        arguments=("--size", "32", "--shard-size", "40", "--workers", "2", "--timeout-s", "1", "--max-rejects", "8"),
        environment=poisonous(poison, log),
    )
    hooked.convert("poisoned")
    hooked.assert_clean("poisoned")
    return Poisoned(site.folder / "poisoned", poison, Counter(log.read_text().split()))


def test_poison_is_rejected_with_its_reason(poisoned: Poisoned) -> None:
    rejects = pd.read_csv(poisoned.out / "rejects.csv")
    found = dict(zip(rejects["path"], rejects["reason"], strict=True))
    assert found == {f"{image}.dcm": POISONS[kind] for image, kind in poisoned.poison.items()}


def test_everything_else_is_converted(poisoned: Poisoned, site: Site) -> None:
    stored = set(pd.read_csv(poisoned.out / "index.csv")["image_id"])
    assert stored == {path.stem for path in site.phantoms.images.iterdir()} - set(poisoned.poison)


def test_poison_is_read_twice_at_most(poisoned: Poisoned) -> None:
    assert {poisoned.reads[image] for image in poisoned.poison} == {2}


def test_message_of_the_crash_names_the_signal(poisoned: Poisoned) -> None:
    details = pd.read_csv(poisoned.out / "rejects.csv").groupby("reason")["detail"].unique()
    assert "the decoder crashed (SIGSEGV)" in details["crashed"]
    assert list(details["timeout"]) == ["reading took longer than 1 s"]
