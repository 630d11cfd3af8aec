"""Parts of an installation: which are there, and of those that are not, what that costs and what brings them."""

from __future__ import annotations

import platform
import warnings
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final

from pneumo_fast.extras import DALI, EXTRAS, Extra, installed_dali, version_of

TORCH: Final = Extra(
    "PyTorch", {"torch": "torch", "torchvision": "torchvision"}, "train, evaluate, explain and show do not run"
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A part of an installation."""

    name: str
    versions: dict[str, str | None]
    """By package; None where it is not installed."""
    fault: str | None = None
    """Why what is installed does not work."""
    cost: str | None = None
    """What is lost; None where nothing is missing."""
    remedy: str | None = None
    """What brings it, a command where there is one; None where nothing is missing."""


def examine(extra: Extra) -> Part:
    """Import what an extra brings."""
    versions = {package: version_of(package) for package in extra.modules}
    installed = [module for package, module in extra.modules.items() if versions[package]]
    fault = next(filter(None, map(fault_of, installed)), None)
    if len(installed) == len(versions) and not fault:
        return Part(name=extra.name, versions=versions)
    remedy = extra.command.replace("install", "install --force-reinstall", 1) if fault else extra.command
    return Part(name=extra.name, versions=versions, fault=fault, cost=extra.without, remedy=remedy)


def examine_extras() -> list[Part]:
    """Import every optional part that exists for this processor."""
    others = [extra for extra in EXTRAS if extra is not DALI]
    return [examine(extra) for extra in ([installed_dali()] if platform.machine() == "x86_64" else []) + others]


def fault_of(module: str) -> str | None:
    """Why a module cannot be imported, in a line without the user's home folder; None where it can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import_module(module)
    except (ImportError, OSError) as error:  # OSError: a shared library that ctypes does not find
        text = " ".join(str(error).split())
        with suppress(RuntimeError):  # a user without a home folder, as in some containers
            text = text.replace(str(Path.home()), "~")
        return text
    return None
