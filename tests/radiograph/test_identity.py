"""What a file says it is, however long its header."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from pneumo_fast.radiograph.identity import HEAD_BYTES, read_identity
from pneumo_fast.radiograph.metadata import MODALITIES, VIEWS
from pneumo_fast.radiograph.selection import Selection
from tests.support.radiograph_files import jpeg, save
from tests.support.radiograph_makers import BASELINE


@pytest.mark.parametrize("more_bytes", [0, 2 * HEAD_BYTES])
def test_an_id_is_found_however_long_the_header_is(tmp_path: Path, more_bytes: int) -> None:
    path = tmp_path / "a.dcm"
    save(path, syntax=BASELINE, frames=[jpeg()], AccessionNumber="A7", SeriesNumber=3, InstanceNumber=5)
    dataset = pydicom.dcmread(path)
    dataset.private_block(0x0009, "MAKER", create=True).add_new(1, "OB", bytes(more_bytes))
    dataset.save_as(path)
    selection = Selection(modalities=MODALITIES, views=VIEWS, body_parts=("CHEST",))
    found = read_identity(tmp_path, path.name, "AccessionNumber", selection, 1 << 31)
    assert (found.value, found.series, found.instance, found.unwanted) == ("A7", 3, 5, None)
