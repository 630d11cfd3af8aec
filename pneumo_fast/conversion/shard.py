"""One task becomes one whole shard, or images in memory, and a record of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from pneumo_fast.conversion.gpu_decoder import DecodedAhead
from pneumo_fast.conversion.task import NO_FILE, Record, Source, Task, shallow
from pneumo_fast.dataset.npy import Images, ShardWriter, image_digest, pixel_hash, store_unit, write_array
from pneumo_fast.dataset.pseudonyms import pseudonym
from pneumo_fast.errors import RejectedImageError
from pneumo_fast.radiograph.read import Facts, Radiograph, read_facts, read_radiograph


def convert_task(task: Task, rejected_sources: dict[int, tuple[str, str]], at: Callable[[int], None]) -> Record:
    """Convert one task's images. The files that are written are whole, but not flushed to disk.

    Parameters
    ----------
    rejected_sources : dict
        Sources, by position, that killed or stopped a worker before, with reason and detail: not read again.
    at : callable
        Called with the position of a source before it is read, and with :data:`NO_FILE` after the last.

    Raises
    ------
    OSError
        If the shard cannot be written.
    """
    images = len({source.image_id for source in task.sources})
    rows: list[dict[str, Any]] = []
    rejects: list[dict[str, str]] = []
    totals: list[tuple[float, float]] = []
    stored: Images = np.empty((task.size, task.size), np.dtype(task.dtype).newbyteorder("<"))
    ahead = DecodedAhead(task, at)
    with ShardWriter(task.out / f"{task.name}.npy", expected=images - len(rejected_sources)) as shard:
        for position, source in enumerate(task.sources):
            decoded = ahead.take(position)
            at(position)
            try:
                if position in rejected_sources:
                    raise RejectedImageError(*rejected_sources[position])
                if rows and rows[-1]["image_id"] == source.image_id:
                    raise RejectedImageError("not_the_first", "another file of the row was taken")
                row, total = _read_image(task, source, stored, len(rows), decoded)
            except RejectedImageError as error:
                rejects.append({"path": source.shown_path, "reason": error.reason, "detail": error.detail})
            else:
                row["pixel_hash"] = pixel_hash(_store(task, source, stored, row["shard"], shard))
                if not task.lasting:
                    row["sums"] = total
                rows.append(row)
                totals.append(total)
        at(NO_FILE)
        size, checksum = shard.finish()
    return Record(
        name=task.name, split=task.split, bytes=size, checksum=checksum, sum=sum(total for total, _ in totals),
        square_sum=sum(square for _, square in totals),
        pixels=sum(task.size**2 - row["padding_pixels"] for row in rows) if task.pixels else 0, images=rows,
        rejects=rejects,
    )  # fmt: skip


def _store(task: Task, source: Source, image: Images, name: str, shard: ShardWriter) -> bytes:
    """Put an image where the task wants it; its digest, or nothing where it is not to last."""
    if task.memory is not None:
        if os.pwrite(task.memory, image.data, source.place * image.nbytes) != image.nbytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return b""
    if task.layout == "source":
        return b""
    digest = image_digest(image) if task.lasting else b""
    if task.layout == "folder":
        path = task.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_array(path, image)
    else:
        shard.append(image, digest)
    return digest


def _read_image(
    task: Task, source: Source, out: Images, row: int, decoded: Radiograph | None
) -> tuple[dict[str, Any], tuple[float, float]]:
    """Read one image into ``out``, where pixels are wanted; return its row of the index, and the sums of its pixels."""
    path = task.images / source.path
    facts: Facts
    total = 0.0, 0.0
    if task.pixels:
        facts = radiograph = decoded or read_radiograph(
            path, task.size, decode_mode=task.decode, window=task.window, max_pixels=task.max_pixels,
            selection=task.selection,
        )  # fmt: skip
        total = store_unit(radiograph.pixels, out)
    else:
        facts = read_facts(path, task.size, window=task.window, max_pixels=task.max_pixels, selection=task.selection)
    columns = {
        "image_id": source.image_id,
        "split": task.split,
        "shard": _file_of(task, source),
        "row": row if task.layout == "shards" else 0,
        **shallow(facts.metadata),
        "intensity": facts.intensity,
        "padding_pixels": facts.padding_pixels,
        "notes": " ".join(facts.notes),
        "uid_hash": pseudonym(task.key, "uid", facts.uid_hash),
        "pixel_hash": "",  # it is hashed where it is written
    }
    return columns, total


def _file_of(task: Task, source: Source) -> str:
    """The file that holds the pixels of an image, as the index names it."""
    if task.layout == "shards":
        return f"{task.name}.npy"
    return source.shown_path if task.layout == "source" else f"{task.split}/{source.label}/{source.image_id}.npy"
