"""Fixtures that several test modules share."""

from __future__ import annotations

import logging
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings

from pneumo_fast.cli import app
from pneumo_fast.conversion import convert as convert_module
from pneumo_fast.conversion.convert import convert
from pneumo_fast.conversion.executors import Submit, local_workers
from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.conversion.supervisor import Outcome, WorkerPool
from pneumo_fast.conversion.task import Task
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.phantoms.make import PhantomSet, make_phantoms
from pneumo_fast.phantoms.options import PhantomConfig
from pneumo_fast.prediction import scoring
from pneumo_fast.training import setup
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.train import train
from pneumo_fast.vocabulary import Dtype
from tests.support.make_dataset import make_dataset
from tests.support.repository import SHARED
from tests.support.training import one_thread as one_thread_only
from tests.support.training import small

settings.register_profile("busy", deadline=None)  # a busy machine may take its time for one example
settings.load_profile("busy")

IMAGES = 40
SIZE = 32


@pytest.fixture(scope="session", autouse=True)
def _config_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or makes a key in the user's own configuration folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real radiographs and the complete tables, which are no part of the project."""
    if not SHARED.is_dir():
        pytest.skip("the folder with the real data is not there")
    return SHARED


@pytest.fixture(scope="session")
def one_worker() -> Iterator[Callable[..., AbstractContextManager[Submit]]]:
    """Stands in for ``local_workers``: one worker process for the whole session, where one is asked for."""
    pool = WorkerPool()
    executor = ThreadPoolExecutor(1)

    @contextmanager
    def workers(count: int, *, shares_cores: bool = False) -> Iterator[Submit]:
        if count > 1:
            with local_workers(count, shares_cores=shares_cores) as submit:
                yield submit
            return
        futures: list[Future[Outcome]] = []

        def submit_here(task: Task, timeout_s: float) -> Future[Outcome]:
            futures.append(executor.submit(pool.run_task, task, timeout_s))
            return futures[-1]

        try:
            yield submit_here
        finally:
            for future in futures:
                future.cancel()
            wait(futures)

    yield workers
    pool.stop()
    executor.shutdown()


@pytest.fixture
def shared_worker(monkeypatch: pytest.MonkeyPatch, one_worker: Callable[..., AbstractContextManager[Submit]]) -> None:
    """Starting it takes most of a small conversion's time, so conversions and predictions by one share theirs."""
    for module in (convert_module, scoring):
        monkeypatch.setattr(module, "local_workers", one_worker)


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> PhantomSet:
    """Synthetic radiographs of 64 x 64 pixels, with their tables."""
    return make_phantoms(PhantomConfig(out=tmp_path_factory.mktemp("phantoms"), count=IMAGES, size_px=64))


@pytest.fixture(scope="session")
def convert_phantoms(phantoms: PhantomSet, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Dtype], Path]:
    """Convert the phantoms, once for each data type."""
    done: dict[str, Path] = {}

    def run(dtype: Dtype) -> Path:
        if dtype not in done:
            out = tmp_path_factory.mktemp("datasets") / dtype
            convert(
                ConvertConfig(
                    keep_ids=True,
                    images=phantoms.images,
                    labels=phantoms.labels,
                    class_info=phantoms.class_info,
                    groups=phantoms.mappings,
                    out=out,
                    size=SIZE,
                    dtype=dtype,
                    val_fraction=0.3,
                    shard_size=10,
                    workers=1,
                )
            )
            done[dtype] = out
        return done[dtype]

    return run


@pytest.fixture(scope="session", params=["float16", "uint8"])
def dataset(request: pytest.FixtureRequest, convert_phantoms: Callable[[Dtype], Path]) -> Dataset:
    """The phantoms at 32 x 32 pixels, in shards of ten; once for each data type. Not to be changed."""
    return Dataset.open(convert_phantoms(request.param))


@pytest.fixture
def own_dataset(convert_phantoms: Callable[[Dtype], Path], tmp_path: Path) -> Path:
    """A float16 dataset's folder, to be damaged."""
    return Path(shutil.copytree(convert_phantoms("float16"), tmp_path / "dataset"))


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of 32 x 32 pixels from which there is nothing to learn: 21 for training, 13 for validation."""
    path = tmp_path_factory.mktemp("data") / "noise"
    make_dataset(path, size=32)
    return path


@pytest.fixture(scope="session")
def config(noise: Path) -> TrainConfig:
    """Two epochs of three steps; each test names its own run folder."""
    return TrainConfig(datasets=(noise,), out=Path("unset"), epochs=2, batch_size=8, lr=1e-3, device="cpu", seed=1)


@pytest.fixture(scope="session")
def reference_run(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run with the real ResNet-18. Not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "reference"
    with one_thread_only():
        train(replace(config, out=run))
    return run


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network in the place of ResNet-18, where any will do."""
    monkeypatch.setattr(setup, "build_model", lambda *_: small())


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For the tests of a module that train."""
    with one_thread_only():
        yield


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Ended]]:
    """Run the command line in this process; gives exit code and output."""
    logger = logging.getLogger("pneumo_fast")
    before = logger.level, logger.handlers, logger.propagate
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["pneumo-fast", *map(str, arguments)])
        code = 0
        try:
            app.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Ended(code, *capsys.readouterr())

    yield run
    logger.level, logger.handlers, logger.propagate = before
    for number, handler in handlers.items():
        signal.signal(number, handler)
