"""From the records of finished tasks to a dataset: the tables, the statistics, and last of all the manifest."""

from __future__ import annotations

import math
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import pandas as pd

from pneumo_fast import __version__
from pneumo_fast.conversion.gpu_decoder import DECODED_ON_GPU
from pneumo_fast.conversion.labels import LabelTable
from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.conversion.plan import Plan
from pneumo_fast.conversion.resume import Arguments, source_files
from pneumo_fast.conversion.task import WORK_FOLDER, Record
from pneumo_fast.dataset.folder import ROWS_AT_ONCE, write_table
from pneumo_fast.dataset.format import (
    BOX_COLUMNS,
    BOXES,
    FORMAT,
    FORMAT_VERSION,
    INDEX,
    INDEX_TYPES,
    MANIFEST,
    REJECT_COLUMNS,
    UNMATCHED,
    WITHOUT_ROW,
    Manifest,
    ShardInfo,
)
from pneumo_fast.dataset.leaks import count_duplicates, describe_leaks
from pneumo_fast.dataset.npy import SCALES
from pneumo_fast.dataset.pseudonyms import key_id, pseudonym
from pneumo_fast.dataset.splits import label_counts
from pneumo_fast.errors import ConvertError
from pneumo_fast.files import write_atomic
from pneumo_fast.vocabulary import REJECTS

BOXES_OUTSIDE: Final = "boxes_outside"
BOXES_CUT_OFF: Final = "boxes_cut_off"
BEYOND_PIXELS: Final = 1.0  # less comes from rounding to whole pixels


def assemble(
    config: ConvertConfig, arguments: Arguments, labels: LabelTable, plan: Plan, found: Iterable[Record], key: bytes
) -> Manifest:
    """Write the tables and then the manifest, which makes the folder a dataset; remove the records.

    Raises
    ------
    ConvertError
        If no image is left for training, or all of them are of one colour.
    """
    records, stored = _collect(found)
    rejects = [*plan.rejects, *(reject for record in records for reject in record.rejects)]
    rejected = write_rejects(config.out, rejects)
    mean, std = _statistics(records)
    index = _index(plan, stored, key)
    boxes = _boxes(labels, stored)
    tables = {
        INDEX: write_table(config.out, INDEX, index),
        BOXES: write_table(config.out, BOXES, _made_square(boxes, stored)),
        REJECTS: rejected,
        UNMATCHED: write_table(config.out, UNMATCHED, pd.DataFrame({"image_id": sorted(plan.unmatched)})),
        WITHOUT_ROW: write_table(config.out, WITHOUT_ROW, pd.DataFrame({"path": sorted(plan.files_without_row)})),
    }
    images = Counter(stored["task"])
    manifest = Manifest(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        created_by=f"pneumo-fast {__version__}",
        layout=config.layout,
        image_shape=(config.size, config.size),
        dtype=config.dtype,
        scale=SCALES[config.dtype],
        mean=mean,
        std=std,
        ids="kept" if config.keep_ids else "pseudonyms",
        preprocessing={
            "decode": config.decode,
            "window": config.window,
            "resampling": "antialiased bilinear, float32",
            "aspect": "longer side fits, centred on black",
        },
        split=_split_facts(config, labels, index, key),
        counts=label_counts(index),
        input=_input_facts(config, labels, plan, index) | _unknown_kinds(stored) | _misplaced(boxes),
        duplicates=_duplicates(stored),
        rejects=dict(sorted(Counter(reject["reason"] for reject in rejects).items())),
        arguments=asdict(arguments),
        shards=tuple(
            ShardInfo(name=f"{r.name}.npy", split=r.split, rows=images[r.name], bytes=r.bytes, checksum=r.checksum)
            for r in records
            if r.bytes
        ),
        tables=tables,
        source=source_files(config, _in_statistics(records, images)) if config.layout == "source" else None,
    )
    write_atomic(config.out / MANIFEST, manifest.to_json())
    shutil.rmtree(config.out / WORK_FOLDER)
    return manifest


def _collect(found: Iterable[Record]) -> tuple[list[Record], pd.DataFrame]:
    """The records without their images, and these in one table, with the name of their task.

    They are read one after the other, and texts that are equal in one of them are one object: as dictionaries, each
    with texts of its own, the rows take three times the memory (1.5 GB of 870,000).
    """
    records: list[Record] = []
    tables: list[pd.DataFrame] = []
    columns: defaultdict[str, list[Any]] = defaultdict(list)
    for record in found:
        records.append(replace(record, images=[]))
        rows = record.images
        for name in {"pixel_height": 1.0, **rows[0]} if rows else ():
            columns[name] += _sharing([row.get(name, 1.0) for row in rows])
        columns["task"] += [record.name] * len(rows)
        if len(columns["task"]) >= ROWS_AT_ONCE:
            tables.append(pd.DataFrame(columns))
            columns.clear()
    if columns["task"]:
        tables.append(pd.DataFrame(columns))
    return records, pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _sharing(values: list[Any]) -> list[Any]:
    known: dict[Any, Any] = {}
    return [known.setdefault(value, value) for value in values]


def _index(plan: Plan, stored: pd.DataFrame, key: bytes) -> pd.DataFrame:
    """The rows that workers wrote, with what only the label table knows; groups by pseudonym."""
    known = plan.images.drop_duplicates("image_id").set_index("image_id")
    known["group"] = [pseudonym(key, "group", group) for group in known["group"].tolist()]
    known = known[["label", "class", "group"]].loc[stored["image_id"]].reset_index(drop=True)
    return pd.concat([stored, known], axis=1)[list(INDEX_TYPES)]


