"""Several processes train as one would: the same batches, the same figures, and no one waits for the dead."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.functional import binary_cross_entropy_with_logits

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.errors import DeviceError
from pneumo_fast.loading.loader import Loader
from pneumo_fast.loading.options import LoadConfig
from pneumo_fast.run.checkpoint import load_resumable, load_trained
from pneumo_fast.run.layout import BEST, CONFIG, CURVES, HISTORY, LAST, PREVIOUS
from pneumo_fast.training import distributed, setup
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.train import train
from tests.support.make_dataset import make_dataset
from tests.support.repository import ROOT
from tests.support.training import results

OPTIONS: dict[str, Any] = {
    "epochs": 2, "batch_size": 6, "lr": 1e-3, "device": "cpu", "seed": 1, "ema": 0.9, "clip_norm": 1.0, "accumulate": 2,
}  # fmt: skip


def plain_network(*_: object) -> nn.Module:
    """Without BatchNorm, whose statistics are each process's own."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=4), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 7 * 7, 1)
    )


def normed_network(*_: object) -> nn.Module:
    """With BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 7 * 7, 1)
    )


SCRIPT = """
import os, sys, torch
sys.path.insert(0, {root!r})
from pathlib import Path
from pneumo_fast.training import distributed, setup
from pneumo_fast.training.learner import Learner
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.cross_validation import cross_validate
from pneumo_fast.training.train import train
from tests.training.test_distributed import OPTIONS, normed_network, plain_network
torch.set_num_threads(1)
setup.build_model = {network}
if {dying} and os.environ["RANK"] == "1":
    steps, plain = iter(range(100)), Learner.step
    Learner.step = lambda *a: os._exit(7) if next(steps) == 2 else plain(*a)
