"""How worker processes share the cores."""

from __future__ import annotations

from typing import Final

NICENESS: Final = 10
"""Of workers that share the cores with the model: its threads wait for one another, so that one that is kept from its
core keeps them all."""
