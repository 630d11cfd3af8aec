"""The commands that judge a run: evaluate, explain, report; :mod:`pneumo_fast.cli` gathers them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pneumo_fast.errors import ConfigError
from pneumo_fast.judge_options import EvaluateConfig, ExplainConfig, Method, ReportConfig
from pneumo_fast.options import Split


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
    from pneumo_fast import terminal, terminal_judge
    from pneumo_fast.compare import compare
    from pneumo_fast.evaluate import evaluate as judge

    terminal.set_up_logging()
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
        with terminal.progress("evaluating") as on_progress:
            evaluations.append(judge(config, on_progress))
        terminal_judge.show_evaluation(evaluations[-1])
    if len(evaluations) == 2:
        terminal_judge.show_comparison(compare(*evaluations, resamples=resamples, seed=seed))


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
    from pneumo_fast import terminal, terminal_judge
    from pneumo_fast.explain import explain as look

    terminal.set_up_logging()
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
    with terminal.progress("explaining") as on_progress:
        explanation = look(config, on_progress)
    terminal_judge.show_explanation(explanation)


def report(
    run: Annotated[Path, typer.Argument(help="Run folder, evaluated before.")] = Path("run"),
) -> None:
    """Write a run's report.html and model_card.md, from what evaluate and explain found."""
    from pneumo_fast import terminal
    from pneumo_fast.report import report as tell

    terminal.set_up_logging()
    terminal.show_report(tell(ReportConfig(run=run)))
