"""Rows as CSV, and back."""

from __future__ import annotations

import io

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from pneumo_fast.prediction.table import from_csv, to_csv, to_rows

NAMES = ("image_id", "path", "detail")
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@given(st.lists(st.fixed_dictionaries(dict.fromkeys(NAMES, CELLS)), max_size=4))
def test_what_is_written_is_read(rows: list[dict[str, str]]) -> None:
    text = to_csv(rows, NAMES)
    assert from_csv(text) == rows
    assert text.startswith("image_id,path,detail\n"), "parts are joined by what follows this line"


def test_others_read_it_as_well() -> None:
    rows = to_rows([{"image_id": 7, "detail": 'two "words",\nand a line'}, {"path": "a;b"}], NAMES)
    read = pd.read_csv(io.StringIO(to_csv(rows, NAMES)), dtype=str, keep_default_na=False)
    assert read.to_dict("records") == rows
    assert rows[1] == {"image_id": "", "path": "a;b", "detail": ""}
