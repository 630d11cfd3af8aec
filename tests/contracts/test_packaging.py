"""Every file of the package is in its distributions."""

from __future__ import annotations

import re
from pathlib import Path

import pneumo_fast

PACKAGE = Path(pneumo_fast.__file__).parent


def test_every_file_of_the_package_is_packaged() -> None:
    section = (PACKAGE.parent / "pyproject.toml").read_text().split("[tool.setuptools.package-data]")[1].split("\n[")[0]
    data = {
        path
        for package, names in re.findall(r'(?m)^"?([\w.]+)"? = \[(.*)\]$', section)
        for name in re.findall(r'"(.*?)"', names)
        for path in (PACKAGE.parent / package.replace(".", "/")).glob(name)
    }
    others = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}
    assert others == data
