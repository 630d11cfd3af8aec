"""What people see in the terminal: progress bars, messages and tables."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from pneumo_fast.cli.console import err, info, out
from pneumo_fast.dataset.format import UNMATCHED, WITHOUT_ROW
from pneumo_fast.formatting import TERMINAL, harmless, shell_command
from pneumo_fast.metrics.catalogue import MONITORED
from pneumo_fast.progress import OnProgress, silent
from pneumo_fast.radiograph.rejection import SKIPPED
from pneumo_fast.run.layout import BEST, fold_folder
from pneumo_fast.training.options import describe_recipe
from pneumo_fast.vocabulary import IMAGE_IDS, SPLIT_NAMES, counted

if TYPE_CHECKING:
    from pneumo_fast.conversion.convert import ConvertSummary
    from pneumo_fast.conversion.lookup import IdsSummary
    from pneumo_fast.dataset.format import Manifest
    from pneumo_fast.loading.preview import ShowSummary
    from pneumo_fast.reporting.report import ReportSummary
    from pneumo_fast.run.checkpoint import EpochRecord
    from pneumo_fast.training.cross_validation import CrossValidationSummary
    from pneumo_fast.training.observers import OnEpoch
    from pneumo_fast.training.plan import OnStart, TrainPlan
    from pneumo_fast.training.train import TrainSummary


class PlainFormatter(logging.Formatter):
    """A message without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        return harmless(super().format(record))


EPOCH_COLUMNS = {
    "epoch": ("", "epoch"),
    **{f"train_{name}": ("train", MONITORED[name].short_label) for name in ("loss", "accuracy")},
    **{f"val_{name}": ("val", MONITORED[name].short_label) for name in ("loss", "accuracy", "auroc", "ap")},
    "images_per_s": ("", "images/s"),
    "wait_share": ("", "wait"),
}
"""What is shown of an epoch, below two lines of headings."""
EPOCH_FORMATS = {"epoch": "d", "images_per_s": ",.0f", "wait_share": ".1%"}


def set_up_logging() -> None:
    """Show the package's messages on standard error; on a terminal above the bar, for which its console makes room."""
    handler: logging.Handler
    if err.is_terminal:
        shared = info.is_terminal and not info.quiet
        handler = RichHandler(console=info if shared else err, show_time=False, show_path=False, markup=False)
        handler.setFormatter(PlainFormatter("%(message)s"))
    else:  # a line for each message, however long
        handler = logging.StreamHandler(err.file)
        handler.setFormatter(PlainFormatter("%(levelname)s %(message)s"))
    package = logging.getLogger("pneumo_fast")
    package.setLevel(logging.WARNING if info.quiet else logging.INFO)
    package.handlers = [handler]
    package.propagate = False


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=info,
        disable=info.quiet,
    )


def _updater(bar: Progress, task: TaskID, show: Callable[[], object]) -> OnProgress:
    """The function that moves a bar; the bar is shown when there is something to show, not above an early error.

    The rate is that of what came after: the first call may bring what was done before a resume.
    """
    first = 0

    def update(done: int, total: int) -> None:
        nonlocal first
        if not bar.tasks[0].total:
            first = done
            bar.reset(task, total=total, completed=done)
            show()
        elapsed = bar.tasks[0].elapsed
        rate = f"{(done - first) / elapsed:,.0f}/s" if elapsed and done > first else ""
        bar.update(task, completed=done, total=total, rate=rate)

    return update


@contextmanager
def progress(description: str) -> Iterator[OnProgress]:
    """A progress bar with rate and time left; gives the function that moves it."""
    bar = _bar()
    task = bar.add_task(description, total=None, rate="")
    with ExitStack() as stack:
        yield _updater(bar, task, lambda: stack.enter_context(bar))


@contextmanager
def training_display() -> Iterator[tuple[OnStart, OnEpoch, OnProgress]]:
    """What a training is about to do, then a line per epoch; on a terminal with a progress bar below them."""
    lines, stack = 0, ExitStack()
    move: OnProgress = silent

    def on_start(plan: TrainPlan) -> None:
        nonlocal lines, move
        lines = 0
        stack.close()
        show_plan(plan)
        if info.is_terminal:
            fold = f"fold {plan.config.fold} of {plan.config.folds}" if plan.config.fold else "training"
            move = stack.enter_context(progress(fold))

    def on_epoch(record: EpochRecord) -> None:
        nonlocal lines
        if not lines:
            for heading in zip(*EPOCH_COLUMNS.values(), strict=True):
                info.print(_epoch_line(heading), style="bold")
        lines += 1
        info.print(_epoch_line(format(record[name], EPOCH_FORMATS.get(name, ".3f")) for name in EPOCH_COLUMNS))

    def on_progress(done: int, total: int) -> None:
        move(done, total)

    with stack:
        if info.is_terminal:
            move = stack.enter_context(progress("training"))
        yield on_start, on_epoch, on_progress


