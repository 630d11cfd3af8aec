"""Draws the README's figure: loaders compared, from the raw values of a run.

python benchmarks/plot.py benchmarks/results/DATE-load-2-cores.json docs/figures/loaders.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

OURS, DALI, OTHERS, INK, GREY = "#0072B2", "#56B4E9", "#BBBBBB", "#222222", "#767676"  # Okabe and Ito's
NAMES: Final = {
    "reference: DatasetFolder": "DatasetFolder + DataLoader",
    "memory map": "memory-mapped Dataset",
    "float32 in RAM": "float32 cache in RAM",
    "DALI readers.numpy": "DALI's own NumPy reader",
}
WIDTH_IN, ROW_IN, DPI = 9.0, 0.34, 150


def main() -> None:
    """Draw what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="what throughput.py --stage load --out wrote")
    parser.add_argument("figure", type=Path, help="PNG to write")
    arguments = parser.parse_args()
    content = json.loads(arguments.results.read_text())
    (stage,) = (stage for stage in content["stages"] if stage["name"] == "load")
    draw(stage, content["surroundings"]).savefig(arguments.figure, dpi=DPI)


def draw(stage: dict[str, Any], surroundings: dict[str, Any]) -> Figure:
    """One bar for each loader, the fastest on top: median, and a line from lowest to highest run."""
    results = sorted(stage["results"], key=lambda result: result["images_per_s"]["median"])
    figure = Figure(figsize=(WIDTH_IN, 1.5 + ROW_IN * len(results)), layout="constrained")
    axes = figure.add_subplot()
    for place, result in enumerate(results):
        _draw_bar(axes, place, result)
    axes.set_yticks(range(len(results)), [_label(result) for result in results], fontsize=9)
    for text, result in zip(axes.get_yticklabels(), results, strict=True):
        text.set_color(INK if _is_ours(result) else GREY)
    axes.set_xlim(0, 1.12 * max(result["images_per_s"]["highest"] for result in results))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8, colors=GREY)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set_xlabel(
        "images per second: median of the runs, line from the lowest to the highest", fontsize=9, color=GREY
    )
    about = stage["conditions"]
    axes.set_title(
        f"From disk to normalized float32 batches\n{about['size']} pixels, batch {about['batch']}, page cache warm, "
        f"{surroundings['gpu'] or str(surroundings['cores']) + ' CPU cores'}",
        loc="left", fontsize=11, color=INK,
    )  # fmt: skip
    return figure


def _draw_bar(axes: Axes, place: int, result: dict[str, Any]) -> None:
    rate = result["images_per_s"]
    colour = OTHERS if not _is_ours(result) else DALI if ", dali" in result["name"] else OURS
    axes.barh(place, rate["median"], height=0.68, color=colour)
    axes.plot([rate["lowest"], rate["highest"]], [place, place], color=INK, linewidth=1.0)
    axes.annotate(
        f"{rate['median']:,.0f}", (max(rate["median"], rate["highest"]), place), xytext=(5, 0),
        textcoords="offset points", va="center", fontsize=9, color=INK,
    )  # fmt: skip


def _is_ours(result: dict[str, Any]) -> bool:
    return bool(result["name"].startswith("pneumo-fast"))


def _label(result: dict[str, Any]) -> str:
    """Name, version, and what is on disk."""
    name = NAMES.get(result["name"], result["name"])
    version = result["details"].get("version")
    stored = result["details"].get("on_disk")
    named = f"{name} {version}" if version else name
    return named if _is_ours(result) or not stored else f"{named}, {stored}"


if __name__ == "__main__":
    main()
