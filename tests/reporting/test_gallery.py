"""Heat maps in the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pneumo_fast.explanation.results import Drawn
from pneumo_fast.reporting import gallery
from tests.support.make_run import change_json, draw_heat_map
from tests.support.report_page import made


def test_heat_maps_have_a_budget_that_is_shared_by_all_kinds(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    draw_heat_map(0).save(tmp_path / "a.png")
    entries = [
        Drawn(image_id="a", label=1, probability=0.5, kind=kind, file="a.png", hit=None, energy_share=None)
        for kind in ("TP", "TP", "TP", "FP", "FN", "TN")
    ]
    everything, _ = gallery.load_pictures(tmp_path, entries)
    size = len(everything[0].jpeg)
    monkeypatch.setattr(gallery, "BUDGET_BYTES", 4 * size)

    pictures, dropped = gallery.load_pictures(tmp_path, entries)

    assert [picture.entry.kind for picture in pictures] == ["TP", "FP", "FN", "TN"]
    assert dropped == 2
    _, page = made(run)
    assert any("could not be read or did not fit here" in words for words in page.text("p"))


def test_a_report_full_of_heat_maps_is_below_five_megabytes(run: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (480, 480, 3), dtype=np.uint8)
    Image.fromarray(noise).save(run / "explain" / "TP-01.png")
    told = json.loads((run / "explain" / "explain.json").read_text())
    change_json(run / "explain" / "explain.json", images=[{**told["images"][0], "file": "TP-01.png"}] * 400)

    summary, page = made(run)

    assert 3_000_000 < summary.size_bytes < 5_000_000
    assert 10 < len(page.all("img")) < 400


@pytest.mark.parametrize("name", ["../config.json", "/etc/hostname", "missing.png", "explain.json"])
def test_only_images_of_the_folder_are_shown(run: Path, name: str) -> None:
    told = json.loads((run / "explain" / "explain.json").read_text())
    images = [{**told["images"][0], "file": name}, told["images"][1]]
    change_json(run / "explain" / "explain.json", images=images)
    _, page = made(run)
    assert len(page.all("img")) == 1
    assert "1 heat map could not be read" in page.words
