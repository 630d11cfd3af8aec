"""Reading files ahead of the model."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from pneumo_fast.conversion.supervisor import Outcome
from pneumo_fast.conversion.task import Task
from pneumo_fast.prediction.files import find
from pneumo_fast.prediction.model import open_model
from pneumo_fast.prediction.options import PredictConfig
from pneumo_fast.prediction.reading import AHEAD, cut, read


def test_reading_starts_before_the_first_part_is_asked_for(
    judged: Path, options: Callable[..., PredictConfig], tmp_path: Path
) -> None:
    model = open_model((judged,), "cpu")
    files, _ = find(options())
    tasks = cut(files, model, model.input.preprocessing.selection, tmp_path, bytes(32))
    assert len(tasks) == 3
    submitted: list[Task] = []

    def submit(task: Task, _timeout_s: float) -> Future[Outcome]:
        submitted.append(task)
        return Future()

    read(tasks, submit, 1, 10.0)
    assert submitted == list(tasks[:AHEAD])
