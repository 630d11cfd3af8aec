"""The command line: options become one frozen configuration and one call of the library.

Only this module, :mod:`pneumo_fast.cli.commands` and :mod:`pneumo_fast.cli.arguments` import typer. What is heavy
(PyTorch, DALI, pandas) is imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn, cast

import typer

from pneumo_fast import __version__
from pneumo_fast.cli import commands
from pneumo_fast.cli.arguments import Command, with_output
from pneumo_fast.errors import PneumoError, memory_ran_out
from pneumo_fast.signals import leave_closed_terminal, stopping_signals
from pneumo_fast.vocabulary import NOT_CLINICAL

app = typer.Typer(
    name="pneumo-fast",
    help=f"From a folder of chest radiographs and a label table to an evaluated pneumonia classifier. {NOT_CLINICAL}",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# What typer raises for every wrong use. It exports only the children; the class is click's or, of late, its own.
UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__bases__[0])

STOPPED = {  # as shells report them
    128 + signal.SIGINT: "interrupted",
    128 + signal.SIGTERM: "terminated",
    128 + signal.SIGHUP: "the terminal was closed",
}


def main() -> None:
    """Run the command line; every error a person can cause ends in one line."""
    try:
        _run()
    finally:
        for (
            number
        ) in stopping_signals():  # nothing is left to put in order, and Python's own end must not be interrupted
            signal.signal(number, signal.SIG_DFL)


def _run() -> NoReturn:
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        _open_closed_streams()
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # as of stderr: a path may hold any bytes
        for number in stopping_signals():
            signal.signal(number, _stop)
        code = app(arguments, prog_name="pneumo-fast", standalone_mode=False)
    except (PneumoError, OSError, MemoryError, UsageError, RuntimeError) as error:
        unknown = isinstance(error, RuntimeError) and not memory_ran_out(error)
        if unknown or "--debug" in sys.argv:
            raise
        from pneumo_fast.cli.console import show_error

        show_error(_usage(error) if isinstance(error, UsageError) else _line(error))
        raise SystemExit(getattr(error, "exit_code", 1)) from None
    except SystemExit as stop:
        if stop.code in STOPPED:
            typer.echo(STOPPED[stop.code], err=True)
        raise
    raise SystemExit(code)


def _open_closed_streams() -> None:
    """Let what was closed lead nowhere, so that no file that is opened later takes its place."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = (
        stream or open(number, mode)  # noqa: PTH123, SIM115  # a descriptor, for the life of the process
        for number, (stream, mode) in enumerate(((sys.stdin, "r"), (sys.stdout, "w"), (sys.stderr, "w")))
    )


def _line(error: Exception) -> str:
    """What went wrong; of a full disk or the like at least where, as far as is known."""
    if memory_ran_out(error):
        return "out of memory: free some, or use a machine with more; what was written before stands"
    if not isinstance(error, OSError):
        return str(error)
    return f"{error.filename or 'a file or the output'}: {error.strerror or error}"


def _usage(error: typer.BadParameter) -> str:
    message = error.format_message().replace(": Value error, ", ": ")  # which pydantic says to typer
    command = error.ctx.command_path if error.ctx else "pneumo-fast"
    return f"{message} See {command} --help" if message[-1:] == "?" else f"{message.rstrip('.')}: see {command} --help"


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    """End by way of every ``finally``, so that no process and nothing half-written is left."""
    if number == signal.SIGHUP:
        leave_closed_terminal()
    raise SystemExit(128 + number)


@app.callback(invoke_without_command=True)
def _common(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,  # noqa: ARG001  # main() looks for it
) -> None:
    if version:
        typer.echo(f"pneumo-fast {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(UsageError.exit_code)


COMMANDS = (
    "convert", "train", "evaluate", "explain", "report", "predict", "serve", "export", "verify", "show", "ids",
    "phantom", "doctor",
)  # fmt: skip
for name in COMMANDS:
    app.command(cls=Command)(with_output(getattr(commands, name)))
