"""A run goes on from its checkpoint as if it had never been interrupted, and is never replaced unasked."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pneumo_fast import files
from pneumo_fast.errors import RunError
from pneumo_fast.loading.loader import Loader
from pneumo_fast.run import checkpoint as checkpoints
from pneumo_fast.run import folder
from pneumo_fast.run.checkpoint import EpochRecord, load_trained
from pneumo_fast.run.layout import BEST, CONFIG, HISTORY, LAST
from pneumo_fast.training import train as training
from pneumo_fast.training.learner import Learner
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.train import train, validate
from tests.support.make_dataset import make_dataset
from tests.support.training import check_same, check_same_run, history_of, network, results, small

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def begun(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the small network after its first epoch. Not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "begun"
    with network(small):
        train(replace(config, out=run, epochs=1))
    return run


def rising(learner: Learner, loader: Loader, epoch: int) -> EpochRecord:
    """A validation whose AUROC grows from epoch to epoch."""
    return validate(learner, loader, epoch) | {"val_auroc": 0.5 + 0.1 * epoch}


@pytest.fixture(scope="module")
def risen(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of the small network, the last epoch of which is the best. Not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "risen"
    with network(small), pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "validate", rising)
        train(replace(config, out=run))
    return run


def test_a_resumed_run_is_the_uninterrupted_one(config: TrainConfig, reference_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(replace(config, out=run, epochs=1))
    seen: list[tuple[int, int]] = []
    epochs: list[float] = []
    summary = train(
        replace(config, out=run, resume=True),
        on_epoch=lambda record: epochs.append(record["epoch"]),
        on_progress=lambda done, total: seen.append((done, total)),
    )
    check_same_run(run, reference_run)
    assert summary.epochs == 2
    assert summary.history == history_of(run)
    assert epochs == [2], "the first epoch is not trained again"
    assert seen == [(21 + 8, 42), (21 + 16, 42), (42, 42)]
    assert json.loads((run / CONFIG).read_text())["config"]["epochs"] == 2


@pytest.mark.usefixtures("quick")
def test_training_images_are_changed_when_asked_and_alike_after_a_resume(config: TrainConfig, tmp_path: Path) -> None:
    plain, whole, parted = (tmp_path / name for name in ("plain", "whole", "parted"))
    changed = replace(config, augment="strong", flip=True)
    train(replace(config, out=plain))
    train(replace(changed, out=whole))
    train(replace(changed, out=parted, epochs=1))
    train(replace(changed, out=parted, resume=True))
    check_same(parted / LAST, whole / LAST)
    assert [record["train_loss"] for record in results(plain)] != [record["train_loss"] for record in results(whole)]
    with pytest.raises(RunError, match="was trained with flip True, now it is False"):
        train(replace(changed, out=whole, flip=False, resume=True))


@pytest.mark.parametrize("epochs", [1, 2])
def test_resuming_a_finished_run_does_nothing(
    config: TrainConfig, reference_run: Path, epochs: int, caplog: pytest.LogCaptureFixture
) -> None:
    def state() -> dict[str, tuple[int, int]]:
        return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in reference_run.iterdir()}

    before = state()
    caplog.set_level("INFO", "pneumo_fast")
    calls: list[EpochRecord] = []
    summary = train(replace(config, out=reference_run, epochs=epochs, resume=True), on_epoch=calls.append)
    assert state() == before
    assert not calls
    assert caplog.messages == [f"2 epochs finished, {epochs} asked for: nothing to train"]
    assert summary.epochs == 2
    assert summary.history == history_of(reference_run)


@pytest.mark.usefixtures("quick")
def test_resuming_where_nothing_is_yet_starts(config: TrainConfig, tmp_path: Path) -> None:
    train(replace(config, out=tmp_path / "plain"))
    train(replace(config, out=tmp_path / "resumed", resume=True))
    check_same(tmp_path / "plain" / LAST, tmp_path / "resumed" / LAST)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("when", ["before the history", "before the best", "before the last", "after all"])
def test_a_run_killed_while_it_writes_its_last_epoch_goes_on_as_if_it_was_not(
    config: TrainConfig, risen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr(training, "validate", rising)
    run = tmp_path / "run"
    train(replace(config, out=run, epochs=1))
    doomed = {"before the history": HISTORY, "before the best": BEST, "before the last": LAST}.get(when)

    def write(path: Path, data: bytes | str, keep: Path | None = None) -> None:
        if path.name == doomed:
            raise KeyboardInterrupt
        files.write_atomic(path, data, keep=keep)

    def stop(_: EpochRecord) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folder, "write_atomic", write)
        patch.setattr(checkpoints, "write_atomic", write)
        with pytest.raises(KeyboardInterrupt):
            train(replace(config, out=run, resume=True), on_epoch=stop)
    train(replace(config, out=run, resume=True))
    check_same_run(run, risen)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.01}, "was trained with lr 0.001, now it is 0.01"),
        ({"seed": 2}, "was trained with seed 1, now it is 2"),
        ({"batch_size": 4}, "was trained with batch-size 8, now it is 4"),
        ({"pos_weight": 1.0}, "was trained with pos-weight 2.5, now it is 1.0"),
        ({"amp": True, "amp_dtype": "bfloat16"}, "was trained with amp-dtype 'None', now it is 'torch.bfloat16'"),
        (
            {"datasets": "other"},
            "was trained with dataset of checksum ",
        ),
        ({"augment": "light"}, "was trained with augment 'none', now it is 'light'"),
    ],
)
def test_resuming_with_another_option_is_refused(
    config: TrainConfig, begun: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    run = Path(shutil.copytree(begun, tmp_path / "run"))
    if "datasets" in change:
        make_dataset(tmp_path / "d", size=32, shard_rows=5)
        change = {"datasets": (tmp_path / "d",)}
    before = (run / LAST).read_bytes()
    with pytest.raises(RunError) as error:
        train(replace(config, out=run, resume=True, **change))
    assert f"run {run} {message}" in str(error.value)
    assert not re.search("[0-9a-f]{64}", str(error.value))
    assert (run / LAST).read_bytes() == before


@pytest.mark.usefixtures("quick")
def test_a_moved_dataset_is_the_same_dataset(config: TrainConfig, tmp_path: Path) -> None:
    make_dataset(tmp_path / "d", size=32)
    run = tmp_path / "run"
    train(replace(config, out=run, epochs=1, datasets=(tmp_path / "d",)))
    (tmp_path / "d").rename(tmp_path / "moved")
    train(replace(config, out=run, resume=True, datasets=(tmp_path / "moved",)))
    assert len(history_of(run)) == 2
    assert json.loads((run / CONFIG).read_text())["config"]["datasets"] == [str(tmp_path / "moved")]


@pytest.mark.usefixtures("quick")
def test_a_run_is_replaced_only_on_request(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, out=tmp_path / "run", epochs=1)
    train(config)
    with pytest.raises(RunError, match="holds a run"):
        train(config)
    train(replace(config, overwrite=True, seed=7))
    assert load_trained(tmp_path / "run" / LAST).settings["seed"] == 7
