"""A disk that fills up while training ends it in one line; with room made, it goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pneumo_fast.errors import TrainingError
from pneumo_fast.run.checkpoint import load_resumable
from pneumo_fast.run.layout import LAST
from pneumo_fast.training import session
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.train import train

pytestmark = pytest.mark.usefixtures("one_thread", "quick")


def test_a_full_disk(config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(config, out=tmp_path / "run", epochs=1)
    train(config)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(session, "save_checkpoint", full)
        with pytest.raises(TrainingError, match=r"cannot be written .*No space left on device.*--resume"):
            train(replace(config, epochs=2, resume=True))
    assert load_resumable(tmp_path / "run" / LAST).trained.epoch == 1
    assert train(replace(config, epochs=2, resume=True)).epochs == 2
