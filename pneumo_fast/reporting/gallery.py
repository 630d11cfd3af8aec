"""The part of a report that shows where the model looked: heat maps by kind, and how often they are in a box."""

from __future__ import annotations

import base64
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image

from pneumo_fast.formatting import number
from pneumo_fast.reporting.markup import Html, bullets, estimate, join, paragraph, table, tag, text
from pneumo_fast.reporting.sources import Json, RunFiles
from pneumo_fast.reporting.words import HEAT
from pneumo_fast.run.layout import EXPLAIN
from pneumo_fast.vocabulary import counted

KINDS: Final = {"TP": "true positive", "FP": "false positive", "FN": "false negative", "TN": "true negative"}
PLAIN: Final = {"TP": "found", "FP": "false alarms", "FN": "missed", "TN": "rightly negative"}
METHODS: Final = {"gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++", "hirescam": "HiResCAM"}
BUDGET_BYTES: Final = 3_000_000
"""Room for images in a report, which becomes a third more in base64; the whole stays below 5 MB."""
SIDE_PX: Final = 600
"""Longest side of an image in the report: as explain draws them."""
_BAD_IMAGE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for files that are damaged, or no images."""


def gallery_section(files: RunFiles) -> Html:
    """Heat maps with buttons that choose among them, and what was counted over all images."""
    explanation = files.explanation
    if explanation is None:
        return join(paragraph(sentence, "missing") for sentence in files.remarks_about("explanation"))
    pictures, dropped = load_pictures(files.run / EXPLAIN, explanation["images"])
    parts = [paragraph(_intro(explanation)), _counted(explanation)]
    if pictures:
        parts += [_buttons(pictures), tag("div", *map(_figure, pictures), class_="gallery")]
    else:
        parts.append(paragraph("No heat map could be shown.", "missing"))
    if dropped:
        left_out = f"{counted(dropped, 'heat map')} could not be read, or had no room here"
        parts.append(paragraph(f"{left_out}: see the folder {EXPLAIN}.", "missing"))
    return join(parts)


def _intro(explanation: Json) -> str:
    height, width = explanation["map_size"]
    return HEAT.format(
        method=METHODS.get(explanation["method"], explanation["method"]),
        layer=explanation["layer"],
        height=height,
        width=width,
        split=explanation["split"],
        threshold=f"{explanation['threshold']:g}",
    )


def _counted(explanation: Json) -> Html:
    """How often the brightest place is in a box, beside places that need no model."""
    boxes, randomised = explanation["boxes"], explanation["randomised"]
    parts = []
    if boxes:
        found = {
            "Brightest place is in a box (pointing game)": boxes["hit_rate"],
            "The same for a random place": boxes["hit_rate_random_point"],
            "The same for the middle of the image": boxes["hit_rate_centre_point"],
            "The same with random weights": randomised["hit_rate"],
            "Share of the heat that is in boxes": boxes["energy_share"],
            "Share of the image that is in boxes": boxes["box_area_share"],
        }
        rows = [[text(name), estimate(e)] for name, e in found.items() if e is not None]
        parts.append(table(f"Heat and boxes, on {counted(boxes['images'], 'image')} with boxes", ("", "Share"), rows))
    else:
        parts.append(paragraph("The images have no boxes that heat could be compared with.", "missing"))
    parts.append(paragraph(f"Sanity check. {randomised['text']}"))
    return join([*parts, bullets(explanation["notes"]) if explanation["notes"] else Html("")])


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A heat map, as it comes into the page."""

    entry: Json
    """What ``explain.json`` says of it."""
    jpeg: bytes
    width: int
    height: int


def load_pictures(folder: Path, entries: list[Json]) -> tuple[list[Picture], int]:
    """Heat maps within :data:`BUDGET_BYTES`, and how many had to be left out.

    The first of each kind come first, so that no kind is left out for the sake of another; the order given is kept.
    """
    turn: Counter[str] = Counter()
    order = []
    for place, entry in enumerate(entries):
        order.append((turn[entry["kind"]], place))
        turn[entry["kind"]] += 1
    found: dict[int, Picture] = {}
    room = BUDGET_BYTES
    for _, place in sorted(order):
        picture = _read_picture(folder, entries[place])
        if picture is None:
            continue
        if len(picture.jpeg) > room:
            break
        room -= len(picture.jpeg)
        found[place] = picture
    return [found[place] for place in sorted(found)], len(entries) - len(found)


def _read_picture(folder: Path, entry: Json) -> Picture | None:
    """An image free of what else its file holds; None where it is none."""
    name = str(entry["file"])
    if Path(name).name != name:  # only files of this folder come into the report
        return None
    try:
        with Image.open(folder / name) as opened:
            picture = opened.convert("RGB")
    except _BAD_IMAGE:
        return None
    picture.thumbnail((SIDE_PX, SIDE_PX))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=85, optimize=True)
    return Picture(entry=entry, jpeg=buffer.getvalue(), width=picture.width, height=picture.height)


def _buttons(pictures: list[Picture]) -> Html:
    by_kind = Counter(picture.entry["kind"] for picture in pictures)
    names = {"all": f"all ({len(pictures)})"} | {kind: f"{kind}: {PLAIN[kind]} ({by_kind[kind]})" for kind in KINDS}
    buttons = (
        tag("button", text(name), type="button", data_filter=kind, aria_pressed="true" if kind == "all" else "false")
        for kind, name in names.items()
    )
    shown = tag("span", id="shown", class_="unseen", role="status", aria_live="polite")
    attributes = {
        "class_": "buttons",
        "role": "group",
        "aria_label": "Show heat maps",
        "data_script": True,
        "hidden": True,
    }
    return tag("div", *buttons, shown, **attributes)


def _figure(picture: Picture) -> Html:
    """An image with what is known of it."""
    entry, data = picture.entry, base64.b64encode(picture.jpeg).decode()
    kind = str(KINDS.get(entry["kind"], entry["kind"]))
    label = "positive" if entry["label"] else "negative"
    known = f"probability {number(entry['probability'])}, labelled {label}"
    alt = f"Radiograph and heat map over it, {entry['image_id']}: {kind}, {known}."
    lines = [
        tag("b", text(kind[:1].upper() + kind[1:])),
        tag("span", text(known)),
        tag("code", text(entry["image_id"])),
    ]
    if entry["hit"] is not None:
        share = "" if entry["energy_share"] is None else f"; {100 * entry['energy_share']:.0f} % of the heat in boxes"
        lines.insert(2, tag("span", text(f"brightest place {'in' if entry['hit'] else 'outside'} the boxes{share}")))
    source = f"data:image/jpeg;base64,{data}"
    image = tag("img", src=source, alt=alt, width=picture.width, height=picture.height, decoding="async")
    return tag("figure", image, tag("figcaption", *lines), data_kind=entry["kind"])
