"""Reading files ahead of the model."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from pneumo_fast.conversion.supervisor import Outcome
from pneumo_fast.conversion.task import Record, Task
from pneumo_fast.errors import PredictError
from pneumo_fast.prediction.files import find
from pneumo_fast.prediction.model import open_model
from pneumo_fast.prediction.options import PredictConfig
from pneumo_fast.prediction.reading import AHEAD, cut, read, take


def test_reading_starts_before_the_first_part_is_asked_for(
    judged: Path, options: Callable[..., PredictConfig], tmp_path: Path
) -> None:
    model = open_model((judged,), "cpu")
    files, _ = find(options().paths, "path")
    tasks = cut(files, model, model.input.preprocessing.selection, tmp_path, bytes(32))
    assert len(tasks) == 3
    submitted: list[Task] = []

    def submit(task: Task, _timeout_s: float) -> Future[Outcome]:
        submitted.append(task)
        return Future()

    read(tasks, submit, 1, 10.0)
    assert submitted == list(tasks[:AHEAD])


@pytest.mark.parametrize("content", [None, b"short"])
def test_a_part_that_was_changed_meanwhile_is_told(
    content: bytes | None, judged: Path, options: Callable[..., PredictConfig], tmp_path: Path
) -> None:
    model = open_model((judged,), "cpu")
    files, _ = find(options().paths, "path")
    task = cut(files, model, model.input.preprocessing.selection, tmp_path, bytes(32))[0]
    record = Record(
        name=task.name, split="", bytes=1000, checksum="", sum=0.0, square_sum=0.0, pixels=0, images=[{}], rejects=[]
    )
    if content is not None:
        (tmp_path / f"{task.name}.npy").write_bytes(content)
    with pytest.raises(PredictError, match="was changed while files were read: let nothing else write there"):
        take(task, record)
