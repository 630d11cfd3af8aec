"""Which parts are there, and what brings the others."""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pneumo_fast import extras
from pneumo_fast.doctor import parts
from pneumo_fast.doctor.parts import TORCH, examine, examine_extras, fault_of
from pneumo_fast.extras import DALI, EXTRAS, Extra, installed_dali, version_of
from tests.support.repository import ROOT

PROJECT = (ROOT / "pyproject.toml").read_text()


def test_a_part_that_is_there_needs_nothing() -> None:
    part = examine(Extra("some", {"numpy": "numpy"}, "no numbers"))
    assert part.versions["numpy"]
    assert (part.fault, part.cost, part.remedy) == (None, None, None)


def test_a_missing_package_says_what_it_costs_and_what_brings_it() -> None:
    part = examine(Extra("some", {"numpy": "numpy", "no-such-package": "no_such_module"}, "no numbers"))
    assert part.versions["no-such-package"] is None
    assert (part.fault, part.cost, part.remedy) == (None, "no numbers", "pip install numpy no-such-package")


@pytest.mark.parametrize("raised", ["ImportError", "OSError"])
def test_a_package_that_cannot_be_imported_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: str
) -> None:
    (tmp_path / "broken_here.py").write_text(f"raise {raised}('{Path.home()}/libx.so:\\n  no such symbol')")
    monkeypatch.syspath_prepend(tmp_path)
    part = examine(Extra("some", {"numpy": "broken_here"}, "no numbers"))
    assert part.fault == "~/libx.so: no such symbol"
    assert part.remedy == "pip install --force-reinstall numpy"


def test_the_fault_is_told_without_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError

    (tmp_path / "broken_there.py").write_text("raise ImportError('no such symbol')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(Path, "home", no_home)
    assert fault_of("broken_there") == "no such symbol"


def test_a_module_that_warns_is_not_at_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "warns_here.py").write_text("import warnings\nwarnings.warn('old', DeprecationWarning)")
    monkeypatch.syspath_prepend(tmp_path)
    assert fault_of("warns_here") is None


@pytest.mark.parametrize("extra", EXTRAS, ids=lambda extra: extra.name)
def test_an_extra_is_what_the_project_declares(extra: Extra) -> None:
    name = re.escape("dependencies" if extra is DALI else extra.name)
    (block,) = re.findall(rf"(?ms)^{name} = \[(.*?)\](?: #[^\n]*)?$", PROJECT)
    declared = {Requirement(text).name for text in re.findall(r'"(.*?)"', block)}
    assert set(extra.modules) <= declared if extra is DALI else set(extra.modules) == declared


@pytest.mark.parametrize(
    ("installed", "named"),
    [
        (["nvidia-dali-cuda130"], "nvidia-dali-cuda130"),
        (["nvidia-dali-cuda120"], "nvidia-dali-cuda120"),
        ([], "nvidia-dali-cuda120"),
    ],
)
def test_dali_is_called_by_the_package_that_is_installed(
    monkeypatch: pytest.MonkeyPatch, installed: list[str], named: str
) -> None:
    monkeypatch.setattr(extras, "version_of", lambda package: "2.4.0" if package in installed else None)
    assert installed_dali().command == f"pip install {named}"


def test_every_part_of_the_processor_is_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "fault_of", lambda _module: None)
    for machine, left in (("x86_64", []), ("aarch64", ["DALI"])):
        monkeypatch.setattr(platform, "machine", lambda machine=machine: machine)
        found = [part.name for part in examine_extras()]
        assert [extra.name for extra in EXTRAS if extra.name not in found] == left


def test_torch_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    part = examine(TORCH)
    assert part.fault
    assert part.cost
    assert version_of("torch") == part.versions["torch"]
