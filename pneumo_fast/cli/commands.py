"""The commands; :mod:`pneumo_fast.cli.app` gathers them."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.errors import ConfigError
from pneumo_fast.evaluation.options import EvaluateConfig
from pneumo_fast.explanation.options import ExplainConfig, Method
from pneumo_fast.loading.options import ShowConfig
from pneumo_fast.reporting.options import ReportConfig
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.vocabulary import (
    AmpDtype,
    Augment,
    Decode,
    Dtype,
    EngineName,
    Layout,
    Monitor,
    Optimizer,
    OrderName,
    ScheduleName,
    Split,
    Strength,
    Ungrouped,
    Window,
)


def evaluate(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run folder; two are compared on the same images.", show_default="run")
    ] = None,
    dataset: Annotated[Path | None, typer.Option(help="Dataset folder.", show_default="the run's own")] = None,
    split: Annotated[Split, typer.Option(help="Which images to judge on.")] = "val",
    threshold: Annotated[
        list[float] | None,
        typer.Option(help="Probability that makes an image positive; may be repeated.", show_default="0.5, 0.25"),
    ] = None,
    target_sensitivity: Annotated[float, typer.Option(help="Choose a threshold that reaches it.")] = 0.9,
    target_specificity: Annotated[float, typer.Option(help="Choose a threshold that reaches it.")] = 0.9,
    cost_ratio: Annotated[
        float | None, typer.Option(help="False alarms that a miss is worth.", show_default="no such threshold")
    ] = None,
    prevalence: Annotated[
        float | None, typer.Option(help="Predictive values for this share, too.", show_default="no")
    ] = None,
    resamples: Annotated[int, typer.Option(help="Resamples of the bootstrap.")] = 2000,
    seed: Annotated[int, typer.Option(help="Chooses resamples and halves.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch_size: Annotated[int, typer.Option(help="Images in a batch.")] = 64,
) -> None:
    """Judge a run's best checkpoint, or compare two; write RUN/eval."""
    from pneumo_fast.cli import display, results
    from pneumo_fast.evaluation.compare import compare
    from pneumo_fast.evaluation.evaluate import evaluate as judge

    display.set_up_logging()
    folders = runs or [Path("run")]
    if len(folders) > 2:
        raise ConfigError(f"{len(folders)} runs are given: one to judge, or two to compare, expected")
    evaluations = []
    for run in folders:
        config = EvaluateConfig(
            run=run,
            dataset=dataset,
            split=split,
            thresholds=tuple(threshold or (0.5, 0.25)),
            target_sensitivity=target_sensitivity,
            target_specificity=target_specificity,
            cost_ratio=cost_ratio,
            prevalence=prevalence,
            resamples=resamples,
            seed=seed,
            device=device,
            batch_size=batch_size,
        )
        with display.progress("evaluating") as on_progress:
            evaluations.append(judge(config, on_progress))
        results.show_evaluation(evaluations[-1])
    if len(evaluations) == 2:
        results.show_comparison(compare(*evaluations, resamples=resamples, seed=seed))


