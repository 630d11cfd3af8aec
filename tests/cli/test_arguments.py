"""The commands' parameters are those of their configurations, and what they read are its values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from typer.main import get_command

from pneumo_fast.cli.app import app
from pneumo_fast.cli.arguments import read, with_options
from pneumo_fast.configuration import Field, arguments_of, options_of
from pneumo_fast.conversion.options import ConvertConfig, IdsConfig
from pneumo_fast.errors import ConfigError
from pneumo_fast.evaluation.options import EvaluateConfig
from pneumo_fast.explanation.options import ExplainConfig
from pneumo_fast.export.options import ExportConfig
from pneumo_fast.loading.options import ShowConfig
from pneumo_fast.phantoms.options import PhantomConfig
from pneumo_fast.prediction.options import PredictConfig
from pneumo_fast.reporting.options import ReportConfig
from pneumo_fast.serving.options import ServeConfig
from pneumo_fast.training.options import TrainConfig

GROUP: Any = get_command(app)
MAX_REJECTS = options_of(ConvertConfig)["max_rejects"]
Run = Callable[..., Any]


@pytest.mark.parametrize(
    ("arguments", "config"),
    [
        (["convert", "i", "l"], ConvertConfig(images=Path("i"), labels=Path("l"))),
        (["train"], TrainConfig()),
        (["evaluate"], EvaluateConfig()),
        (["explain"], ExplainConfig()),
        (["report"], ReportConfig()),
        (["export"], ExportConfig()),
        (["show"], ShowConfig()),
        (["phantom", "o"], PhantomConfig(out=Path("o"))),
    ],
)
def test_defaults_are_the_librarys(config_of: Run, arguments: list[str], config: Any) -> None:
    assert config_of(*arguments) == config


@pytest.mark.parametrize(
    ("short", "long"),
    [
        (["train", "-o", "r"], ["train", "--out", "r"]),
        (["show", "-o", "s.png"], ["show", "--out", "s.png"]),
        (["convert", "i", "l", "--num-workers", "3"], ["convert", "i", "l", "--workers", "3"]),
    ],
)
def test_aliases(config_of: Run, short: list[str], long: list[str]) -> None:
    assert config_of(*short) == config_of(*long)


COMMANDS: dict[str, Any] = {
    "convert": ConvertConfig, "train": TrainConfig, "evaluate": EvaluateConfig, "explain": ExplainConfig,
    "report": ReportConfig, "predict": PredictConfig, "serve": ServeConfig, "export": ExportConfig, "show": ShowConfig,
    "ids": IdsConfig, "phantom": PhantomConfig,
}  # fmt: skip
"""Of those that have one, the configuration."""
OWN = {"train": {"config"}, "evaluate": {"runs"}}
"""Parameters that a command has besides its options."""
LEFT_OUT = {"evaluate": {"run"}, "phantom": {"positive_fraction", "images_per_patient"}}
"""Options that a command has no parameter for."""


def another(field: Field, number: int) -> Any:
    """A value that is not the default and, but for flags and words, no other field's; whether it is allowed or not."""
    values = {bool: True, float: number + 0.375, int: number + 10_000, Path: Path(f"x{number}"), str: f"x{number}"}
    of_type = (values[kind] for kind in values if kind in field.types)
    defaults = field.default if field.is_list else (field.default,)
    return next(value for value in (*of_type, *field.words) if value not in defaults)


@pytest.mark.parametrize(("name", "config"), COMMANDS.items(), ids=COMMANDS)
def test_every_option_is_a_parameter_and_reaches_its_field(name: str, config: Any) -> None:
    parameters = {parameter.name: parameter for parameter in GROUP.commands[name].params}
    options = options_of(config)
    assert parameters.keys() - options.keys() == {"quiet", "json"} | OWN.get(name, set())
    assert options.keys() - parameters.keys() == LEFT_OUT.get(name, set())
    values, words = {}, []
    for number, field in enumerate(field for field in options.values() if field.option.on_command_line):
        value = another(field, number)
        values[field.name] = (value,) if field.is_list else value
        if not field.option.positional:
            assert parameters[field.name].opts == [f"--{field.spelled}", *field.option.aliases]
            words.append(f"--{field.spelled}")
        words += [str(value)] if value is not True else []
    unchecked = type(config.__name__, (config,), {"__post_init__": lambda _: None})  # as not all go together
    given = parser_of(unchecked)(words)
    assert {option: getattr(given, option) for option in values} == values


