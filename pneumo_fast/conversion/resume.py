"""Who may write into a dataset folder: a new conversion, one that replaces, or one that goes on."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pneumo_fast.configuration import options_of, settings
from pneumo_fast.conversion.labels import LabelTable
from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.conversion.plan import Plan
from pneumo_fast.conversion.task import WORK_FOLDER
from pneumo_fast.dataset.format import Manifest
from pneumo_fast.errors import ConvertError
from pneumo_fast.files import sweep_partials, write_atomic
from pneumo_fast.vocabulary import SPLITS

ARGUMENTS: Final = "arguments.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """What decides every byte of a dataset."""

    options: dict[str, Any]
    """The options that shape the result."""
    input_digest: str
    """Keyed hash of the files' names and of all that the tables say of them."""

    @classmethod
    def of(cls, config: ConvertConfig, labels: LabelTable, plan: Plan, key: bytes) -> Arguments:
        """Work them out for a conversion."""
        text = "\0".join((plan.images.to_csv(), labels.boxes.to_csv(), json.dumps(plan.rejects)))
        digest = hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
        return cls(options=json.loads(json.dumps(settings(config))), input_digest=digest)  # as it will be read

    def differences(self, other: Arguments) -> list[str]:
        """Names of what differs."""
        names = sorted(self.options.keys() | other.options.keys())
        known = options_of(ConvertConfig)
        spelled = {name: known[name].spelled if name in known else name.replace("_", "-") for name in names}
        different = [spelled[name] for name in names if self.options.get(name) != other.options.get(name)]
        if not different and self.input_digest != other.input_digest:
            different = ["the image files, the tables or the hash key"]
        return different


def claim(config: ConvertConfig, arguments: Arguments) -> Manifest | None:
    """Make the dataset folder ready to be written; other people's files in it are left alone.

    Returns
    -------
    Manifest or None
        The manifest of a finished dataset, where resuming finds one; there is nothing left to do then.

    Raises
    ------
    ConvertError
        If the folder is taken, or holds a conversion with other arguments that cannot be resumed with these.
    """
    out = config.out
    if out.exists() and not out.is_dir():
        raise ConvertError(f"{out} is a file: name a folder for the dataset")
    finished, begun = (out / "manifest.json").exists(), (out / WORK_FOLDER / ARGUMENTS).exists()
    if config.resume and (finished or begun):
        return _resume(out, arguments, finished=finished)
    ours = finished or (out / WORK_FOLDER).exists()
    if ours and not (config.overwrite or config.resume):
        state = "a dataset" if finished else "an unfinished conversion (--resume resumes it)"
        raise ConvertError(f"{out} holds {state}: give --overwrite to replace it, or name another folder")
    if not ours and out.is_dir() and any(out.iterdir()):
        raise ConvertError(f"{out} holds files that are not a dataset: name an empty or a new folder")
    if ours:
        _remove_dataset(out)
    (out / WORK_FOLDER).mkdir(parents=True, exist_ok=True)
    write_atomic(out / WORK_FOLDER / ARGUMENTS, json.dumps(asdict(arguments)))
    return None


def _resume(out: Path, arguments: Arguments, *, finished: bool) -> Manifest | None:
    """Check that the conversion in the folder is this one, and clear what a killed process left half-written."""
    try:
        if finished:
            manifest = Manifest.from_json((out / "manifest.json").read_text())
            before = Arguments(**manifest.arguments)
        else:
            manifest, before = None, Arguments(**json.loads((out / WORK_FOLDER / ARGUMENTS).read_text()))
    except (ValueError, TypeError) as error:
        raise ConvertError(f"{out} cannot be resumed ({error}): give --overwrite to replace it") from error
    if different := arguments.differences(before):
        raise ConvertError(
            f"{out} was started with other arguments; what differs: {', '.join(different)}. Resume with the same, or "
            "give --overwrite"
        )
    sweep_partials(out)
    if finished:
        shutil.rmtree(out / WORK_FOLDER, ignore_errors=True)  # killed between manifest and clean-up
    return manifest


def _remove_dataset(out: Path) -> None:
    """Remove what a conversion writes and nothing else, the manifest first."""
    for name in ("manifest.json", "index.csv", "boxes.csv", "rejects.csv"):
        (out / name).unlink(missing_ok=True)
    for split in SPLITS:
        for shard in out.glob(f"{split}-[0-9]*.npy"):
            shard.unlink()
        for image in out.glob(f"{split}/[01]/*.npy"):
            image.unlink()
        for folder in (out / split / "0", out / split / "1", out / split):
            with contextlib.suppress(OSError):  # it is not there, or holds other people's files
                folder.rmdir()
    sweep_partials(out)
    shutil.rmtree(out / WORK_FOLDER, ignore_errors=True)
