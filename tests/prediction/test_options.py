"""Options of ``predict`` that do not go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pneumo_fast.errors import ConfigError
from pneumo_fast.prediction import options
from pneumo_fast.prediction.options import PredictConfig

RUN, IMAGES = Path("run"), Path("images")


def test_thousands_of_files_are_not_looked_at_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def is_run(path: Path) -> bool:
        asked.append(path)
        return path == tmp_path

    monkeypatch.setattr(options, "is_run", is_run)
    paths = tuple(Path(f"{number}.dcm") for number in range(1000))
    assert PredictConfig(inputs=(tmp_path, *paths)).paths == paths
    assert set(asked) == {tmp_path, paths[0]}


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
