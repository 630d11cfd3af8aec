"""The commands; :mod:`pneumo_fast.cli.app` gathers them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from pneumo_fast.cli.arguments import with_options
from pneumo_fast.cli.left_open import options_left_open
from pneumo_fast.conversion.options import ConvertConfig, IdsConfig
from pneumo_fast.errors import ConfigError
from pneumo_fast.evaluation.options import EvaluateConfig
from pneumo_fast.explanation.options import ExplainConfig
from pneumo_fast.export.options import ExportConfig
from pneumo_fast.loading.options import ShowConfig
from pneumo_fast.pacs.node import OUR_AET
from pneumo_fast.phantoms.options import PhantomConfig
from pneumo_fast.prediction.options import PredictConfig
from pneumo_fast.reporting.options import ReportConfig
from pneumo_fast.serving.options import ServeConfig
from pneumo_fast.training.options import TrainConfig


@with_options(ConvertConfig)
def convert(make: Callable[..., ConvertConfig]) -> Any:
    """Convert a folder of DICOM files and a label table into a dataset.

    Example: pneumo-fast convert images labels.csv dataset --val-fraction 0.2
    """
    from pneumo_fast.cli import display
    from pneumo_fast.conversion.convert import convert as run
    from pneumo_fast.records import plain

    display.set_up_logging()
    config = make()
    with display.progress("converting") as on_progress:
        summary = run(config, on_progress)
    display.show_conversion(summary, config.out)
    display.next_command("train", config.out)
    return {"folder": config.out, **plain(summary), "manifest": json.loads(summary.manifest.to_json())}


@with_options(TrainConfig, after="out")
def train(
    make: Callable[..., TrainConfig],
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="A run's config.json: its options, where none is given here.", rich_help_panel="Run"
        ),
    ] = None,
) -> Any:
    """Train a 1-channel classifier, ResNet-18 by default, on a dataset; with --folds K a cross-validation.

    Example: pneumo-fast train dataset --out run --epochs 20 --augment light
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or PyTorch's profiler writes across the progress bar
    from pneumo_fast.cli import display
    from pneumo_fast.training.cross_validation import cross_validate
    from pneumo_fast.training.direct import with_dataset
    from pneumo_fast.training.train import train as run

    display.set_up_logging()
    made = make(**options_left_open(config, context))
    if made.images:
        with display.progress("converting" if made.cache else "indexing") as on_progress:
            made, conversion = with_dataset(made, on_progress)
        if conversion:
            display.show_conversion(conversion, made.datasets[0])
    with display.training_display() as (on_start, on_epoch, on_progress):
        if made.all_folds:
            folds = cross_validate(made, on_epoch, on_progress, on_start=on_start)
        else:
            summary = run(made, on_epoch, on_progress, on_start=on_start)
    if made.all_folds:
        display.show_cross_validation(folds)
        return folds
    display.show_training(summary)
    return summary


@with_options(EvaluateConfig, but="run")
def evaluate(
    make: Callable[..., EvaluateConfig],
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN", help="Run folder; two runs are compared on the same images.", show_default="run"),
    ] = None,
) -> Any:
    """Evaluate a run's best checkpoint, or compare two; write RUN/eval/DATA-SPLIT.

    Example: pneumo-fast evaluate run --json | jq .ranking.auroc.value
    """
    from pneumo_fast.cli import display, results
    from pneumo_fast.evaluation.compare import check_comparable, compare
    from pneumo_fast.evaluation.evaluate import evaluate as judge
    from pneumo_fast.evaluation.results import to_json

    display.set_up_logging()
    folders = runs or [Path("run")]
    if len(folders) > 2:
        raise ConfigError(f"{len(folders)} runs given: name one to evaluate or two to compare")
    configs = [make(run=run) for run in folders]
    if len(configs) == 2:
        check_comparable(*configs)
    show = results.show_evaluation if len(configs) == 1 else results.show_verdict
    evaluations = []
    for config in configs:
        with display.progress("evaluating") as on_progress:
            evaluations.append(judge(config, on_progress))
        show(evaluations[-1])
    found = [{"folder": evaluation.folder, **to_json(evaluation)} for evaluation in evaluations]
    if len(evaluations) == 1:
        return found[0]
    comparison = compare(*evaluations, resamples=config.resamples, seed=config.seed)
    results.show_comparison(comparison)
    return {"evaluations": found, "comparison": comparison}


@with_options(ExplainConfig)
def explain(make: Callable[..., ExplainConfig]) -> Any:
    """Draw Grad-CAM and play the pointing game; write RUN/explain.

    Example: pneumo-fast explain run --method gradcam++ --count 4
    """
    from pneumo_fast.cli import display, results
    from pneumo_fast.explanation.explain import explain as look

    display.set_up_logging()
    config = make()
    with display.progress("explaining") as on_progress:
        explanation = look(config, on_progress)
    results.show_explanation(explanation)
    return explanation


@with_options(ReportConfig)
def report(make: Callable[..., ReportConfig]) -> Any:
    """Write a run's report.html and model_card.md from its evaluation and explanation.

    Example: pneumo-fast report run
    """
    from pneumo_fast.cli import display
    from pneumo_fast.reporting.report import report as tell

    display.set_up_logging()
    summary = tell(make())
    display.show_report(summary)
    return summary