config = TrainConfig(datasets=(Path({data!r}),), out=Path({run!r}), **OPTIONS | {changes!r})
(cross_validate if config.all_folds else train)(config)
print("finished")
"""


def together(
    data: Path, run: Path, processes: int = 2, *, dying: bool = False, network: str = "plain_network", **changes: Any
) -> subprocess.Popen[str]:
    """Train in several processes, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = SCRIPT.format(root=str(ROOT), data=str(data), run=str(run), dying=dying, network=network, changes=changes)
    script = run.parent / f"{run.name}.py"
    script.write_text(code)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port"]
    return subprocess.Popen(
        [*launcher, str(port), str(script)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 0, out
    return out


@pytest.fixture(scope="module")
def data(noise: Path) -> Path:
    """21 training images: batches of 6, 6, 6 and 3, of which two processes take 3 and 3, and 1 and 2."""
    return noise


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run in one process."""
    run = tmp_path_factory.mktemp("runs") / "alone"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "build_model", plain_network)
        train(TrainConfig(datasets=(data,), out=run, **OPTIONS))
    return run


def check_alike(run: Path, alone: Path) -> None:
    """Weights and figures within what another order of adding up changes."""
    for name in (BEST, LAST):
        mine, theirs = load_trained(run / name), load_trained(alone / name)
        for key, value in mine.model.items():
            torch.testing.assert_close(value, theirs.model[key], rtol=0, atol=2e-5)
    steps = [load_resumable(folder / LAST).learner["steps_done"] for folder in (run, alone)]
    assert steps[0] == steps[1]
    for record, expected in zip(results(run), results(alone), strict=True):
        assert record == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_one_gpu_for_all_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(
            DeviceError, match="device 'cuda:0' for several processes: each takes its own, give cuda or auto"
        ),
        distributed.joined("cuda:0"),
    ):
        pass


def test_two_processes_train_every_fold(data: Path, tmp_path: Path) -> None:
    finish(together(data, tmp_path / "run", folds=2, epochs=1))
    for fold in (1, 2):
        assert load_trained(tmp_path / "run" / f"fold-{fold}" / BEST).settings["fold"] == fold


def test_two_processes_train_as_one_does(data: Path, alone: Path, tmp_path: Path) -> None:
    out = finish(together(data, tmp_path / "run"))
    assert out.count("finished") == 2
    check_alike(tmp_path / "run", alone)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {BEST, LAST, PREVIOUS, HISTORY, CURVES, CONFIG}


def test_two_processes_are_taught_as_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where one of them has a single image of the last batch."""
    make_dataset(tmp_path / "painted", size=32, findings=True)
    taught: dict[str, Any] = {
        "teach": ("boxes", "classes"), "teach_stage": "2", "augment": "strong", "batch_size": 19
    }  # fmt: skip
    finish(together(tmp_path / "painted", tmp_path / "run", **taught))
    monkeypatch.setattr(setup, "build_model", plain_network)
    train(TrainConfig(datasets=(tmp_path / "painted",), out=tmp_path / "alone", **OPTIONS | taught))
    check_alike(tmp_path / "run", tmp_path / "alone")
    mine, theirs = (load_resumable(tmp_path / name / LAST).learner["heads"] for name in ("run", "alone"))
    for key, value in mine.items():
        torch.testing.assert_close(value, theirs[key], rtol=0, atol=2e-5)


def test_a_process_may_have_nothing_of_the_last_batch(data: Path, tmp_path: Path) -> None:
    """21 images by 19: two are left for three processes."""
    finish(together(data, tmp_path / "run", processes=3, batch_size=19, epochs=1, ema=None))
    assert all(value.isfinite().all() for value in load_trained(tmp_path / "run" / LAST).model.values())


@pytest.mark.parametrize("ema", [None, 0.9])
def test_the_model_that_is_kept_is_the_one_that_was_validated(data: Path, tmp_path: Path, ema: float | None) -> None:
    """Though each process has statistics of its own in BatchNorm."""
    finish(together(data, tmp_path / "run", network="normed_network", ema=ema, epochs=1))
    kept = load_trained(tmp_path / "run" / BEST)
    network = normed_network().eval()
    network.load_state_dict(kept.model)
    dataset, options = Dataset.open(data), LoadConfig(batch_size=64)
    with (
        Loader(dataset, "val", options, device=torch.device("cpu"), normalization=(kept.mean, kept.std)) as loader,
        torch.inference_mode(),
    ):
        ((images, labels),) = loader.epoch(0)
        logits = network(images).squeeze(1).double()
    weight = torch.tensor(kept.pos_weight, dtype=torch.float64)
    loss = binary_cross_entropy_with_logits(logits, labels.double(), pos_weight=weight).item()
    assert kept.history[0]["val_loss"] == pytest.approx(loss, rel=1e-6)


def test_a_run_goes_on_with_another_number_of_processes(
    data: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(setup, "build_model", plain_network)
    one = TrainConfig(datasets=(data,), out=tmp_path / "run", **OPTIONS)
    train(replace(one, epochs=1))
    finish(together(data, tmp_path / "run", resume=True))
    check_alike(tmp_path / "run", alone)
    train(replace(one, epochs=3, resume=True))
    assert "processes: the result will not be the same to the last bit" in caplog.text


def test_a_process_that_dies_ends_the_others(data: Path, tmp_path: Path) -> None:
    begin = time.monotonic()
    process = together(data, tmp_path / "run", dying=True)
    out, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "exitcode  : 7" in out
    assert "finished" not in out
    assert time.monotonic() - begin < 90


@pytest.mark.slow
def test_a_folder_that_is_taken_is_an_error_in_every_process(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").write_text("")
    process = together(data, tmp_path / "run")
    out, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert out.count("RunError: " + str(tmp_path / "run")) == 2


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_are_exchanged_with_the_last_part_of_a_batch_alone(tmp_path: Path, compiled: bool) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        everyone = torch.distributed.group.WORLD
        assert everyone is not None
        copy, exchanges = nn.parallel.DistributedDataParallel(nn.Linear(2, 1)), iter(range(1, 9))
        copy.register_comm_hook(None, lambda _, bucket: (next(exchanges), allreduce_hook(everyone, bucket))[1])
        network: Any = torch.compile(copy, backend="eager") if compiled else copy
        with distributed.apart(network):
            network(torch.ones(3, 2)).sum().backward()
        assert next(exchanges) == 1, "none before"
        network(torch.ones(3, 2)).sum().backward()
        assert next(exchanges) == 3, "one, beside the test's own count"
    finally:
        torch.distributed.destroy_process_group()
        torch.compiler.reset()