def test_runs_stand_before_what_is_scored(config_of: Run, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "best.pt").touch()
    config = config_of(
        "predict", tmp_path / "a", tmp_path / "b", "export", "x.dcm", "--refuse", "view", "--max-rejects", "5"
    )
    assert config.runs == (tmp_path / "a", tmp_path / "b")
    assert config.paths == (Path("export"), Path("x.dcm"))
    assert (config.refuse, config.max_rejects, config.thresholds) == (("view",), 5, (0.5, 0.25))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "expected a run folder first, then what to score: nothing is given"),
        (["export"], "expected a run folder first, then what to score: export is not a run folder"),
        (["run"], "nothing to score is given after run: name files, folders or a CSV"),
        (["run", "run", "export"], "run is given more than once"),
        (["run", "export", "--threshold", "0.5", "--threshold", "0.5"], "0.5 is given more than once"),
        (["run", "export", "--resume", "--overwrite"], "resume and overwrite exclude each other"),
        (["run", "export", "--max-rejects", "1.5"], "max-rejects 1.5: a count of at least 0, or a share"),
        (["run", "export", "--refuse", "colour"], "'colour'"),
        (["run", "export", "--positive", "1", "--negative", "1"], "is both positive and negative"),
    ],
)
def test_what_predict_cannot_do(
    given: list[str], message: str, run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    Path("run/best.pt").touch()
    result = run_cli("predict", *given)
    assert result.code == 2
    assert message in result.err


def test_lists(config_of: Run) -> None:
    assert config_of("evaluate", "--threshold", "0.1", "--threshold", "0.9").thresholds == (0.1, 0.9)
    assert config_of("explain", "--id", "a", "--id", "b").ids == ("a", "b")
    convert = config_of("convert", "i", "l", "--view", "AP", "--view", "LL", "--modality", "CT", "--body-part", "HAND")
    labels = config_of("convert", "i", "l", "--positive", "a", "--positive", "b", "--negative", "c", "--ignore", "-1")
    assert (labels.positive, labels.negative, labels.ignore) == (("a", "b"), ("c",), ("-1",))
    assert (convert.views, convert.modalities, convert.body_parts) == (("AP", "LL"), ("CT",), ("HAND",))
    assert config_of("export", "a", "b", "-o", "c.onnx").runs == (Path("a"), Path("b"))
    assert config_of("train", "--teach", "classes", "--teach", "boxes").teach == ("classes", "boxes")
    train = config_of("train", "a", "b", "--share", "1", "--share", "3")
    assert (train.datasets, train.shares) == ((Path("a"), Path("b")), (1.0, 3.0))


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("5", 5), ("0.05", 0.05), ("1.0", 1.0), ("0.0", 0.0), ("5%", 0.05), ("1.5%", 0.015), ("1e-3", 0.001)],
)
def test_max_rejects_is_a_count_or_a_share(text: str, value: float) -> None:
    assert read(MAX_REJECTS, text) == pytest.approx(value)
    assert isinstance(read(MAX_REJECTS, text), type(value))


@pytest.mark.parametrize("text", ["x", "", "%", "5%%", "1,5"])
def test_max_rejects_that_is_no_number(text: str) -> None:
    with pytest.raises(ConfigError, match=r"max-rejects .*: a number expected"):
        read(MAX_REJECTS, text)


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        (options_of(TrainConfig)["seed"], "abc", "seed 'abc': a whole number expected"),
        (options_of(ConvertConfig)["size"], "32.5", "size '32.5': a whole number expected"),
        (options_of(TrainConfig)["lr"], "1e-", "lr '1e-': a number expected"),
        (options_of(TrainConfig)["shares"], "half", "share 'half': a number expected"),
    ],
)
def test_a_number_that_is_none_is_quoted(field: Field, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        read(field, [text] if field.is_list else text)


# ---- a configuration in words


CONFIGS = [config for config in COMMANDS.values() if config not in {PredictConfig, ServeConfig}]  # which look for runs
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
KINDS = {str: TEXT, Path: TEXT.map(Path), bool: st.booleans()}


def numbers(field: Field) -> st.SearchStrategy[Any]:
    """What a field allows, and now and then what it refuses."""
    least = next((bound for bound in (field.option.least, field.option.above) if bound is not None), None)
    most = next((bound for bound in (field.option.most, field.option.below) if bound not in {None, math.inf}), None)
    kinds = {int: st.integers(least, most), float: st.floats(least, most, allow_nan=False)}  # type: ignore[arg-type]
    return st.one_of(*(kinds[kind] for kind in field.types if kind in kinds))


def single(field: Field) -> st.SearchStrategy[Any]:
    of_type = [KINDS[kind] for kind in field.types if kind in KINDS] or ([numbers(field)] if field.types else [])
    return st.one_of(*of_type, *map(st.just, field.words))


@st.composite
def configurations(draw: st.DrawFn, config: type[Any]) -> Any:
    """A configuration in which a few options are not what they are by default."""
    fields = [field for field in options_of(config).values() if field.option.on_command_line]
    needed = [field for field in fields if field.default is MISSING]
    chosen = draw(st.lists(st.sampled_from(fields), max_size=4))
    values = {}
    for field in (*needed, *chosen):
        some = st.lists(single(field), min_size=1, max_size=3).map(tuple) if field.is_list else single(field)
        values[field.name] = draw(some)
    try:
        return config(**values)
    except ConfigError:
        reject()


def parser_of(config: type[Any]) -> Callable[[list[str]], Any]:
    alone, made = typer.Typer(add_completion=False), []

    @alone.command()
    @with_options(config)
    def command(make: Callable[[], Any]) -> None:
        made.append(make())

    def parse(words: list[str]) -> Any:
        alone(words, standalone_mode=False)
        return made.pop()

    return parse


@pytest.mark.parametrize("config", CONFIGS)
def test_the_words_of_a_configuration_give_it_again(config: type[Any]) -> None:
    parse = parser_of(config)

    @settings(max_examples=100, suppress_health_check=[HealthCheck.filter_too_much])
    @given(configurations(config))
    def hold(given: Any) -> None:
        assert parse(arguments_of(given)) == given

    hold()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (ReportConfig(run=Path("-r")), ["./-r"]),
        (ExplainConfig(layer="--help", ids=("-a", "b c")), ["run", "--layer", "--help", "--id", "-a", "--id", "b c"]),
        (TrainConfig(seed=-3, lr=0.98765432, amp=True), ["dataset", "--lr", "0.98765432", "--amp", "--seed", "-3"]),
        (PhantomConfig(out=Path("o"), size_px=64, positive_fraction=0.5), ["o", "--size", "64"]),
    ],
)
def test_how_a_configuration_is_spelled(config: Any, words: list[str]) -> None:
    assert arguments_of(config) == words
    if not isinstance(config, PhantomConfig):  # which has options for Python only
        assert parser_of(type(config))(words) == config