@with_options(ExportConfig)
def export(make: Callable[..., ExportConfig]) -> Any:
    """Write a run's best checkpoint as an ONNX or torch.export file, checked against PyTorch.

    Example: pneumo-fast export run --out model.onnx
    """
    from pneumo_fast.cli import display, results
    from pneumo_fast.export.export import export_model

    display.set_up_logging()
    exported = export_model(make())
    results.show_export(exported)
    return exported


@with_options(PredictConfig)
def predict(make: Callable[..., PredictConfig]) -> Any:
    """Score new DICOM files by a run, or by the mean of several; write a table of probabilities.

    Example: pneumo-fast predict run images --out predictions --threshold 0.3
    """
    from pneumo_fast.cli import display, results
    from pneumo_fast.prediction.folder import SUMMARY
    from pneumo_fast.prediction.predict import predict as score
    from pneumo_fast.records import parse_file

    display.set_up_logging()
    config = make()
    with display.progress("predicting") as on_progress:
        summary = score(config, on_progress)
    results.show_prediction(summary, config)
    found = Predicted(folder=config.out, **parse_file(config.out / SUMMARY))
    found.exit_code = int(summary.counts.all_failed)
    return found


class Predicted(dict[str, Any]):
    """What ``predict`` wrote."""

    exit_code = 0
    """1 where files were rejected and none was scored."""


@with_options(ServeConfig)
def serve(make: Callable[..., ServeConfig]) -> Any:
    """Receive radiographs as a DICOM node (Storage SCP), score them, and forward the results to another node.

    Example: pneumo-fast serve run --allow MODALITY --forward ORTHANC@127.0.0.1:4242
    """
    from pneumo_fast.cli import display, results
    from pneumo_fast.serving.serve import serve as run

    display.set_up_logging()
    summary = run(make())
    results.show_serving(summary)
    return summary


def verify(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Dataset folder.")] = Path("dataset"),
) -> Any:
    """Check every byte of a dataset; list what is damaged.

    Example: pneumo-fast verify dataset --json | jq '.problems | length'
    """
    from pneumo_fast.cli import display
    from pneumo_fast.dataset.format import MANIFEST
    from pneumo_fast.dataset.verify import verify as check
    from pneumo_fast.records import parse_file

    with display.progress("verifying") as on_progress:
        problems = check(dataset, on_progress)
    pixels = "source" not in parse_file(dataset / MANIFEST)
    display.show_verification(dataset, problems, pixels=pixels)
    return Verification(dataset=dataset, problems=problems, pixels=pixels)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """What ``verify`` found."""

    dataset: Path
    problems: list[str]
    pixels: bool
    """Whether pixels were checked: those of layout ``source`` are in the source files."""

    @property
    def exit_code(self) -> int:
        """1 for a damaged dataset."""
        return 1 if self.problems else 0


@with_options(ShowConfig)
def show(make: Callable[..., ShowConfig]) -> Any:
    """Draw a contact sheet of images, as stored and as augmented, with their boxes.

    Example: pneumo-fast show dataset --out contact.png --augment strong
    """
    from pneumo_fast.cli import display
    from pneumo_fast.loading.preview import show as draw
    from pneumo_fast.records import plain

    config = make()
    summary = draw(config)
    display.show_contact_sheet(config.out, summary)
    return {"out": config.out, **plain(summary)}


@with_options(IdsConfig)
def ids(make: Callable[..., IdsConfig]) -> Any:
    """Look up which ids a dataset's pseudonyms stand for; needs the hash key and the label table.

    Example: pneumo-fast ids dataset labels.csv --out ids.csv
    """
    from pneumo_fast.cli import display
    from pneumo_fast.conversion.lookup import look_up_ids

    summary = look_up_ids(make())
    display.show_ids(summary)
    return summary


@with_options(PhantomConfig)
def phantom(make: Callable[..., PhantomConfig]) -> Any:
    """Make synthetic radiographs as DICOM files, with tables like RSNA's.

    Example: pneumo-fast phantom phantoms --count 400
    """
    from pneumo_fast.cli import display
    from pneumo_fast.phantoms.make import make_phantoms

    config = make()
    with display.progress("drawing") as on_progress:
        return make_phantoms(config, on_progress)


def doctor(
    echo: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="DICOM node to test with C-ECHO, as AET@HOST:PORT; may be repeated."),
    ] = None,
    aet: Annotated[str, typer.Option(metavar="TEXT", help="Our AE title, for --echo.")] = OUR_AET,
) -> Any:
    """Report what this machine has, what is missing and how to install it; test DICOM nodes with C-ECHO.

    Example: pneumo-fast doctor --json
    """
    from pneumo_fast.cli import machine
    from pneumo_fast.doctor.machine import examine_machine
    from pneumo_fast.doctor.nodes import ask

    answers = ask(echo or (), aet)
    found = replace(examine_machine(), nodes=answers)
    machine.show_machine(found)
    return found