def grid(*columns: str, title: str | None = None) -> Table:
    """A table whose first column is text and whose others are numbers."""
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _epoch_line(cells: Iterable[str]) -> str:
    """A line of the table; below 77 columns without the last two, rate and wait."""
    first, *others = list(cells)[: None if info.width > 76 else -2]
    return (first.rjust(5) + "".join(cell.rjust(9) for cell in others)).rstrip()


def facts(rows: Iterable[tuple[str, str]]) -> Table:
    """Names with their values, below each other."""
    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(name, value)
    return table


def next_command(*words: object) -> None:
    """What to type next, quoted for a shell."""
    info.print(f"Next: {shell_command(*words)}", soft_wrap=True)


def show_conversion(summary: ConvertSummary, folder: Path) -> None:
    """What a conversion found, stored and rejected."""
    manifest = summary.manifest
    title = "Images indexed" if manifest.source else "Images stored"
    table = grid("split", "negative", "positive", "images", "positive %", title=title)
    for split, counts in manifest.counts.items():
        n = counts["0"] + counts["1"]
        table.add_row(split, f"{counts['0']:,}", f"{counts['1']:,}", f"{n:,}", f"{TERMINAL.share(counts['1'] / n)}")
    out.print(table)
    if manifest.rejects:
        rejects = grid("rejected because", "files")
        for reason, count in manifest.rejects.items():
            rejects.add_row(f"{reason} (skipped)" if reason in SKIPPED else reason, f"{count:,}")
        out.print(rejects)
    _show_input(manifest)
    for name, what in (("pixels", "the same pixels"), ("uids", "the same SOP Instance UID")):
        if count := manifest.duplicates.get(f"equal_{name}", 0):
            across = manifest.duplicates[f"equal_{name}_across_splits"]
            out.print(f"Images with {what} as another: {count:,}, of which across splits (leaks): {across:,}")
    out.print(f"Leaks between splits: {manifest.split['leaks']}")
    out.print(f"Image ids: {IMAGE_IDS[manifest.ids]}")
    mean, std = TERMINAL.number(manifest.mean, 4), TERMINAL.number(manifest.std, 4)
    out.print(f"Pixels of the train split: mean {mean}, std {std}")
    if manifest.source:
        sample = counted(manifest.source.statistics_of, "training image")
        out.print(f"Mean and std are from {sample}; pixels stay in the source files")
    if not summary.converted:
        out.print("Nothing was left to convert: the dataset is complete")
    else:
        rate, done = summary.converted / summary.seconds, "indexed" if manifest.source else "converted"
        out.print(f"{counted(summary.converted, 'image')} {done} in {summary.seconds:.1f} s: {rate:,.0f} images/s")
    out.print(f"Written to {folder}", soft_wrap=True)


def _show_input(manifest: Manifest) -> None:
    """What was found and not stored, and what is not known of what was."""
    facts = manifest.input
    for name, count, table in (
        ("Rows without a file", facts["rows_without_file"], UNMATCHED),
        ("Files without a row", facts["files_without_row"], WITHOUT_ROW),
    ):
        out.print(f"{name}: {count:,}{f' (see {table})' if count and table in manifest.tables else ''}")
    if manifest.split["ungrouped_images"] and manifest.split["by"] == "group":
        out.print(f"Images without a group, kept: {manifest.split['ungrouped_images']:,}")
    if facts.get("ignored"):
        out.print(f"Images left out by their label: {facts['ignored']:,}")
    if facts["dropped_ungrouped"]:
        out.print(f"Images without a group, dropped: {facts['dropped_ungrouped']:,}")
    if facts["burned_in"]:
        out.print(f"Images marked as having burned-in annotation: {facts['burned_in']:,}")
    if facts.get("decoded_on_gpu"):
        out.print(f"Images decoded by the GPU: {facts['decoded_on_gpu']:,}")
    unknown = {name: facts.get(f"unknown_{name}", 0) for name in ("modality", "view", "body_part")}
    if any(unknown.values()):
        counts = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in unknown.items())
        out.print(f"Images whose kind is not stated, taken all the same: {counts}")


