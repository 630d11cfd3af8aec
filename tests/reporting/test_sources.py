"""Folders are taken out of what a report tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pneumo_fast.reporting.remarks import Remark
from pneumo_fast.reporting.sources import without_folders


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("/home/a b/c/dataset", "dataset"),
        ("seen in /home/a/dataset.", "seen in dataset."),
        ("sensitivity/recall, 3/4, run/eval", "sensitivity/recall, 3/4, run/eval"),
        ({"paths": ["/a/b", 3, None, "x"]}, {"paths": ["b", 3, None, "x"]}),
        (Path("/home/a/dataset"), Path("dataset")),
        (Remark(about="x", sentence="in /home/a/b."), Remark(about="x", sentence="in b.")),
        ("a file \udcff", "a file ?"),
    ],
)
def test_folders_are_taken_out_of_texts(content: Any, expected: Any) -> None:
    assert without_folders(content) == expected
