"""The house: which package may import which, how high it is, and how large its rooms are."""

from __future__ import annotations

import ast
from functools import lru_cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support.repository import ROOT

PACKAGE = ROOT / "pneumo_fast"
GROUND = (
    "configuration", "devices", "errors", "extras", "files", "folder_kinds", "folders", "formatting", "progress",
    "quiet", "records", "resources", "signals", "vocabulary",
)  # fmt: skip
PACKAGES = (
    "metrics", "radiograph", "dataset", "run", "phantoms", "drawing", "conversion", "loading", "training", "evaluation",
    "explanation", "dicom_out", "pacs", "prediction", "serving", "export", "reporting", "doctor", "cli",
)  # fmt: skip
"""From the lowest to the highest: each imports only those before it, and the modules of the ground."""
FLOORS = 10


@lru_cache
def imports(folder: Path) -> dict[str, set[str]]:
    """The modules of ours that each module below a folder imports, wherever the import stands in it."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in folder.rglob("*.py")}
    found: dict[str, set[str]] = {}
    for module, path in modules.items():
        found[module] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = {f"{node.module}.{alias.name}" for alias in node.names} & modules.keys()
                found[module] |= names or {node.module} & modules.keys()
    return found


def package_of(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def package_imports() -> dict[str, set[str]]:
    """The packages that each package imports."""
    found: dict[str, set[str]] = {name: set() for name in PACKAGES}
    for module, imported in imports(PACKAGE).items():
        if (package := package_of(module)) in PACKAGES:
            found[package] |= {package_of(other) for other in imported} - {package, *GROUND, "pneumo_fast"}
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_packages_below_it(package: str) -> None:
    assert package_imports()[package] <= set(PACKAGES[: PACKAGES.index(package)])


def test_the_ground_imports_nothing_above_it() -> None:
    for module, imported in imports(PACKAGE).items():
        if package_of(module) in GROUND:
            assert {package_of(other) for other in imported} <= {*GROUND, "pneumo_fast"}, module


def test_every_module_has_its_place() -> None:
    assert {package_of(module) for module in imports(PACKAGE)} <= {*GROUND, *PACKAGES, "__init__", "__main__"}


@pytest.mark.parametrize("folder", ["pneumo_fast", "benchmarks"])
def test_no_module_imports_itself_by_way_of_others(folder: str) -> None:
    assert list(TopologicalSorter(imports(ROOT / folder)).static_order())


@pytest.mark.parametrize("folder", ["pneumo_fast", "benchmarks", "tests"])
def test_nothing_private_is_imported(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                private = [alias.name for alias in node.names if alias.name.startswith("_") and alias.name[:2] != "__"]
                assert not private, path


def test_floors() -> None:
    floor: dict[str, int] = {}
    below = package_imports()
    for package in TopologicalSorter(below).static_order():
        floor[package] = 1 + max((floor[other] for other in below[package]), default=1)  # the ground is the first
    assert max(floor.values()) <= FLOORS, floor


def test_a_package_is_one_docstring_and_at_most_15_modules_of_at_most_320_lines() -> None:
    for start in PACKAGE.rglob("*/__init__.py"):
        (only,) = ast.parse(start.read_text()).body
        assert isinstance(only, ast.Expr), start
        modules = [path for path in start.parent.glob("*.py") if path != start]
        assert len(modules) <= 15, start.parent
        assert all(path.read_text().count("\n") <= 320 for path in modules), start.parent
