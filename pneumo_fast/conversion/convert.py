"""From a folder of radiographs and a label table to a dataset: plan, tasks, assembly.

Each task becomes one whole shard and then a record of it in ``OUT/.convert``; when all are done the tables are
assembled from the records and the manifest is written last. The bytes depend on the input and the options, not on
the number of workers, nor on how often the conversion was killed and resumed.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import chain

from pneumo_fast.conversion.assemble import BOXES_CUT_OFF, BOXES_OUTSIDE, assemble, write_rejects
from pneumo_fast.conversion.executors import Submit, dask_workers, local_workers, worker_count
from pneumo_fast.conversion.gpu_decoder import DECODED_ON_GPU, check_gpu
from pneumo_fast.conversion.labels import labels_of
from pneumo_fast.conversion.options import ConvertConfig, most_rejects
from pneumo_fast.conversion.plan import Plan, hide_ids, make_plan
from pneumo_fast.conversion.resume import Arguments, claim, find_finished
from pneumo_fast.conversion.task import Record, Source, Task, count_rejects
from pneumo_fast.dataset.format import Manifest
from pneumo_fast.dataset.pseudonyms import load_key
from pneumo_fast.errors import ConvertError
from pneumo_fast.files import sweep_partials
from pneumo_fast.folders import locked
from pneumo_fast.progress import OnProgress, silent
from pneumo_fast.radiograph.rejection import REMEDIES, SKIPPED
from pneumo_fast.radiograph.selection import Selection

logger = logging.getLogger(__name__)

GPU = 0  # the first that CUDA_VISIBLE_DEVICES lets through
SAMPLE = 1024  # images that mean and standard deviation are taken from where the others are not decoded
SHARED_DISK_S = 90.0  # NFS clients may keep what they know of a folder for 60 s (nfs(5), acdirmax)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertSummary:
    """What a conversion did."""

    manifest: Manifest
    seconds: float
    images: int
    """Images in the dataset."""
    converted: int
    """Images converted now; fewer than ``images`` when resuming."""


def convert(config: ConvertConfig, on_progress: OnProgress = silent) -> ConvertSummary:
    """Convert a folder of radiographs.

    Parameters
    ----------
    on_progress : callable, optional
        Called with (files done, files in all) whenever a shard is finished.

    Raises
    ------
    ConfigError
        If the hash key cannot be used.
    DeviceError
        If a GPU is to decode, and none can; not where nothing is left to decode.
    LabelError
        If a table cannot be used.
    ConvertError
        If there is nothing to convert, too much was rejected, or ``out`` is taken or cannot be written.
    """
    begin = time.perf_counter()
    key = load_key(config.hash_key, make=True)
    labels = labels_of(config)
    plan = make_plan(labels, config)
    arguments = Arguments.of(config, labels, plan, key)
    if config.keep_ids:
        logger.warning("image ids and file names are written AS THEY ARE (--keep-ids): they must not name a patient")
    else:
        labels, plan = hide_ids(labels, plan, key)
    converted = 0
    try:
        manifest = find_finished(config, arguments)
        if manifest is None:
            if config.uses_gpu and not config.scheduler:
                check_gpu(GPU)
            with locked(config.out):
                manifest = claim(config, arguments)
                if manifest is None:
                    tasks = _tasks(config, plan, key)
                    converted = _run(config, plan, tasks, on_progress)
                    manifest = assemble(config, arguments, labels, plan, _records(config, tasks), key)
    except BlockingIOError as error:
        raise ConvertError(
            f"{config.out}: another conversion writes there: wait for its end, or name another folder"
        ) from error
    except OSError as error:
        raise ConvertError(
            f"dataset {config.out} cannot be written ({error.strerror}): fix that, then resume with --resume"
        ) from error
    if config.uses_gpu and not manifest.input[DECODED_ON_GPU]:
        logger.warning("the GPU decoded none of the images, the CPU did: see pneumo-fast doctor")
    _warn_of_classes(manifest)
    _warn_of_boxes(manifest)
    return ConvertSummary(
        manifest=manifest,
        seconds=time.perf_counter() - begin,
        images=sum(sum(counts.values()) for counts in manifest.counts.values()),
        converted=converted,
    )


def _warn_of_classes(manifest: Manifest) -> None:
    """Training and its validation need images of both labels."""
    for split, counts in manifest.counts.items():
        found = [label for label, count in counts.items() if count]
        if len(found) == 1:
            logger.warning(
                "the %s split has images of label %s only, but training and evaluation need both: check "
                "--label-column, --positive and --negative, or convert more images",
                split,
                found[0],
            )


def _warn_of_boxes(manifest: Manifest) -> None:
    """Boxes that do not fit their images are most often given in pixels of another size of them."""
    outside, cut_off = (manifest.input.get(name, 0) for name in (BOXES_OUTSIDE, BOXES_CUT_OFF))
    if outside or cut_off:
        logger.warning(
            "%d boxes lie outside of their images (train and explain leave them out) and %d go beyond an edge (they "
            "cut them off there): give boxes in pixels of the source files",
            outside,
            cut_off,
        )


def _tasks(config: ConvertConfig, plan: Plan, key: bytes) -> list[Task]:
    columns = [field.name for field in fields(Source) if field.name in plan.images]
    selection = Selection(modalities=config.modalities, views=config.views, body_parts=config.body_parts)
    decoded = _decoded_tasks(plan) if config.layout == "source" else set(plan.images["task"])
    return [
        Task(
            name=str(name),
            split=part["split"].iloc[0],
            images=config.images.absolute(),
            out=config.out.absolute(),
            sources=tuple(map(Source, *(part[column].tolist() for column in columns))),
            size=config.size,
            dtype=config.dtype,
            layout=config.layout,
            decode=config.decode,
            window=config.window,
            max_pixels=config.max_pixels,
            key=key,
            selection=selection,
            pixels=name in decoded,
            gpu=GPU if config.uses_gpu else None,
        )
        for name, part in plan.images.groupby("task", sort=False)
    ]


def _decoded_tasks(plan: Plan) -> set[str]:
    """Those that have, together, the first :data:`SAMPLE` training images, which stand in random order."""
    train = plan.images.loc[plan.images["split"] == "train", "task"]
    return set(train.head(SAMPLE))


def _run(config: ConvertConfig, plan: Plan, tasks: list[Task], on_progress: OnProgress) -> int:
    """Have the unfinished tasks done; stop as soon as too much is rejected. Returns the images converted."""
    total = len(plan.images) + len(plan.rejects)
    limit = most_rejects(config.max_rejects, total)
    finished = {record.name: (record.rejects, len(record.images)) for record in _finished(tasks)}
    left = [task for task in tasks if task.name not in finished]
    rejected, skipped = count_rejects(chain(plan.rejects, *(rejects for rejects, _ in finished.values())))
    done, stored = rejected + skipped + sum(images for _, images in finished.values()), 0
    if left and rejected <= limit:
        with _workers(config, len(left)) as submit:
            for future in as_completed([submit(task, config.timeout_s) for task in left]):
                outcome = future.result()
                stored += outcome.stored
                rejected += outcome.rejected
                done += outcome.stored + outcome.rejected + outcome.skipped
                on_progress(done, total)
                if rejected > limit:
                    break
    if rejected > limit:
        rejects = [*plan.rejects, *(reject for record in _finished(tasks) for reject in record.rejects)]
        write_rejects(config.out, rejects)
        reasons = Counter(reject["reason"] for reject in rejects if reject["reason"] not in SKIPPED)
        told = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        which = "" if config.keep_ids else " (pneumo-fast ids ... --images tells which files they are)"
        raise ConvertError(
            f"{reasons.total()} of {total} files were rejected, {limit} are allowed ({told}): see "
            f"{config.out / 'rejects.csv'}{which}; "
            f"fix them, or raise --max-rejects and resume with --resume{_remedies(reasons)}"
        )
    return stored


def _remedies(reasons: Iterable[str]) -> str:
    """The options that help against some reasons, to be said behind all else."""
    helping = [f"{REMEDIES[reason]} for {reason}" for reason in reasons if reason in REMEDIES]
    return f"; or begin again (--overwrite) with {', '.join(helping)}" if helping else ""


def _finished(tasks: list[Task]) -> Iterator[Record]:
    """The records of finished tasks, read one after the other: many together are large."""
    return (record for task in tasks if (record := Record.find(task)))


def _records(config: ConvertConfig, tasks: list[Task]) -> Iterator[Record]:
    """Every task's record; what another machine wrote on shared disks may take a while to be seen on this one."""
    deadline = time.monotonic() + (SHARED_DISK_S if config.scheduler else 0.0)
    for task in tasks:
        while (record := Record.find(task)) is None:
            if time.monotonic() > deadline:
                raise ConvertError(
                    f"{len(tasks) - len(list(_finished(tasks)))} of {len(tasks)} finished shards are not in "
                    f"{config.out}: does the cluster write to the same disks, and does nothing else write there? "
                    "Resume with --resume"
                )
            time.sleep(1.0)
        yield record


@contextmanager
def _workers(config: ConvertConfig, tasks: int) -> Iterator[Submit]:
    """Where the tasks run; however the block ends, no worker and nothing half-written is left."""
    count = min(worker_count(config.workers, uses_gpu=config.uses_gpu), tasks)
    try:
        with dask_workers(config.scheduler) if config.scheduler else local_workers(count) as submit:
            yield submit
    finally:
        sweep_partials(config.out)
