"""The machine as a whole, and how it is shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pneumo_fast import __version__
from pneumo_fast.cli.machine import show_machine
from pneumo_fast.doctor import machine as machine_module
from pneumo_fast.doctor.machine import Machine, examine_machine
from pneumo_fast.resources import usable_cores

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def machine() -> Machine:
    return examine_machine()


def test_what_is_there(machine: Machine) -> None:
    assert machine.pneumo_fast == __version__
    assert machine.cores == usable_cores()
    assert machine.memory_bytes is not None
    assert machine.free_memory_bytes is not None
    assert 0 < machine.free_memory_bytes <= machine.memory_bytes
    assert machine.device == ("cuda:0" if machine.gpus else "cpu")
    assert [part.name for part in machine.parts[:2]] == ["PyTorch", "GPU"]


def test_torch_that_cannot_be_imported_hides_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(machine_module, "examine_extras", list)
    found = examine_machine()
    assert (found.device, found.memory_bytes, found.gpus) == (None, None, ())
    assert found.decoders
    assert [part.name for part in found.parts] == ["PyTorch"]
    assert found.parts[0].fault


def test_doctor_gives_json_without_paths(run_cli: Run, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module, "examine_machine", lambda: machine)
    ended = run_cli("doctor", "--json", "-q")
    found = json.loads(ended.out)
    assert (ended.code, ended.err) == (0, "")
    assert found["decoders"][0]["plugins"] == ["pydicom"]
    assert found["parts"][0]["versions"]["torch"]
    for folder in (Path.home(), Path.cwd(), sys.prefix):
        assert str(folder) not in ended.out


def test_missing_parts_are_no_error_and_fit_80_columns(
    run_cli: Run, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = tuple(
        replace(part, versions=dict.fromkeys(part.versions), fault=None, cost="slow " * 9, remedy="pip install x")
        for part in machine.parts
    )
    decoders = tuple(replace(known, plugins=[]) for known in machine.decoders)
    monkeypatch.setattr(
        machine_module, "examine_machine", lambda: replace(machine, parts=lost, decoders=decoders, device=None)
    )
    monkeypatch.setenv("COLUMNS", "80")
    ended = run_cli("doctor")
    assert ended.code == 0
    assert all(len(line) <= 80 for line in ended.out.splitlines())
    assert ended.out.count("    pip install x\n") == len(lost)
    assert ended.out.count("none: such files are rejected") == len(decoders)


def test_a_fault_stands_in_the_place_of_versions(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    broken = replace(machine.parts[0], fault="no such symbol", cost="nothing runs", remedy="pip install torch")
    show_machine(replace(machine, parts=(broken,), memory_bytes=None, free_memory_bytes=None))
    text = capsys.readouterr().out
    assert "does not work: no such symbol" in text
    assert "memory unknown" in text