def show_ids(summary: IdsSummary) -> None:
    """What was looked up, and where it stands."""
    kinds = {
        "image": "images",
        "row": "rows without a file",
        "group": "patients",
        "path": "files rejected or without a row",
    }
    table = grid("pseudonyms of", "found", "unknown")
    for kind, found in summary.found.items():
        table.add_row(kinds[kind], f"{found:,}", f"{summary.unknown[kind]:,}")
    out.print(table)
    for note in summary.notes:
        out.print(note, soft_wrap=True)
    out.print(f"{summary.out} names patients or images: keep it as safe as the key", soft_wrap=True)


def show_verification(dataset: Path, problems: list[str], *, pixels: bool) -> None:
    """What ``verify`` found, and whether ``pixels`` were checked."""
    for problem in problems:
        out.print(problem, soft_wrap=True)
    sound = "intact" if pixels else "tables intact"
    verdict = f"{counted(len(problems), 'problem')}: convert again" if problems else sound
    out.print(f"{dataset}: {verdict}", soft_wrap=True)


def show_contact_sheet(path: Path, summary: ShowSummary) -> None:
    """What is on the contact sheet, and where it is."""
    out.print(
        f"Images: {summary.images}, each as stored and in {summary.versions - 1} changed versions; boxes: "
        f"{summary.boxes}; written to {path}",
        soft_wrap=True,
    )


def show_plan(plan: TrainPlan) -> None:
    """What ``train`` is about to do."""
    config, found = plan.config, plan.resolved
    images = ", ".join(
        f"{SPLIT_NAMES[split]} {counts['0'] + counts['1']:,} ({counts['1']:,} positive)"
        for split, counts in plan.counts.items()
        if split != "test"
    )
    people = f"{counted(plan.patients, 'patient')} in training" if plan.patients else "patients not known"
    done = plan.epochs_done
    epochs = f"epochs {done + 1} to {config.epochs} (resumed)" if done else counted(config.epochs, "epoch")
    amp = f"mixed precision in {str(found.amp_dtype).removeprefix('torch.')}" if found.amp_dtype else "float32"
    processes = f", {found.processes} processes" if found.processes > 1 else ""
    rows = ({"Fold": f"{config.fold} of {config.folds}"} if config.fold else {}) | {
        "Data": f"{' + '.join(map(str, config.datasets))}: {images}; {people}",
        "Model": f"{config.model}, {plan.parameters / 1e6:.1f} million parameters, weights: {config.weights}; images "
        f"of {plan.size} x {plan.size} pixels",
        "Recipe": describe_recipe(config),
        "Training": f"{epochs}, batches of {found.batch_size}, {config.optimizer} at {config.lr:g}, "
        f"positives weigh {found.pos_weight:.3g}",
        **({"Auxiliary": "; ".join(plan.taught)} if plan.taught else {}),
        "Device": f"{found.device}{processes}, {amp}, batches by the {found.loader} engine",
        "Writes to": str(config.out),
    }
    info.print(facts(rows.items()))


def show_training(summary: TrainSummary) -> None:
    """Where the best checkpoint is."""
    out.print(
        f"Best checkpoint: {summary.run / BEST} (epoch {summary.best_epoch} of {summary.epochs}, validation "
        f"{MONITORED[summary.monitor].label} {TERMINAL.number(summary.best)})",
        soft_wrap=True,
    )
    next_command("evaluate", summary.run)


def show_cross_validation(summary: CrossValidationSummary) -> None:
    """The best epoch of each fold."""
    metric = MONITORED[summary.folds[0].monitor].label
    rows = grid("fold", "best epoch", "of", f"validation {metric}")
    for number, fold in enumerate(summary.folds, start=1):
        rows.add_row(str(number), str(fold.best_epoch), str(fold.epochs), TERMINAL.number(fold.best))
    out.print(rows)
    first, last = fold_folder(summary.run, 1), fold_folder(summary.run, len(summary.folds))
    out.print(f"Folds: {first} to {last.name}", soft_wrap=True)
    next_command("evaluate", summary.run)


def show_report(summary: ReportSummary) -> None:
    """Where the report is, and what is missing in it."""
    out.print(f"Report: {summary.page} ({summary.size_bytes / 1e6:.1f} MB); model card: {summary.card}", soft_wrap=True)
    for sentence in summary.remarks:
        out.print(f"Note: {sentence}", soft_wrap=True)
