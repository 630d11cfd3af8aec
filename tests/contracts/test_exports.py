"""The public API: its one table of names, what type checkers see, and what ``docs/python.md`` lists."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from importlib import import_module

import pytest

import pneumo_fast as pf
from tests.support.repository import DOCS, ROOT

LIGHT = sorted(name for name in pf.__all__ if name.endswith(("Config", "Error")))


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((ROOT / "pneumo_fast" / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {
        (node.module, alias.name, alias.asname)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {(module, name, name) for name, module in pf._MODULE_OF.items()}


@pytest.mark.parametrize("name", pf.__all__)
def test_a_name_is_what_its_module_defines_and_says_what_it_is(name: str) -> None:
    value = getattr(pf, name)
    assert value is getattr(import_module(value.__module__), value.__name__)
    assert value.__module__ == pf._MODULE_OF[name]
    text = inspect.getdoc(value) or ""
    assert text.splitlines()[0].endswith((".", ";"))
    assert not text.startswith(f"{name}(")  # what a dataclass without a docstring gets


def test_the_document_lists_every_name() -> None:
    text = (DOCS / "python.md").read_text().split("\n## Every name\n", 1)[1]
    cells = [line for line in text.splitlines() if line.startswith("|")]
    assert sorted(re.findall(r"`([^`]+)`", "".join(cells))) == sorted(pf.__all__)


def test_dir_lists_every_name() -> None:
    assert set(pf.__all__) <= set(dir(pf))


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'pneumo_fast' has no attribute 'nothing'"):
        _ = pf.nothing  # type: ignore[attr-defined]


def test_options_and_errors_load_neither_numpy_nor_torch() -> None:
    code = (
        "import sys, pneumo_fast as pf\n"
        f"for name in {LIGHT}: getattr(pf, name)\n"
        "print(*{'numpy', 'pandas', 'torch', 'typer'} & sys.modules.keys())"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []
