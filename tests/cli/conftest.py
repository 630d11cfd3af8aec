"""A command run up to its work, and a folder with a bad file of each kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from pneumo_fast.conversion import convert as convert_module
from pneumo_fast.evaluation import evaluate as evaluate_module
from pneumo_fast.explanation import explain as explain_module
from pneumo_fast.export import export as export_module
from pneumo_fast.loading import preview as show_module
from pneumo_fast.phantoms import make as phantom_module
from pneumo_fast.phantoms.make import PhantomSet
from pneumo_fast.prediction import predict as predict_module
from pneumo_fast.reporting import report as report_module
from pneumo_fast.training import cross_validation as folds_module
from pneumo_fast.training import direct as direct_module
from pneumo_fast.training import train as train_module

Run = Callable[..., Any]


class CaughtError(Exception):
    """Ends a command in the place of the work."""


@pytest.fixture
def config_of(monkeypatch: pytest.MonkeyPatch, run_cli: Run) -> Callable[..., Any]:
    """The configuration that a command hands to the library."""

    def catch(*arguments: object) -> Any:
        caught: list[Any] = []

        def instead(config: Any, *_callbacks: object, **_named: object) -> NoReturn:
            caught.append(config)
            raise CaughtError

        for module, name in (
            (convert_module, "convert"),
            (train_module, "train"),
            (folds_module, "cross_validate"),
            (evaluate_module, "evaluate"),
            (explain_module, "explain"),
            (report_module, "report"),
            (predict_module, "predict"),
            (export_module, "export_model"),
            (show_module, "show"),
            (phantom_module, "make_phantoms"),
        ):
            monkeypatch.setattr(module, name, instead)
        monkeypatch.setattr(direct_module, "with_dataset", lambda config, _on_progress: (config, None))
        with pytest.raises(CaughtError):
            run_cli(*arguments)
        return caught[0]

    return catch


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phantoms: PhantomSet) -> Path:
    """The working folder, with a bad file of each kind."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").symlink_to(phantoms.images)
    (tmp_path / "labels.csv").symlink_to(phantoms.labels)
    ids = [path.stem for path in sorted(phantoms.images.iterdir())]
    (tmp_path / "conflict.csv").write_text(f"patientId,Target\n{ids[0]},0\n{ids[0]},1\n")
    (tmp_path / "strangers.csv").write_text("patientId,Target\na,0\n")
    (tmp_path / "bad.json").write_text("{}")
    (tmp_path / "bad.key").write_text("00")
    (tmp_path / "two\nlines.csv").write_text("a\n1\n")
    (tmp_path / "broken").mkdir()
    for image_id in ids:
        (tmp_path / "broken" / f"{image_id}.dcm").write_bytes(b"")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("")
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "config.json").write_text("{}")
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "manifest.json").write_text("{")
    return tmp_path
