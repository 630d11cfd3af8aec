"""The parameters of a command, made from the fields of its configuration."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from dataclasses import MISSING
from functools import partial
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand

from pneumo_fast.configuration import Field, options_of
from pneumo_fast.errors import ConfigError

Function = Callable[..., Any]
METAVARS: Final = {Path: "PATH", str: "TEXT", int: "INTEGER", float: "NUMBER"}


class Command(TyperCommand):
    """A command that refuses an option given twice where only one value counts, and shows its options in groups."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Count what was given, then read it as typer does."""
        order: list[Any] = self.make_parser(ctx).parse_args(args=list(args))[-1]
        for option in dict.fromkeys(order):
            takes_one = option.param_type_name == "option" and not (option.multiple or option.is_flag)
            if takes_one and (times := order.count(option)) > 1:
                raise typer.BadParameter(f"given {times} times, but one value counts; give it once", ctx, option)
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Write a required argument without braces, as the texts name it."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments first, then the options under the headings of their groups."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        for parameter in self.get_params(ctx):
            is_option = parameter.param_type_name == "option"
            heading = (getattr(parameter, "rich_help_panel", None) or "Options") if is_option else "Arguments"
            if record := parameter.get_help_record(ctx):
                groups.setdefault(heading, []).append(_help_record(parameter, *record))
        for heading, records in groups.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def _help_record(parameter: Any, name: str, text: str) -> tuple[str, str]:
    """A parameter and its help, with names of types rather than those of Python, and defaults without parentheses."""
    if parameter.param_type_name == "option":
        name = re.sub("<.*>", parameter.metavar or "", name)
    else:
        name = parameter.metavar + ("..." if parameter.nargs != 1 else "")
    text = re.sub(r"\[default: \((.*)\)\]", r"[default: \1]", text)
    return name, text.replace("[default: required]", "[required]")


def with_options(config: Any, *, but: str = "", after: str = "") -> Callable[[Function], Function]:
    """Let a command take the options of a configuration.

    Parameters
    ----------
    config : type
        A dataclass whose fields have an :class:`~pneumo_fast.configuration.Option`.
    but : str
        Name of a field that the command fills itself.
    after : str
        Name of the field behind which the command's own parameters stand; by default they are the first.

    Returns
    -------
    callable
        A decorator for a function whose first parameter, ``make``, gives the finished configuration; values that are
        handed to it count more than those of the command line.
    """
    fields = [field for field in options_of(config).values() if field.option.on_command_line and field.name != but]
    place = 1 + [field.name for field in fields].index(after) if after else 0

    def decorate(command: Function) -> Function:
        def run(**given: Any) -> Any:
            values = {field.name: read(field, given.pop(field.name)) for field in fields}
            return command(partial(config, **values), **given)

        made = [_parameter(field) for field in fields]
        own = list(signature(command, eval_str=True).parameters.values())[1:]
        parameters = [one.replace(kind=Parameter.KEYWORD_ONLY) for one in (*made[:place], *own, *made[place:])]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # where typer looks
        return run

    return decorate


OUTPUT: Final = {
    "quiet": typer.Option("--quiet", "-q", help="Show warnings, errors and the result alone."),
    "json": typer.Option("--json", help="Write the result as a JSON object; all else goes to standard error."),
}


def with_output(command: Function) -> Function:
    """Let a command take ``--quiet`` and ``--json``.

    Parameters
    ----------
    command : callable
        What it returns is its result: what ``--json`` writes, a dataclass or a dictionary. If that has an
        ``exit_code``, as errors have, the command ends with it.
    """

    def run(*, quiet: bool, json: bool, **given: Any) -> None:
        stdout = sys.stdout
        with ExitStack() as stack:
            if json:
                stack.enter_context(redirect_stdout(sys.stderr))
            from pneumo_fast.cli import console  # noqa: PLC0415  # for --help; and when it is known where it writes

            if quiet:
                stack.enter_context(console.quieted(results=json))
            result = command(**given)
        if json and console.SPEAKS:
            from pneumo_fast.records import json_line  # noqa: PLC0415  # for --help

            typer.echo(json_line(result), stdout)
        if code := getattr(result, "exit_code", 0):
            raise typer.Exit(code)

    own = [one.replace(kind=Parameter.KEYWORD_ONLY) for one in signature(command, eval_str=True).parameters.values()]
    both = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, option])
        for name, option in OUTPUT.items()
    ]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = Signature([*own, *both])  # type: ignore[attr-defined]  # where typer looks
    return run


def _parameter(field: Field) -> Parameter:
    """What typer makes an argument or option of; what it knows no type for is read as text."""
    option, help_text = field.option, field.option.help
    kind, default = field.type, Parameter.empty if field.default is MISSING else field.default
    shown: str | bool = option.default or True
    if field.is_list:
        single = Path if Path in field.types else str
        kind, default = list[single] | None, None  # type: ignore[valid-type]  # known when it runs
        shown = option.default or ", ".join(str(value) for value in field.default)
        if not all(word in help_text for word in field.words):
            help_text += f" One of {', '.join(field.words)}."
    elif _is_number(field):
        kind, default = (str | None, None) if default is None else (str, str(default))
    if option.positional:
        info = typer.Argument(help=help_text, show_default=shown, metavar=_metavar(field))
    else:
        info = typer.Option(
            f"--{field.spelled}", *option.aliases,
            help=help_text, show_default=shown, metavar=_metavar(field), rich_help_panel=field.group or None,
        )  # fmt: skip
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])


def _is_number(field: Field) -> bool:
    """Whether it is a number, or one of several words or a number; typer reads it as text."""
    return bool({int, float} & set(field.types))


def _metavar(field: Field) -> str | None:
    """What stands for the value in ``--help``: its kind, or the words to choose from; None for a flag."""
    if field.option.positional:
        return (field.name.removesuffix("s") if field.is_list else field.name).upper()
    if not field.types and not field.is_list:
        return f"[{'|'.join(field.words)}]"
    kinds = [METAVARS[kind] for kind in field.types or (str,) if kind in METAVARS]
    return "|".join([*kinds[-1:], *(() if field.is_list else field.words)]) or None


def read(field: Field, given: Any) -> Any:
    """The value of a field from what typer has read.

    Of a field that may be a count or a share, ``5`` is a count; ``0.05`` and ``5%`` are shares.

    Raises
    ------
    ConfigError
        If a text is no number.
    """
    if field.is_list:
        return tuple(_read_single(field, text) for text in given) if given else field.default
    return _read_single(field, given)


def _read_single(field: Field, given: Any) -> Any:
    if not _is_number(field) or given is None or given in field.words:
        return given
    whole = float not in field.types or (int in field.types and given.isdecimal())
    percent = int in field.types and not whole and given.endswith("%")
    number = given[:-1] if percent else given
    try:
        return int(number) if whole else float(number) / (100 if percent else 1)
    except ValueError:
        expected = "a whole number" if whole else "a number"
        expected += f", or {', '.join(field.words)}," if field.words else ""
        raise ConfigError(f"{field.spelled} {number!r}: {expected} expected") from None
