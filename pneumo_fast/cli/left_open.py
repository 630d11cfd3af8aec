"""Options of ``train`` that a command line leaves open: those of an earlier run, and of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pneumo_fast.configuration import options_of
from pneumo_fast.errors import ConfigError, RunError
from pneumo_fast.training.options import TrainConfig
from pneumo_fast.training.recipes import RECIPES

if TYPE_CHECKING:
    import typer


def options_left_open(config: Path | None, context: typer.Context) -> dict[str, Any]:
    """The options that a command line of ``train`` leaves open: of an earlier run, and of the recipe that it names.

    Where it names none ``--resume`` takes the recipe of the run that it resumes.

    Parameters
    ----------
    config : Path, optional
        What ``--config`` gave: a run folder or its ``config.json``.

    Raises
    ------
    ConfigError
        If that is none.
    RunError
        If it is damaged.
    """
    taken = _of_run(config) if config else {}
    name = context.params["recipe"]
    if not _is_given("recipe", context):
        resumed = context.params["resume"] and not config
        name = _recipe_of(context.params["out"]) if resumed else None
    if name:
        taken |= {"recipe": name, **RECIPES.get(name, {})}
    return {option: value for option, value in taken.items() if not _is_given(option, context)}


def _is_given(option: str, context: typer.Context) -> bool:
    return str(context.get_parameter_source(option)) == "ParameterSource.COMMANDLINE"


def _recipe_of(run: Path) -> str | None:
    """The recipe of a run, if there is one that says."""
    from pneumo_fast.run.folder import read_config  # noqa: PLC0415  # for --help
    from pneumo_fast.run.folds import is_cross_validation  # noqa: PLC0415
    from pneumo_fast.run.layout import fold_folder  # noqa: PLC0415

    try:
        name = read_config(fold_folder(run, 1) if is_cross_validation(run) else run).config.get("recipe")
    except RunError:
        return None
    return name if isinstance(name, str) else None


def _of_run(config: Path) -> dict[str, Any]:
    """The options of an earlier run, but for where to write."""
    from pneumo_fast.records import Fault, build  # noqa: PLC0415  # for --help
    from pneumo_fast.run.folder import read_config  # noqa: PLC0415  # for --help
    from pneumo_fast.run.folds import is_cross_validation  # noqa: PLC0415
    from pneumo_fast.run.layout import CONFIG, fold_folder  # noqa: PLC0415

    run = config.parent if config.name == CONFIG else config
    all_folds = is_cross_validation(run)
    run = fold_folder(run, 1) if all_folds else run
    if not run.is_dir() or not (run / CONFIG).exists():
        raise ConfigError(
            f"config {config}: a run folder or its {CONFIG} expected, whose options are taken over; other options are "
            "given on the command line"
        )
    content = read_config(run)
    saved = content.config | ({"fold": None} if all_folds else {})
    if saved.get("batch_size") == "auto":  # to be repeated on another GPU as well
        saved["batch_size"] = content.resolved.get("batch_size", "auto")
    taken = {}
    for name, field in options_of(TrainConfig).items():
        if name in saved and field.option.repeated:
            try:
                taken[name] = build(saved[name], field.type)
            except Fault as error:
                what = name + str(error).removeprefix("$")
                raise RunError(f"{run / CONFIG} is damaged ({what}): name another run") from error
    return taken
