"""The folder of a cross-validation: a run for each fold, and beside them what judging all of them wrote."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pneumo_fast.errors import RunError
from pneumo_fast.files import read_regular
from pneumo_fast.records import LARGEST_BYTES, Fault, build
from pneumo_fast.run.checkpoint import Trained, load_trained
from pneumo_fast.run.folder import clear_run, names_in, read_config
from pneumo_fast.run.layout import BEST, CONFIG, FOLD, FOLD_PREFIX, HISTORY, fold_folder


@dataclass(frozen=True, kw_only=True, slots=True)
class _Options:
    """Options of ``train`` that the settings of a checkpoint do not have as they were given."""

    folds: int | None = None
    fold: int | None = None
    epochs: int
    patience: int | None = None
    pos_weight: float | str


def is_cross_validation(run: Path) -> bool:
    """Whether a folder holds the runs of folds, and no run itself."""
    return not any((run / name).exists() for name in (CONFIG, BEST)) and bool(_folders(run))


def fold_folders(run: Path) -> list[Path]:
    """The folders of all folds of a cross-validation, from the first.

    Raises
    ------
    RunError
        If one is missing, one is there beyond the last, or it is not known how many there are.
    """
    there = _folders(run)
    options = _options(there[0])
    if not options.folds or not options.fold:
        raise RunError(f"{there[0]} is no fold of a cross-validation: train with --folds, or name the run itself")
    check_place(run, options.folds, overwrite=False)
    for fold in range(1, options.folds + 1):
        if fold_folder(run, fold) not in there:
            raise RunError(f"{_which(run, fold, options.folds)} is missing: {_again(options.folds)}")
    return [fold_folder(run, fold) for fold in range(1, options.folds + 1)]


def _which(run: Path, fold: int, folds: int) -> str:
    return f"fold {fold} of {folds} in {run}"


def _again(folds: int) -> str:
    return f"train with --folds {folds} --resume"


def open_folds(run: Path) -> list[tuple[Path, Trained]]:
    """Folder and best checkpoint of every fold of a cross-validation, from the first; all are finished.

    Raises
    ------
    RunError
        If one is missing, unfinished or damaged, or they were not trained alike on the same data.
    """
    folders = fold_folders(run)
    folds = [_open_fold(run, folder, fold, len(folders)) for fold, folder in enumerate(folders, start=1)]
    (first, _, alike), *others = folds
    for folder, _, values in others:
        for name in sorted(alike.keys() | values.keys()):
            if (one := alike.get(name)) != (other := values.get(name)):
                found = "" if name == "dataset" else f" ({one!r} in {first.name}, {other!r} in {folder.name})"
                raise RunError(f"the folds of {run} were trained with different {name}{found}: train them alike")
    return [(folder, checkpoint) for folder, checkpoint, _ in folds]


def _open_fold(run: Path, folder: Path, fold: int, folds: int) -> tuple[Path, Trained, dict[str, Any]]:
    """A finished fold's folder and best checkpoint, and what all folds have to share."""
    which, again = _which(run, fold, folds), _again(folds)
    options = _options(folder)
    try:
        done = len(read_regular(folder / HISTORY, LARGEST_BYTES).splitlines())
    except OSError:
        done = 0
    if not done or not (folder / BEST).exists():
        raise RunError(f"{which} is unfinished (0 of {options.epochs} epochs): {again}")
    checkpoint = load_trained(folder / BEST)
    if done < options.epochs and not (options.patience and done - checkpoint.best_epoch >= options.patience):
        raise RunError(f"{which} is unfinished ({done} of {options.epochs} epochs): {again}")
    own = {name: checkpoint.settings.get(name) for name in ("fold", "folds")}
    if own != {"fold": fold, "folds": folds} or checkpoint.epoch > done:
        raise RunError(f"{folder / BEST} is not the checkpoint of {which}: put it back, or train that fold again")
    by_fold = {"fold", "pos-weight", "batch-size"}  # auto, or none given, comes to another number in each
    shared = {name: value for name, value in checkpoint.settings.items() if name not in by_fold}
    shared |= {name: getattr(checkpoint, name) for name in ("arch", "size", "mean", "std", "monitor")}
    shared |= {"dataset": checkpoint.dataset_identity, "epochs": options.epochs}
    shared |= {"pos-weight": options.pos_weight}
    return folder, checkpoint, shared


def _options(folder: Path) -> _Options:
    try:
        return build(read_config(folder).config, _Options)
    except Fault as error:
        raise RunError(f"{folder / CONFIG} is damaged ({error}): train that fold again") from error


def check_place(out: Path, folds: int, *, overwrite: bool) -> None:
    """Refuse a folder that holds anything but an earlier cross-validation; its folds are not looked into.

    Raises
    ------
    RunError
        If it does, has folds beyond the last one and they are not to be overwritten, or cannot be read.
    """
    try:
        names = names_in(out)
    except OSError as error:
        raise RunError(f"run folder {out} cannot be read ({error.strerror}): name another --out") from error
    if names and not is_cross_validation(out):
        what = "holds a run that is no cross-validation" if CONFIG in names else "is not empty"
        raise RunError(f"{out} {what}: name another --out")
    beyond = [folder.name for folder in _folders(out) if int(folder.name.removeprefix(FOLD_PREFIX)) > folds]
    if beyond and not overwrite:
        raise RunError(f"{out} holds {beyond[0]}, which is none of {folds} folds: move it away, or name another folder")


def clear_folds(out: Path) -> None:
    """Remove an earlier cross-validation, and nothing else.

    Raises
    ------
    RunError
        If that cannot be done.
    """
    for folder in _folders(out):
        clear_run(folder, keep=False)
        with suppress(OSError):  # it is locked, or holds other people's files
            folder.rmdir()
    clear_run(out, keep=False)


def _folders(run: Path) -> list[Path]:
    """Those that are there."""
    return sorted(path for path in run.glob(f"{FOLD_PREFIX}*") if FOLD.fullmatch(path.name) and path.is_dir())
