"""Options of ``predict`` that do not go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pneumo_fast.errors import ConfigError
from pneumo_fast.prediction.options import PredictConfig

RUN, IMAGES = Path("run"), Path("images")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"id_column": "id"}, "id-column without labels: give --labels as well"),
        ({"positive": ("yes",)}, "positive without labels: give --labels as well"),
        ({"group_column": "who"}, "group-column without labels: give --labels as well"),
        ({"thresholds": (0.3, 0.3)}, "0.3 is given more than once: give each run and threshold once"),
    ],
)
def test_options_that_do_not_go_together(
    values: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    RUN.mkdir()
    (RUN / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=message):
        PredictConfig(inputs=(RUN, IMAGES), **values)
