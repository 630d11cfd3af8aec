"""From a folder of DICOMs and a label table to a dataset: plan, worker processes, assembly.

Each task writes one whole shard and then a record of it into ``OUT/.convert``; when all are done the tables are
assembled from the records and the manifest is written last. The bytes depend on the input and the options, not on
the number of workers.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from pneumo_fast.assemble import assemble, write_rejects
from pneumo_fast.errors import ConvertError
from pneumo_fast.labels import read_labels
from pneumo_fast.options import ConvertConfig
from pneumo_fast.plan import Plan, make_plan
from pneumo_fast.privacy import load_key
from pneumo_fast.shards import SPLITS, Manifest
from pneumo_fast.worker import WORK_FOLDER, Record, Source, Task, run_task, start_worker

TABLES = ("index.csv", "boxes.csv", "rejects.csv")


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertSummary:
    """What a conversion did."""

    manifest: Manifest
    seconds: float
    """Wall-clock time."""
    images: int
    """Images stored."""
    burned_in: int
    """Images marked as having burned-in annotation."""


def convert(config: ConvertConfig, on_progress: Callable[[int, int], None] | None = None) -> ConvertSummary:
    """Convert a folder of DICOMs.

    Parameters
    ----------
    on_progress : callable, optional
        Called with (files done, files in all) whenever a shard is finished.

    Raises
    ------
    LabelError
        If a table cannot be used.
    ConvertError
        If there is nothing to convert, too much was rejected, or ``out`` is taken or cannot be written.
    """
    begin = time.perf_counter()
    key = load_key(config.hash_key)
    labels = read_labels(
        config.labels,
        id_column=config.id_column,
        label_column=config.label_column,
        group_column=config.group_column,
        class_info=config.class_info,
        groups=config.groups,
    )
    plan = make_plan(
        labels,
        config.images,
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
        seed=config.seed,
        keep_ungrouped=config.ungrouped == "keep",
        shard_size=config.shard_size,
    )
    try:
        _claim(config.out, overwrite=config.overwrite)
        tasks = _tasks(config, plan)
        _run(config, plan, tasks, on_progress)
        records = [Record.read(task.record_path) for task in tasks]
        manifest, index = assemble(config, labels, plan, records, key)
    except OSError as error:
        raise ConvertError(
            f"dataset {config.out} cannot be written ({error.strerror}): make room or name another"
        ) from error
    return ConvertSummary(
        manifest=manifest,
        seconds=time.perf_counter() - begin,
        images=len(index),
        burned_in=int((index["burned_in"] == "YES").sum()),
    )


def _claim(out: Path, *, overwrite: bool) -> None:
    """Make the dataset folder, emptied of an earlier dataset where that is wanted; other files are left alone."""
    ours = (out / "manifest.json").exists() or (out / WORK_FOLDER).exists()
    if out.exists() and not out.is_dir():
        raise ConvertError(f"{out} is a file: name a folder for the dataset")
    if ours and not overwrite:
        raise ConvertError(f"{out} holds a dataset already: give --overwrite to replace it, or name another folder")
    if not ours and out.is_dir() and any(out.iterdir()):
        raise ConvertError(f"{out} holds files that are no dataset: name an empty or a new folder")
    if ours:
        _remove_dataset(out)
    (out / WORK_FOLDER).mkdir(parents=True, exist_ok=True)


def _remove_dataset(out: Path) -> None:
    """Remove what :func:`convert` writes and nothing else, the manifest first."""
    for name in ("manifest.json", *TABLES):
        (out / name).unlink(missing_ok=True)
    for split in SPLITS:
        for shard in out.glob(f"{split}-[0-9]*.npy"):
            shard.unlink()
        shutil.rmtree(out / split, ignore_errors=True)
    shutil.rmtree(out / WORK_FOLDER, ignore_errors=True)


def _tasks(config: ConvertConfig, plan: Plan) -> list[Task]:
    return [
        Task(
            name=str(name),
            split=part["split"].iloc[0],
            images=config.images.absolute(),
            out=config.out.absolute(),
            sources=tuple(
                Source(image_id=image_id, path=path, label=int(label))
                for image_id, path, label in zip(part["image_id"], part["path"], part["label"], strict=True)
            ),
            size=config.size,
            dtype=config.dtype,
            layout=config.layout,
            decode=config.decode,
            window=config.window,
        )
        for name, part in plan.images.groupby("task", sort=False)
    ]


def _run(config: ConvertConfig, plan: Plan, tasks: list[Task], on_progress: Callable[[int, int], None] | None) -> None:
    """Hand the tasks to worker processes; stop as soon as too much is rejected."""
    total = len(plan.images) + len(plan.rejects)
    done, rejected = len(plan.rejects), len(plan.rejects)
    limit = config.max_rejects if isinstance(config.max_rejects, int) else math.floor(config.max_rejects * total)
    workers = config.workers or len(os.sched_getaffinity(0))
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context, initializer=start_worker) as pool:
        try:
            futures = [pool.submit(run_task, task) for task in tasks]
            for future in as_completed(futures):
                stored, rejects = future.result()
                done, rejected = done + stored + rejects, rejected + rejects
                if on_progress:
                    on_progress(done, total)
                if rejected > limit:
                    break
        except BrokenProcessPool as error:
            raise ConvertError("a worker process died (out of memory, or killed): convert again") from error
        finally:
            pool.shutdown(cancel_futures=True)
    if rejected > limit:
        finished = [Record.read(task.record_path) for task in tasks if task.record_path.exists()]
        write_rejects(config.out, [*plan.rejects, *(reject for record in finished for reject in record.rejects)])
        raise ConvertError(
            f"{rejected} of {total} files were rejected, {limit} are allowed: see {config.out / 'rejects.csv'}, mend "
            "them or raise --max-rejects"
        )
