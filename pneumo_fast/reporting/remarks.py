"""What of a run's files does not belong together: figures, heat maps and checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pneumo_fast.errors import RunError
from pneumo_fast.evaluation.folders import evaluations_of
from pneumo_fast.evaluation.results import MetricsFile, read_metrics
from pneumo_fast.explanation.results import ExplanationFile
from pneumo_fast.files import joint_checksum, open_regular, sha256_of
from pneumo_fast.formatting import shell_command
from pneumo_fast.run.layout import BEST, fold_folder
from pneumo_fast.vocabulary import SPLIT_NAMES


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that is missing, or that does not belong to the rest, and what to do about it."""

    about: str
    """``checkpoint``, ``predictions``, ``config``, ``history``, ``dataset``, ``explanation`` or ``heat maps``."""
    sentence: str
    """On the terminal."""
    on_page: str = ""
    """On the page, which names no folder; empty where it is the same."""


def remark_with_command(about: str, before: str, command: Sequence[str | Path], after: str) -> Remark:
    """A remark with a command in it, whose paths stand as they are on the terminal, and by name alone on the page."""
    by_name = [word.resolve().name if isinstance(word, Path) else word for word in command]
    return Remark(about, *(f"{before}{shell_command(*words)}{after}" for words in (command, by_name)))


def check_checkpoint(run: Path, metrics: MetricsFile, explanation: ExplanationFile | None) -> list[Remark]:
    """Say where metrics and explanation are of another checkpoint than the one that is there."""
    judged = metrics.run.sha256
    sentences = []
    try:
        there = _checksum(run, len(metrics.run.folds))
    except OSError:
        sentences.append(f"The run's {BEST} is not there: whether the figures are its own cannot be checked.")
    else:
        if there != judged:
            sentences.append(
                f"The figures are of another checkpoint ({judged[:12]}…) than the {BEST} that is there now "
                f"({there[:12]}…): run pneumo-fast evaluate again."
            )
    if explanation is not None and (explained := explanation.run.sha256) != judged:
        sentences.append(
            f"The heat maps are of another checkpoint ({explained[:12]}…) than the figures ({judged[:12]}…): run "
            "pneumo-fast explain again."
        )
    return [Remark("checkpoint", sentence) for sentence in sentences]


def check_images(run: Path, metrics: MetricsFile, explanation: ExplanationFile | None) -> list[Remark]:
    """Say where the heat maps are of other images than the figures."""
    if explanation is None:
        return []
    same_data = explanation.dataset.identity == metrics.dataset.identity
    if same_data and explanation.split == metrics.split:
        return []
    maps, judged = (SPLIT_NAMES.get(split, split) for split in (explanation.split, metrics.split))
    where = "" if same_data else " of another dataset"
    said = f"The heat maps are of the {maps} split{where}, the figures of the {judged} split"
    if metrics.run.folds and not metrics.folds:
        before = f"{said}, which all folds scored together and no heat map shows: for figures of the same images, run "
        if pooled := _pooled(run):
            return [remark_with_command("heat maps", before, ["report", run, "--evaluation", pooled], ".")]
        return [remark_with_command("heat maps", before, ["evaluate", run], ", which names the report to make then.")]
    data = () if metrics.dataset.trained_on else ("--dataset", Path(metrics.dataset.path))
    command = ["explain", run, *data, "--split", metrics.split]
    before = f"{said}: for those of the same images, run "
    return [remark_with_command("heat maps", before, command, ", then the report again.")]


def _pooled(run: Path) -> str | None:
    """Name of the evaluation of a cross-validation that pools its out-of-fold predictions; None where there is none."""
    for folder in evaluations_of(run):
        with suppress(RunError):
            if read_metrics(folder).folds:
                return folder.name
    return None


def _checksum(run: Path, folds: int) -> str:
    """That of the best checkpoint that is there; of a cross-validation, of those of all folds."""
    found = []
    for folder in [fold_folder(run, fold) for fold in range(1, folds + 1)] or [run]:
        with open_regular(folder / BEST) as file:
            found.append(sha256_of(file))
    return joint_checksum(found) if folds else found[0]