def _boxes(labels: LabelTable, stored: pd.DataFrame) -> pd.DataFrame:
    """Boxes of the stored images, in the order of the index, with the size of the source, in its pixels."""
    sizes = stored[["image_id", "height", "width", "pixel_height"]]
    names = {"height": "source_height", "width": "source_width"}
    return sizes.rename(columns=names).merge(labels.boxes, on="image_id")


def _made_square(boxes: pd.DataFrame, stored: pd.DataFrame) -> pd.DataFrame:
    """The same in pixels made square."""
    if (stored["pixel_height"] != 1.0).any():  # else whole numbers stay whole
        tall = {name: boxes[name] * boxes["pixel_height"] for name in ("y", "height", "source_height")}
        boxes = boxes.assign(**tall)
    return boxes[list(BOX_COLUMNS)]


def _input_facts(config: ConvertConfig, labels: LabelTable, plan: Plan, index: pd.DataFrame) -> dict[str, int]:
    """Counts of what was found and left out, and of images that a reader should know of."""
    return {
        "label_rows": len(labels.images) + len(labels.left_out),
        "ignored": len(labels.left_out),
        "rows_without_file": len(plan.unmatched),
        "files_without_row": len(plan.files_without_row),
        "dropped_ungrouped": plan.ungrouped if config.ungrouped == "drop" else 0,
        "burned_in": int((index["burned_in"] == "YES").sum()),
        "quality_control": _noted(index, "quality_control_image"),
        DECODED_ON_GPU: _noted(index, DECODED_ON_GPU),
    }


def _noted(index: pd.DataFrame, note: str) -> int:
    return int(index["notes"].str.contains(note, regex=False).sum())


def _unknown_kinds(stored: pd.DataFrame) -> dict[str, int]:
    """Stored images whose header does not tell what they are of, so that nobody looked whether they are wanted."""
    unknown = {"modality": {"", "OT"}, "view": {""}, "body_part": {""}}
    return {f"unknown_{name}": int(stored[name].isin(values).sum()) for name, values in unknown.items()}


def _misplaced(boxes: pd.DataFrame) -> dict[str, int]:
    """Boxes that lie outside of their images, and others that go beyond an edge by more than :data:`BEYOND_PIXELS`."""
    outside = (boxes["x"] >= boxes["source_width"]) | (boxes["y"] >= boxes["source_height"])
    right = boxes["x"] + boxes["width"] - boxes["source_width"]
    below = boxes["y"] + boxes["height"] - boxes["source_height"]
    cut_off = ((right > BEYOND_PIXELS) | (below > BEYOND_PIXELS)) & ~outside
    return {BOXES_OUTSIDE: int(outside.sum()), BOXES_CUT_OFF: int(cut_off.sum())}


def _in_statistics(records: list[Record], images: Counter[str]) -> int:
    """Training images whose pixels have been added up."""
    return sum(images[record.name] for record in records if record.split == "train" and record.pixels)


def _duplicates(stored: pd.DataFrame) -> dict[str, int]:
    """Images that are there more than once, by their pixels and by their SOP Instance UIDs."""
    facts = {}
    for name, column in (("pixels", "pixel_hash"), ("uids", "uid_hash")):
        if name == "uids" or stored[column].any():  # no pixels are known of source files
            counts = count_duplicates(stored["split"], stored[column])
            facts[f"equal_{name}"], facts[f"equal_{name}_across_splits"] = counts
    return facts


def write_rejects(out: Path, rejects: list[dict[str, str]]) -> str:
    """Write ``rejects.csv``, sorted by path; return its checksum."""
    table = pd.DataFrame(rejects, columns=list(REJECT_COLUMNS)).sort_values("path")
    return write_table(out, REJECTS, table)


def _statistics(records: list[Record]) -> tuple[float, float]:
    """Mean and standard deviation of the train split's pixels that are no padding, from float64 sums."""
    train = [record for record in records if record.split == "train"]
    pixels = sum(record.pixels for record in train)
    if not pixels:
        raise ConvertError(
            "no image is left for training: every one was rejected (see rejects.csv), or goes to another split"
        )
    mean = math.fsum(record.sum for record in train) / pixels
    variance = math.fsum(record.square_sum for record in train) / pixels - mean**2
    if variance <= 1e-12:
        raise ConvertError(f"every pixel of the train split has the value {mean:g}: these are not radiographs")
    return mean, math.sqrt(variance)


def _split_facts(config: ConvertConfig, labels: LabelTable, index: pd.DataFrame, key: bytes) -> dict[str, Any]:
    """How the split was made and what is known about leaks."""
    grouped = index[index["group"] != ""]
    ungrouped = len(index) - len(grouped)
    return {
        "seed": config.seed,
        "val_fraction": config.val_fraction,
        "test_fraction": config.test_fraction,
        "by": "image" if labels.group_source == "none" else "group",
        "group_source": labels.group_source,
        "groups": int(grouped["group"].nunique()),
        "ungrouped_images": ungrouped,
        "ungrouped": config.ungrouped,
        "leaks": describe_leaks(labels.group_source, ungrouped),
        "hash_key_id": key_id(key),
    }
