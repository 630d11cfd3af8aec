"""What ``convert --resume`` refuses, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.fault_tools import Site, kill, wait_for


@pytest.fixture(scope="module")
def begun(site: Site) -> str:
    """Name of a folder with a conversion that was killed."""
    process = site.start("begun")
    wait_for(site.folder / "begun" / ".convert", "*-00000.json")
    kill(process.pid)
    process.communicate()
    return "begun"


@pytest.mark.parametrize("begun_or_finished", ["begun", "undisturbed-shards"])
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--seed", "7"], "seed"),
        (["--dtype", "uint8", "--window", "none"], "dtype, window"),
        (["--val-fraction", "0.3"], "val-fraction"),
        (["--layout", "folder"], "layout"),
        (["--view", "PA"], "view"),
    ],
)
@pytest.mark.usefixtures("undisturbed", "begun")
def test_other_arguments_are_refused_by_name(
    begun_or_finished: str, arguments: list[str], named: str, site: Site
) -> None:
    before = _state(site.folder / begun_or_finished)
    said = site.convert(begun_or_finished, *arguments, "--resume", expect=1)
    assert f"what differs: {named}. Resume" in said
    assert _state(site.folder / begun_or_finished) == before


@pytest.mark.usefixtures("undisturbed")
def test_other_files_are_refused(site: Site) -> None:
    newcomer = site.phantoms.images / "newcomer.dcm"
    victim = min(site.phantoms.images.iterdir())
    victim.rename(newcomer)
    try:
        said = site.convert("undisturbed-shards", "--resume", expect=1)
    finally:
        newcomer.rename(victim)
    assert "what differs: the image files, the tables or the hash key" in said


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize("layout", ["shards", "folder"])
def test_finished_dataset_is_left_alone(layout: str, site: Site) -> None:
    folder = site.folder / f"undisturbed-{layout}"
    before = _state(folder)
    site.convert(folder.name, "--layout", layout, "--resume")
    assert _state(folder) == before


def test_nothing_there_is_begun(site: Site, undisturbed: dict[str, dict[str, str]]) -> None:
    site.convert("new", "--resume")
    assert site.contents("new") == undisturbed["shards"]


@pytest.mark.parametrize("damage", ["remove", "cut", "garble the record"])
def test_finished_shard_that_is_no_longer_whole_is_made_again(
    damage: str, site: Site, undisturbed: dict[str, dict[str, str]]
) -> None:
    out = f"damaged-{damage}"
    process = site.start(out)
    record = site.folder / out / ".convert" / "train-00000.json"
    wait_for(record.parent, record.name)
    kill(process.pid)
    process.communicate()
    shard = site.folder / out / "train-00000.npy"
    if damage == "remove":
        shard.unlink()
    elif damage == "cut":
        shard.write_bytes(shard.read_bytes()[:-1])
    else:
        record.write_text("{")

    site.convert(out, "--resume")

    assert site.contents(out) == undisturbed["shards"]


def _state(folder: Path) -> dict[str, tuple[int, int]]:
    """Times and sizes of everything in a folder, and of itself."""
    paths = [folder, *folder.rglob("*")]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}
