"""Who may write into a dataset folder: a new conversion, one that replaces, or one that goes on."""

from __future__ import annotations

import contextlib
import hmac
import io
import json
import logging
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from pneumo_fast.configuration import options_of, settings
from pneumo_fast.conversion.labels import LabelTable
from pneumo_fast.conversion.options import DIGEST, ConvertConfig
from pneumo_fast.conversion.plan import Plan, printable
from pneumo_fast.conversion.task import WORK_FOLDER
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.format import BOXES, FORMAT, INDEX, MANIFEST, UNMATCHED, WITHOUT_ROW, Manifest, SourceFiles
from pneumo_fast.errors import ConvertError, DatasetError
from pneumo_fast.files import read_regular, sweep_partials, write_atomic
from pneumo_fast.folders import LOCK
from pneumo_fast.records import LARGEST_BYTES, Fault, build, is_of, parse_file, path_text
from pneumo_fast.vocabulary import REJECTS, SPLITS

logger = logging.getLogger(__name__)

ARGUMENTS: Final = "arguments.json"
TABLES: Final = (INDEX, BOXES, REJECTS, UNMATCHED, WITHOUT_ROW)
PIXELS: Final = ("{}-[0-9][0-9][0-9][0-9][0-9].npy", "{}/[01]/*.npy")
"""In both layouts, below the split's name."""


class _Digest(io.TextIOBase):
    """Takes text as a file does and keeps its keyed hash alone."""

    def __init__(self, key: bytes) -> None:
        self.hash = hmac.new(key, digestmod="sha256")

    def write(self, text: str) -> int:
        self.hash.update(text.encode("utf-8", "surrogatepass"))
        return len(text)


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """What decides every byte of a dataset."""

    options: dict[str, Any]
    """The options that shape the result."""
    input_digest: str
    """Keyed hash of the files' names and of all that the tables say of them."""
    files: list[str] = field(default_factory=list)
    """Options that named a file which the digest stands for, so that a repetition can ask for it."""

    @classmethod
    def of(cls, config: ConvertConfig, labels: LabelTable, plan: Plan, key: bytes) -> Arguments:
        """Work them out for a conversion."""
        digest = _Digest(key)
        plan.images.to_csv(digest)
        digest.write("\0")
        labels.boxes.to_csv(digest)
        digest.write("\0" + json.dumps(plan.rejects))
        return cls(
            options=json.loads(json.dumps(settings(config))),  # as it will be read
            input_digest=digest.hash.hexdigest(),
            files=[
                name
                for name, known in options_of(ConvertConfig).items()
                if known.option.recorded == DIGEST and not known.option.positional and getattr(config, name)
            ],
        )

    def differences(self, other: Arguments) -> list[str]:
        """Names of what differs."""
        names = sorted(self.options.keys() | other.options.keys())
        known = options_of(ConvertConfig)
        spelled = {name: known[name].spelled if name in known else name.replace("_", "-") for name in names}
        different = [spelled[name] for name in names if self.options.get(name) != other.options.get(name)]
        if not different and self.input_digest != other.input_digest:
            different = ["the image files, the tables or the hash key"]
        return different


def find_finished(config: ConvertConfig, arguments: Arguments) -> Manifest | None:
    """Look whether the dataset folder may be written; changes nothing.

    Returns
    -------
    Manifest or None
        The manifest of a finished dataset, where resuming finds one and there is nothing left to do.

    Raises
    ------
    ConvertError
        If the folder is taken, or holds a conversion with other arguments that cannot be resumed with these.
    """
    manifest = _check(config, arguments)
    return None if (config.out / WORK_FOLDER).exists() else manifest


def claim(config: ConvertConfig, arguments: Arguments) -> Manifest | None:
    """Make the dataset folder ready to be written; other people's files in it are left alone.

    Returns
    -------
    Manifest or None
        As :func:`find_finished`; what a killed process had left to clean up is gone then.

    Raises
    ------
    ConvertError
        As :func:`find_finished`: another process may have written there since.
    """
    manifest, work = _check(config, arguments), config.out / WORK_FOLDER
    if config.resume and (manifest or (work / ARGUMENTS).exists()):
        sweep_partials(config.out)
        if manifest:
            shutil.rmtree(work, ignore_errors=True)  # killed between manifest and clean-up
        return manifest
    work.mkdir(exist_ok=True)  # first, or a kill would leave files that are nobody's
    _remove_dataset(config.out)
    write_atomic(work / ARGUMENTS, json.dumps(asdict(arguments)))
    return None


