"""The notebook is the same as its script, holds no output, and runs from its first cell to its last."""

from __future__ import annotations

import json
from pathlib import Path
from runpy import run_path
from typing import Any

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.repository import ROOT
from tests.support.training import one_thread

NOTEBOOK = ROOT / "notebooks" / "walkthrough.ipynb"
SCRIPT = NOTEBOOK.with_suffix(".py")
SMALLER = {
    "count=400": "count=60", "SIZE = 64": "SIZE = 32", "EPOCHS = 4": "EPOCHS = 1",
    "thresholds=(0.5, 0.25)": "thresholds=(0.5, 0.25), resamples=100", "count=1))": "count=1, resamples=100))",
}  # fmt: skip


def cells(path: Path) -> list[tuple[str, str]]:
    return [(cell["cell_type"], cell["source"]) for cell in jupytext.read(path)["cells"]]


def test_notebook_and_script_are_in_step() -> None:
    assert cells(NOTEBOOK) == cells(SCRIPT), "run: jupytext --sync notebooks/walkthrough.py"


def test_notebook_holds_no_output() -> None:
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the names of the script stand for at its end, after a run on fewer and smaller images."""
    folder = tmp_path_factory.mktemp("walkthrough")
    text = SCRIPT.read_text()
    for before, after in SMALLER.items():
        assert before in text
        text = text.replace(before, after)
    (folder / "smaller.py").write_text(text)
    with pytest.MonkeyPatch.context() as patch, one_thread():
        patch.chdir(folder)
        patch.setenv("MPLBACKEND", "agg")
        return run_path("smaller.py")


def test_script_tells_the_whole_story(names: dict[str, Any]) -> None:
    assert names["converted"].images == 60
    assert len(names["history"]) == 1
    assert list(names["judged"].columns) == ["threshold 0.5", "threshold 0.25"]
    assert names["judged"].loc["sensitivity"].is_monotonic_increasing
    assert names["explanation"].images
    assert names["predicted"]["probability"].between(0, 1).sum() == 8
    assert names["report"].page.name == "report.html"


@pytest.mark.slow
def test_notebook_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    assert sum("text/html" in output.get("data", {}) for output in outputs) == 4  # tables
    assert (tmp_path / "walkthrough" / "run" / "report.html").is_file()