def test_a_commands_own_parameters_stand_where_they_are_put(run_cli: Run) -> None:
    lines = [line.split()[0] for line in run_cli("train", "--help").out.splitlines() if line.startswith("  -")]
    place = lines.index("--config")
    assert lines[place - 1 : place + 2] == ["-o,", "--config", "--resume"]


# ---- once, and in groups


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("train", "--epochs", "3", "--epochs=5"), "'--epochs': given 2 times"),
        (("train", "--out", "a", "-o", "b", "-oc"), "'--out' / '-o': given 3 times"),
        (("convert", "i", "l", "--workers", "2", "--num-workers", "2"), "'--workers' / '--num-workers': given 2 times"),
        (("evaluate", "--split", "val", "--split", "test"), "'--split': given 2 times"),
    ],
)
def test_an_option_of_one_value_is_given_once(run_cli: Run, arguments: tuple[str, ...], named: str) -> None:
    ended = run_cli(*arguments)
    assert ended.code == 2
    assert f"{named}, but one value counts; give it once" in " ".join(ended.err.split())


def test_lists_and_flags_may_be_repeated(config_of: Run) -> None:
    config = config_of("train", "a", "b", "--share", "1", "--share", "2", "--amp", "--amp")
    assert (config.shares, config.amp) == ((1.0, 2.0), True)


TRAINING = ["Optimization:", "Auxiliary supervision:", "Selection:"]


@pytest.mark.parametrize(
    ("command", "headings"),
    [
        ("train", ["Arguments:", "Data:", "Straight from images:", "Model:", *TRAINING, "Speed:", "Run:", "Options:"]),
        ("convert", ["Arguments:", "Labels:", "Selection:", "Split:", "Images:", "Work:", "Privacy:", "Options:"]),
        ("evaluate", ["Arguments:", "Options:"]),
    ],
)
def test_help_is_in_groups(run_cli: Run, command: str, headings: list[str]) -> None:
    lines = run_cli(command, "--help").out.splitlines()
    assert [line for line in lines if line.endswith(":") and not line.startswith(" ")] == headings
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize(
    ("command", "usage", "words"),
    [
        (
            "convert",
            "convert [OPTIONS] IMAGES LABELS [OUT]",
            (
                "OUT Dataset folder to write. [default: dataset]",
                "--size INTEGER",
                "--several [reject|first|all]",
                "One of AP, PA, LL, RL, LLD, RLD, LLO, RLO, LATERAL, OBLIQUE. [default: all but LL, RL, LATERAL]",
            ),
        ),
        (
            "train",
            "train [OPTIONS] [DATASET]...",
            ("DATASET... Dataset", "--batch-size INTEGER|auto", "--share NUMBER", "--out PATH", "--config PATH"),
        ),
        ("predict", "predict [OPTIONS] [INPUT]...", ("INPUT... Run folders", "paths. [required]", "[default: 100%]")),
    ],
)
def test_help_names_values_as_the_texts_do(run_cli: Run, command: str, usage: str, words: tuple[str, ...]) -> None:
    shown = " ".join(run_cli(command, "--help").out.split())
    assert shown.startswith(f"Usage: pneumo-fast {usage} ")
    assert [word for word in words if word not in shown] == []


@pytest.mark.parametrize("command", GROUP.commands)
def test_help_names_no_type_of_python(run_cli: Run, command: str) -> None:
    assert not set("<>{}") & set(run_cli(command, "--help").out)