def _check(config: ConvertConfig, arguments: Arguments) -> Manifest | None:
    """The manifest of a finished dataset that resuming finds; refuse what may not be written."""
    out = config.out
    if out.exists() and not out.is_dir():
        raise ConvertError(f"{out} is a file: name a folder for the dataset")
    finished, begun = is_of(out / MANIFEST, FORMAT), (out / WORK_FOLDER).is_dir()
    if (finished or begun) and not (config.overwrite or config.resume):
        state = "a dataset" if finished else "an unfinished conversion (--resume resumes it)"
        raise ConvertError(f"{out} holds {state}: give --overwrite to replace it, or name another folder")
    if not (finished or begun) and out.is_dir() and any(path.name != LOCK for path in out.iterdir()):
        raise ConvertError(f"{out} holds files that are not a dataset: name an empty or a new folder")
    if not (config.resume and (finished or (out / WORK_FOLDER / ARGUMENTS).exists())):
        return None
    manifest = _check_resumed(out, arguments, finished=finished)
    if manifest and manifest.source and (other := _other_reading(config, manifest.source)):
        raise ConvertError(
            f"{out} reads its files otherwise; what differs: {other}. Give the same, name another folder, or "
            "replace it (convert --overwrite)"
        )
    return manifest


def _other_reading(config: ConvertConfig, known: SourceFiles) -> str:
    """What a dataset of layout source has recorded of reading its files and is asked for otherwise, in words."""
    wanted = source_files(config, known.statistics_of)
    names = ("folder", "hash_key", "max_rejects", "timeout_s")
    return ", ".join(name.replace("_", "-") for name in names if getattr(wanted, name) != getattr(known, name))


def source_files(config: ConvertConfig, statistics_of: int) -> SourceFiles:
    """What reading the source files later on needs to know."""
    hash_key = config.hash_key if not config.keep_ids else None
    return SourceFiles(
        folder=path_text(config.images.absolute()),
        hash_key=path_text(hash_key.absolute()) if hash_key else "",
        max_rejects=config.max_rejects,
        timeout_s=config.timeout_s,
        statistics_of=statistics_of,
    )


def _check_resumed(out: Path, arguments: Arguments, *, finished: bool) -> Manifest | None:
    """Check that the conversion in the folder is this one; its manifest, if it is finished."""
    try:
        manifest = Manifest.from_json(read_regular(out / MANIFEST, LARGEST_BYTES)) if finished else None
        before = build(manifest.arguments if manifest else parse_file(out / WORK_FOLDER / ARGUMENTS), Arguments)
    except (DatasetError, Fault) as error:
        raise ConvertError(f"{out} cannot be resumed ({error}): replace it (convert --overwrite)") from error
    if different := arguments.differences(before):
        raise ConvertError(
            f"{out} was started with other arguments; what differs: {', '.join(different)}. Resume with the same, name "
            "another folder, or replace it (convert --overwrite)"
        )
    return manifest


def _remove_dataset(out: Path) -> None:
    """Remove what a conversion has written and nothing else, the manifest first; name what is left."""
    pixels = _files_of_pixels(out)
    for path in (*(out / name for name in (MANIFEST, *TABLES)), *pixels):
        path.unlink(missing_ok=True)
    for split in SPLITS:
        for folder in (out / split / "0", out / split / "1", out / split):
            with contextlib.suppress(OSError):  # it is not there, or holds other people's files
                folder.rmdir()
    sweep_partials(out)
    for path in (out / WORK_FOLDER).iterdir():
        path.unlink()
    if left := sorted(path.name for path in out.iterdir() if path.name not in {LOCK, WORK_FOLDER}):
        logger.warning("%s: left as it is, since no conversion wrote it: %s", out, ", ".join(map(printable, left)))


def _files_of_pixels(out: Path) -> list[Path]:
    """The files of a dataset by its index; without one, those that are named as a conversion names them."""
    try:
        dataset = Dataset.open(out, check_files=False)
        return [] if dataset.manifest.source else [out / name for name in set(dataset.index["shard"])]
    except DatasetError:
        return [path for split in SPLITS for pattern in PIXELS for path in out.glob(pattern.format(split))]
