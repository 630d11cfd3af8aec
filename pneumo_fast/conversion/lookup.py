"""From pseudonyms back to the ids they stand for: whoever has the key makes them again from the label table."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from pneumo_fast.conversion.labels import labels_of
from pneumo_fast.conversion.options import ConvertConfig, IdsConfig
from pneumo_fast.conversion.plan import find_files, printable
from pneumo_fast.conversion.resume import ARGUMENTS
from pneumo_fast.conversion.task import WORK_FOLDER
from pneumo_fast.dataset.folder import Dataset, csv_text
from pneumo_fast.dataset.format import MANIFEST, UNMATCHED, WITHOUT_ROW
from pneumo_fast.dataset.identifiers import key_of
from pneumo_fast.dataset.pseudonyms import load_key, pseudonym
from pneumo_fast.errors import ConfigError, DatasetError
from pneumo_fast.files import open_regular, read_regular, write_atomic
from pneumo_fast.records import LARGEST_BYTES, Fault, build, read

COLUMNS = ("kind", "pseudonym", "id")
MAPPING_NEEDED = "Patients were not looked up: give --groups, the mapping file that the dataset was made with"
MOST_FILES = 32
"""Files of one row that are looked up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IdsSummary:
    """What was looked up."""

    out: Path
    found: dict[str, int]
    """Pseudonyms whose id was found, by kind: ``image``, ``row`` (of the label table, without a file), ``group``
    (patient) and ``path`` (of a file that was rejected or has no row)."""
    unknown: dict[str, int]
    """Those whose id does not stand in what was given."""
    notes: tuple[str, ...] = ()
    """What was not looked up, and how it would be, in sentences."""


def look_up_ids(config: IdsConfig) -> IdsSummary:
    """Write a table of a dataset's pseudonyms and the ids they stand for, which its owner alone can read.

    Its columns are ``kind`` (``image``, ``row`` for one of the label table without a file, ``group`` for a patient,
    ``path`` for a file that was rejected or has no row), ``pseudonym`` and ``id``. The dataset tells the columns;
    groups of a mapping file are looked up where it is given.

    Raises
    ------
    ConfigError
        If the key is not the dataset's, or the table would lie in the dataset or replace a file, or cannot be written.
    DatasetError
        If the dataset is missing or damaged, holds ids as they are, or is of another table.
    LabelError
        If the table cannot be used.
    """
    _check_out(config)
    key, conversion, wanted, notes = _wanted(config)
    given = _given(config, conversion)
    rows, found = [], {}
    for kind, pseudonyms in wanted.items():
        ids = {pseudonym(key, "image" if kind == "row" else kind, text): text for text in given[kind]}
        rows += [(kind, name, ids[name]) for name in pseudonyms if name in ids]
        found[kind] = len(ids.keys() & set(pseudonyms))
    if not rows:
        raise DatasetError(
            f"no pseudonym of dataset {config.dataset} stands for an id of {config.labels}: give the table that it was "
            "made from"
        )
    table = csv_text(pd.DataFrame(rows, columns=list(COLUMNS)))
    try:
        write_atomic(config.out, table.encode("utf-8", "surrogateescape"), mode=0o600)
    except OSError as error:
        raise ConfigError(
            f"{config.out} cannot be written ({error.strerror}): name a file with --out in a folder that is there, may "
            "be written and has room"
        ) from error
    unknown = {kind: len(wanted[kind]) - count for kind, count in found.items()}
    return IdsSummary(out=config.out, found=found, unknown=unknown, notes=notes)


def _check_out(config: IdsConfig) -> None:
    if config.out.resolve().is_relative_to(config.dataset.resolve()):
        raise ConfigError(f"{config.out} lies in the dataset, which is to hold no ids: name another file with --out")
    if config.out.is_dir():
        raise ConfigError(f"{config.out} is a folder: name a file with --out")
    if config.out.exists() and not config.overwrite:
        raise ConfigError(f"{config.out} is there already: give --overwrite to replace it, or name another file")


def _wanted(config: IdsConfig) -> tuple[bytes, ConvertConfig, dict[str, list[str]], tuple[str, ...]]:
    """The key, how the dataset was converted, its pseudonyms by kind, as far as ids are given for them, and notes.

    Of a conversion that ended because too much was rejected there are the rejected files alone.
    """
    folder = config.dataset
    rejects, begun = folder / "rejects.csv", folder / WORK_FOLDER / ARGUMENTS
    if config.images and begun.exists() and rejects.exists() and not (folder / MANIFEST).exists():
        return (
            load_key(config.hash_key),
            _conversion(config, read_regular(begun, LARGEST_BYTES)),
            {"path": _column(rejects, "path")},
            (),
        )
    dataset = Dataset.open(folder, check_files=False)
    manifest, wanted = dataset.manifest, {}
    if manifest.ids == "pseudonyms":
        wanted["image"] = dataset.index["image_id"].tolist()
        wanted["row"] = _column(folder / UNMATCHED, "image_id")
        if config.images:
            wanted["path"] = [*_column(rejects, "path"), *_column(folder / WITHOUT_ROW, "path")]
    source = manifest.split.get("group_source")
    notes = (MAPPING_NEEDED,) if source == "mapping" and not config.groups else ()
    if source == "column" or config.groups:
        wanted["group"] = [group for group in dataset.index["group"].unique() if group]
    if not wanted:
        what = MAPPING_NEEDED if notes else "there is nothing to look up"
        raise DatasetError(f"dataset {folder} holds image ids as they are (--keep-ids). {what}")
    return key_of(dataset, config.hash_key), _conversion(config, json.dumps(manifest.arguments)), wanted, notes


def _conversion(config: IdsConfig, arguments: bytes | str) -> ConvertConfig:
    """The options of the conversion, from its arguments in JSON, with the files named here."""
    given = {"images": str(config.images or ""), "labels": str(config.labels)}
    try:
        options = {**build(read(arguments, dict[str, Any]).get("options"), dict[str, Any]), **given}
        return replace(build(options, ConvertConfig), groups=config.groups)
    except Fault as error:
        raise DatasetError(f"dataset {config.dataset} does not tell how it was converted ({error})") from error


def _column(table: Path, name: str) -> list[str]:
    """A column of a table that lies beside the index; nothing where an earlier release wrote none."""
    try:
        with open_regular(table) as file:
            return pd.read_csv(file, dtype=str, keep_default_na=False)[name].tolist()
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError) as error:
        raise DatasetError(f"{table} cannot be read ({type(error).__name__}): run convert again") from error


def _given(config: IdsConfig, conversion: ConvertConfig) -> dict[str, list[str]]:
    """Ids that pseudonyms may stand for, by kind."""
    labels = labels_of(conversion).images
    paths = [printable(path) for path in find_files(config.images, config.dataset)] if config.images else []
    ids = labels["image_id"].tolist()
    groups = labels["group"].unique().tolist()
    if conversion.several == "all":  # of a row with several files each has a number, and the row is their patient
        groups += ids
        ids += [f"{image_id}-{number}" for image_id in ids for number in range(1, MOST_FILES + 1)]
    return {"image": ids, "row": ids, "group": groups, "path": paths}
