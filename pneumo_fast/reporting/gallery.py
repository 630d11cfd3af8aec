"""The heat maps of a report, drawn anew within a budget of bytes, and what is known of each."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image

from pneumo_fast.explanation.results import KINDS, Drawn
from pneumo_fast.files import open_regular
from pneumo_fast.formatting import number

BUDGET_BYTES: Final = 3_000_000
"""Room for images in a report, which becomes a third more in base64; the whole stays below 5 MB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A heat map, as it comes into the page, and what ``explain.json`` says of it."""

    entry: Drawn
    jpeg: bytes
    width: int
    height: int

    @property
    def base64(self) -> str:
        """The image as text."""
        return base64.b64encode(self.jpeg).decode()

    @property
    def kind(self) -> str:
        """What became of it, in words."""
        return KINDS.get(self.entry.kind, self.entry.kind)

    @property
    def probability_and_label(self) -> str:
        """Probability and label, in words."""
        label = "positive" if self.entry.label else "negative"
        return f"probability {number(self.entry.probability)}, labelled {label}"

    @property
    def brightest_place(self) -> str:
        """Where the map is brightest, in words; empty without boxes."""
        if self.entry.hit is None:
            return ""
        energy = self.entry.energy_share
        share = "" if energy is None else f"; {100 * energy:.0f} % of the heat in boxes"
        return f"brightest place {'in' if self.entry.hit else 'outside'} the boxes{share}"


def load_pictures(folder: Path, entries: Sequence[Drawn]) -> tuple[list[Picture], int]:
    """Heat maps within :data:`BUDGET_BYTES`, and how many had to be left out.

    The first of each kind come first, so that no kind is left out for the sake of another; the order given is kept.
    """
    turn: Counter[str] = Counter()
    order = []
    for place, entry in enumerate(entries):
        turn[entry.kind] += 1
        order.append((turn[entry.kind], place))
    found: dict[int, Picture] = {}
    room = BUDGET_BYTES
    for _, place in sorted(order):
        if picture := _read_picture(folder, entries[place]):
            room -= len(picture.jpeg)
            if room < 0:
                break
            found[place] = picture
    return [found[place] for place in sorted(found)], len(entries) - len(found)


def _read_picture(folder: Path, entry: Drawn) -> Picture | None:
    """An image free of what else its file holds; None where it is none."""
    if Path(entry.file).name != entry.file:  # only files of this folder come into the report
        return None
    try:
        with open_regular(folder / entry.file) as file, Image.open(file, formats=["PNG"]) as opened:
            picture = opened.convert("RGB")
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ):  # Pillow's, for damaged files and no images
        return None
    picture.thumbnail((600, 600))  # as large as explain draws them
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=85, optimize=True)
    return Picture(entry=entry, jpeg=buffer.getvalue(), width=picture.width, height=picture.height)
