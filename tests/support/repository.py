"""Where the repository's files are, and what its documents name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SHARED = ROOT.parent / "shared" / "data"
"""Real radiographs and the complete tables, which are no part of the project: not on every machine."""


def documented(*documents: str) -> set[str]:
    """The keys and columns that some documents name."""
    return {name for document in documents for name in re.findall(r"`([a-z_0-9.]+)`", (DOCS / document).read_text())}


def keys_of(value: Any) -> set[str]:
    """Every key of nested JSON."""
    if isinstance(value, dict):
        return set(value).union(*map(keys_of, value.values()))
    return set().union(*map(keys_of, value)) if isinstance(value, list) else set()