def explain(
    run: Annotated[Path, typer.Argument(help="Run folder.")] = Path("run"),
    dataset: Annotated[Path | None, typer.Option(help="Dataset folder.", show_default="the run's own")] = None,
    split: Annotated[Split, typer.Option(help="Which images.")] = "val",
    method: Annotated[Method, typer.Option(help="How the map is made.")] = "gradcam",
    layer: Annotated[str | None, typer.Option(help="Layer to look into.", show_default="the last fine enough")] = None,
    id_: Annotated[
        list[str] | None,
        typer.Option("--id", help="Image to draw; may be repeated.", show_default="the most confident of each kind"),
    ] = None,
    count: Annotated[int, typer.Option(help="Images to draw of each kind.")] = 8,
    threshold: Annotated[float, typer.Option(help="Probability that makes an image positive.")] = 0.5,
    resamples: Annotated[int, typer.Option(help="Resamples of the bootstrap.")] = 2000,
    seed: Annotated[int, typer.Option(help="Chooses resamples and random weights.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch_size: Annotated[int, typer.Option(help="Images in a batch.")] = 64,
) -> None:
    """Draw where a run's model looked, and count how often that was in a box; write RUN/explain."""
    from pneumo_fast.cli import display, results
    from pneumo_fast.explanation.explain import explain as look

    display.set_up_logging()
    config = ExplainConfig(
        run=run,
        dataset=dataset,
        split=split,
        method=method,
        layer=layer,
        ids=tuple(id_ or ()),
        count=count,
        threshold=threshold,
        resamples=resamples,
        seed=seed,
        device=device,
        batch_size=batch_size,
    )
    with display.progress("explaining") as on_progress:
        explanation = look(config, on_progress)
    results.show_explanation(explanation)


def report(
    run: Annotated[Path, typer.Argument(help="Run folder, evaluated before.")] = Path("run"),
) -> None:
    """Write a run's report.html and model_card.md, from what evaluate and explain found."""
    from pneumo_fast.cli import display
    from pneumo_fast.reporting.report import report as tell

    display.set_up_logging()
    display.show_report(tell(ReportConfig(run=run)))


def convert(
    images: Annotated[Path, typer.Argument(help="Folder with the DICOM files.")],
    labels: Annotated[Path, typer.Argument(help="Label table (CSV).")],
    out: Annotated[Path, typer.Argument(help="Dataset folder to write.")] = Path("dataset"),
    id_column: Annotated[str, typer.Option(help="Column with the image id.")] = "patientId",
    label_column: Annotated[str, typer.Option(help="Column with the label, 0 or 1.")] = "Target",
    group_column: Annotated[str | None, typer.Option(help="Column with the patient.")] = None,
    path_column: Annotated[str | None, typer.Option(help="Column with the path below IMAGES.")] = None,
    class_info: Annotated[Path | None, typer.Option(help="RSNA's table of three classes (CSV).")] = None,
    groups: Annotated[Path | None, typer.Option(help="RSNA's mapping file (JSON): which image is whose.")] = None,
    ungrouped: Annotated[Ungrouped, typer.Option(help="Images that the groups leave out.")] = "keep",
    val_fraction: Annotated[float, typer.Option(help="Share of the images for validation.")] = 0.1,
    test_fraction: Annotated[float, typer.Option(help="Share of the images for a test split.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Chooses the split and the order of storage.")] = 0,
    size: Annotated[int, typer.Option(help="Height and width of the stored images, in pixels.")] = 224,
    dtype: Annotated[Dtype, typer.Option(help="Stored data type.")] = "float16",
    layout: Annotated[Layout, typer.Option(help="Shards, or one .npy file per image.")] = "shards",
    shard_size: Annotated[int | None, typer.Option(help="Images in a shard.", show_default="by the count")] = None,
    decode: Annotated[Decode, typer.Option(help="JPEG at reduced scale, or in full.")] = "fast",
    window: Annotated[Window, typer.Option(help="Apply VOI LUTs and windows.")] = "auto",
    workers: Annotated[int | None, typer.Option(help="Worker processes.", show_default="one per core")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Dask scheduler, tcp://HOST:PORT.", show_default="this machine")
    ] = None,
    max_rejects: Annotated[str, typer.Option(help="Rejected files allowed: a count, or a share as 0.01 or 1%.")] = "1%",
    timeout_s: Annotated[float, typer.Option(help="Seconds that reading one file may take.")] = 10.0,
    max_pixels: Annotated[int, typer.Option(help="Larger images are rejected unread.")] = 64_000_000,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished conversion.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the dataset in OUT.")] = False,
    hash_ids: Annotated[bool, typer.Option("--hash-ids", help="Write pseudonyms instead of image ids.")] = False,
    hash_key: Annotated[
        Path | None, typer.Option(help="Key file for pseudonyms.", show_default="in your configuration folder")
    ] = None,
) -> None:
    """Convert a folder of DICOM files and a label table into a dataset."""
    from pneumo_fast.cli import display
    from pneumo_fast.conversion.convert import convert as run

    display.set_up_logging()
    config = ConvertConfig(
        images=images,
        labels=labels,
        out=out,
        id_column=id_column,
        label_column=label_column,
        group_column=group_column,
        path_column=path_column,
        class_info=class_info,
        groups=groups,
        ungrouped=ungrouped,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        seed=seed,
        size=size,
        dtype=dtype,
        layout=layout,
        shard_size=shard_size,
        decode=decode,
        window=window,
        workers=workers,
        scheduler=scheduler,
        max_rejects=parse_max_rejects(max_rejects),
        timeout_s=timeout_s,
        max_pixels=max_pixels,
        resume=resume,
        overwrite=overwrite,
        hash_ids=hash_ids,
        hash_key=hash_key,
    )
    with display.progress("converting") as on_progress:
        summary = run(config, on_progress)
    display.show_conversion(summary)


def train(
    context: typer.Context,
    datasets: Annotated[
        list[Path] | None, typer.Argument(help="Dataset folders, one or several.", show_default="dataset")
    ] = None,
    share: Annotated[
        list[float] | None, typer.Option(help="Each dataset's share of an epoch, in their order.", show_default="all")
    ] = None,
    out: Annotated[Path, typer.Option(help="Run folder to write.")] = Path("run"),
    config: Annotated[
        Path | None, typer.Option(help="A run's config.json: its options, where none is given here.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 10,
    batch_size: Annotated[
        str, typer.Option(help="Images in a batch: a number, or auto for the most that fit on the GPU.")
    ] = "64",
    accumulate: Annotated[int, typer.Option(help="Parts in which a batch goes through the model.")] = 1,
    model: Annotated[str, typer.Option(help="A classifier of torchvision.")] = "resnet18",
    weights: Annotated[str, typer.Option(help="none, default (pretrained) or a file.")] = "none",
    optimizer: Annotated[Optimizer, typer.Option(help="adam or adamw.")] = "adam",
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 1e-4,
    weight_decay: Annotated[float, typer.Option(help="Weight decay.")] = 0.0,
    schedule: Annotated[ScheduleName, typer.Option(help="How the learning rate falls.")] = "none",
    warmup_epochs: Annotated[float, typer.Option(help="Epochs in which the learning rate rises.")] = 0.0,
    clip_norm: Annotated[float | None, typer.Option(help="Longest gradient.", show_default="any")] = None,
    ema: Annotated[float | None, typer.Option(help="Decay of an average of the weights.", show_default="off")] = None,
    label_smoothing: Annotated[float, typer.Option(help="How far labels are drawn together.")] = 0.0,
    pos_weight: Annotated[
        str, typer.Option(help="Weight of a positive image: a number, or auto for negatives / positives.")
    ] = "auto",
    order: Annotated[OrderName, typer.Option(help="shuffle, weighted or windowed.")] = "shuffle",
    balance: Annotated[str, typer.Option(help="Column that --order weighted balances.")] = "label",
    window: Annotated[int, typer.Option(help="Shards that --order windowed shuffles together.")] = 8,
    loader: Annotated[EngineName, typer.Option(help="How batches get to the device.")] = "auto",
    resident_share: Annotated[
        float, typer.Option(help="Share of the device's memory that --loader auto may fill with images.")
    ] = 0.0,
    augment: Annotated[Augment, typer.Option(help="How far training images are changed: see show.")] = "none",
    flip: Annotated[bool, typer.Option("--flip", help="Mirror half of them as well.")] = False,
    amp: Annotated[bool, typer.Option("--amp", help="Automatic mixed precision.")] = False,
    amp_dtype: Annotated[
        AmpDtype | None, typer.Option(help="Data type of mixed precision.", show_default="by the device")
    ] = None,
    compile_: Annotated[bool, typer.Option("--compile", help="Compile the model first.")] = False,
    monitor: Annotated[Monitor, typer.Option(help="The validation figure that decides.")] = "auroc",
    patience: Annotated[
        int | None, typer.Option(help="Epochs without a better one before the end.", show_default="all")
    ] = None,
    folds: Annotated[int | None, typer.Option(help="Divide anew, by patient, into parts.", show_default="no")] = None,
    fold: Annotated[int | None, typer.Option(help="Which part is for validation, from 1.", show_default="")] = None,
    limit_images: Annotated[int | None, typer.Option(help="Use only so many of a split.", show_default="all")] = None,
    max_skipped: Annotated[int, typer.Option(help="Steps of an epoch that may be left out.")] = 20,
    checkpoint_minutes: Annotated[float, typer.Option(help="How often to save within an epoch.")] = 10.0,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard files.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Write a trace of a few steps.")] = False,
    sync_bn: Annotated[bool, typer.Option("--sync-bn", help="BatchNorm over all GPUs.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    seed: Annotated[int, typer.Option(help="Chooses initial weights, order and folds.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on exactly where the run stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in OUT.")] = False,
) -> None:
    """Train a 1-channel classifier, ResNet-18 by default, on a dataset."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or PyTorch's profiler writes across the progress bar
    from pneumo_fast.cli import display
    from pneumo_fast.training.train import train as run

    display.set_up_logging()
    options: dict[str, Any] = {
        "datasets": tuple(datasets or [Path("dataset")]),
        "shares": tuple(share or ()),
        "out": out,
        "epochs": epochs,
        "batch_size": "auto" if batch_size == "auto" else _whole_number("batch-size", batch_size),
        "accumulate": accumulate,
        "model": model,
        "weights": weights,
        "optimizer": optimizer,
        "lr": lr,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "warmup_epochs": warmup_epochs,
        "clip_norm": clip_norm,
        "ema": ema,
        "label_smoothing": label_smoothing,
        "pos_weight": "auto" if pos_weight == "auto" else _number("pos-weight", pos_weight),
        "order": order,
        "balance": balance,
        "window": window,
        "loader": loader,
        "resident_share": resident_share,
        "augment": augment,
        "flip": flip,
        "amp": amp,
        "amp_dtype": amp_dtype,
        "compile": compile_,
        "monitor": monitor,
        "patience": patience,
        "folds": folds,
        "fold": fold,
        "limit_images": limit_images,
        "max_skipped": max_skipped,
        "checkpoint_minutes": checkpoint_minutes,
        "tensorboard": tensorboard,
        "profile": profile,
        "sync_bn": sync_bn,
        "device": device,
        "seed": seed,
        "resume": resume,
        "overwrite": overwrite,
    }
    if config is not None:
        options |= _of_run(config, context)
    with display.training_display() as (on_epoch, on_progress):
        summary = run(TrainConfig(**options), on_epoch, on_progress)
    display.show_training(summary)


def _of_run(config: Path, context: typer.Context) -> dict[str, Any]:
    """The options of an earlier run, but for those given on this command line, and where to write."""
    from pneumo_fast.run.folder import read_config

    content = read_config(config.parent if config.name == "config.json" else config)
    saved = dict(content.config)
    if saved.get("batch_size") == "auto":  # to be repeated on another GPU as well
        saved["batch_size"] = content.resolved.get("batch_size", "auto")
    spelled = {"shares": "share", "compile": "compile_"}
    known = {field.name for field in fields(TrainConfig)} - {"out", "resume", "overwrite"}
    taken = {
        name: value
        for name, value in saved.items()
        if name in known and str(context.get_parameter_source(spelled.get(name, name))) != "ParameterSource.COMMANDLINE"
    }
    for name, kind in (("datasets", Path), ("shares", float)):
        if isinstance(value := taken.get(name), list):
            taken[name] = tuple(map(kind, value))
    return taken


def verify(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder.")] = Path("dataset"),
) -> None:
    """Check every byte of a dataset; name what is damaged."""
    from pneumo_fast.cli import display
    from pneumo_fast.dataset.verify import verify as check

    with display.progress("verifying") as on_progress:
        problems = check(dataset, on_progress)
    display.show_verification(dataset, problems)
    if problems:
        raise typer.Exit(1)


def show(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder.")] = Path("dataset"),
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("contact.png"),
    split: Annotated[Split, typer.Option(help="Which images.")] = "train",
    count: Annotated[int, typer.Option(help="Images to show.")] = 12,
    augment: Annotated[Strength, typer.Option(help="How far they are changed.")] = "light",
    flip: Annotated[bool, typer.Option("--flip", help="Mirror half of them as well.")] = False,
    seed: Annotated[int, typer.Option(help="Chooses images and changes, as in training.")] = 0,
) -> None:
    """Draw a contact sheet of images, as stored and as augmented, with their boxes."""
    from pneumo_fast.cli import display
    from pneumo_fast.loading.preview import show as draw

    config = ShowConfig(dataset=dataset, out=out, split=split, count=count, augment=augment, flip=flip, seed=seed)
    display.show_contact_sheet(config.out, draw(config))


def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    count: Annotated[int, typer.Option(help="Images to make.")] = 1500,
    size: Annotated[int, typer.Option(help="Height and width of the images, in pixels.")] = 256,
    seed: Annotated[int, typer.Option(help="Chooses everything.")] = 0,
) -> None:
    """Make synthetic radiographs as DICOM files, with tables like RSNA's."""
    from pneumo_fast.cli import display
    from pneumo_fast.phantoms.make import make_phantoms
    from pneumo_fast.phantoms.options import PhantomConfig

    config = PhantomConfig(out=out, count=count, size_px=size, seed=seed)
    with display.progress("drawing") as on_progress:
        make_phantoms(config, on_progress)


def parse_max_rejects(text: str) -> int | float:
    """``5`` is a count; ``0.05`` and ``5%`` are shares.

    Raises
    ------
    ConfigError
        If the text is no number.
    """
    if text.endswith("%"):
        return _number("max-rejects", text[:-1]) / 100
    return int(text) if text.isdecimal() else _number("max-rejects", text)


def _whole_number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name} {text!r}: a whole number, or auto, expected") from None


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{name} {text!r}: a number expected") from None
