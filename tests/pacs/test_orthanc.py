"""What the tests of this folder rest on: the real server starts, answers, and refuses whom it does not know."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from tests.support.orthanc import running_orthanc


def test_a_real_pacs_starts_for_a_test(tmp_path: Path) -> None:
    with running_orthanc(tmp_path / "pacs") as pacs:
        assert pacs.tags() == []
        pacs.store(Path(str(get_testdata_file("CT_small.dcm"))))
        assert len(pacs.tags()) == 1
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{pacs.dicomweb}/studies", timeout=20)  # noqa: S310
    assert pacs.process.returncode == 0
