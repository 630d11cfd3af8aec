"""The command line: every error is one line with the right exit code, and help answers at once."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from pneumo_fast import __version__
from pneumo_fast.cli import app as app_module
from pneumo_fast.conversion import convert as convert_module
from pneumo_fast.errors import ConvertError, LabelError

NEEDED_BY_HELP = "import typer, rich.console"
Run = Callable[..., Any]

# ---- errors


INPUT = ["convert", "images", "labels.csv", "out"]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["convert"], 2, "Missing argument"),
        (["nothing"], 2, "No such command 'nothing'"),
        (["trian"], 2, "Did you mean 'train'? See pneumo-fast --help"),
        ([*INPUT, "--nothing"], 2, "No such option: --nothing"),
        ([*INPUT, "more"], 2, "more"),
        ([*INPUT, "--size", "x"], 2, "size 'x': a whole number expected"),
        ([*INPUT, "--dtype", "float32"], 2, "Invalid value for '--dtype': 'float32' is not one of"),
        ([*INPUT, "--size", "8"], 2, "size 8: 16 to 4096 pixels expected"),
        ([*INPUT, "--val-fraction", "1"], 2, "val-fraction 1.0: a number from 0 to below 1 expected"),
        ([*INPUT, "--val-fraction", "nan"], 2, "val-fraction nan: a number from 0 to below 1 expected"),
        ([*INPUT, "--test-fraction", "-0.1"], 2, "test-fraction -0.1: a number from 0 to below 1 expected"),
        ([*INPUT, "--test-fraction", "0.9"], 2, "both together must be below 1"),
        ([*INPUT, "--workers", "0"], 2, "workers 0: at least 1 expected"),
        ([*INPUT, "--shard-size", "0"], 2, "shard-size 0: at least 1 expected"),
        ([*INPUT, "--max-pixels", "0"], 2, "max-pixels 0: at least 1 expected"),
        ([*INPUT, "--timeout-s", "0"], 2, "timeout-s 0.0: a number of seconds above 0"),
        ([*INPUT, "--max-rejects", "some"], 2, "max-rejects 'some': a number expected"),
        ([*INPUT, "--max-rejects", "101%"], 2, "a share from 0.0 to 1.0 expected"),
        ([*INPUT, "--max-rejects", "-1"], 2, "a count of at least 0"),
        ([*INPUT, "--max-rejects", "inf"], 2, "a share from 0.0 to 1.0 expected"),
        ([*INPUT, "--resume", "--overwrite"], 2, "exclude each other"),
        (["convert", "gone", "labels.csv", "out"], 1, "images folder gone does not exist"),
        (["convert", "images", "gone.csv", "out"], 1, "table gone.csv does not exist: name a CSV file"),
        (["convert", "images", "conflict.csv", "out"], 1, "conflict.csv, line 3, column 'Target'"),
        (["convert", "images", "strangers.csv", "out"], 1, "none of the 40 files"),
        (["convert", "images", "two\nlines.csv", "out"], 1, "two lines.csv has no column 'patientId'"),
        (["convert", "images", "labels.csv", "taken"], 1, "taken holds files that are not a dataset"),
        (["convert", "images", "labels.csv", "bad.key"], 1, "bad.key is a file"),
        (["convert", "broken", "labels.csv", "out"], 1, "of 40 files were rejected, 0 are allowed ("),
        ([*INPUT, "--id-column", "who"], 1, "no column 'who'"),
        ([*INPUT, "--groups", "bad.json"], 1, "entry 0"),
        ([*INPUT, "--hash-key", "bad.key"], 2, "hash key bad.key has 1 bytes"),
        (["train"], 1, "dataset dataset does not exist: name a dataset folder, or run pneumo-fast convert first"),
        (["train", "junk"], 1, "dataset junk: not a complete manifest"),
        (["train", "--lr", "0"], 2, "lr 0.0: a number above 0 expected"),
        (["train", "--pos-weight", "much"], 2, "pos-weight 'much': a number, or auto, expected"),
        (["train", "--flip"], 2, "flip without augment: give --augment light or strong as well"),
        (["train", "--augment", "some"], 2, "Invalid value for '--augment'"),
        (["train", "--batch-size", "1"], 2, "batch-size 1: at least 2 expected"),
        (["train", "--batch-size", "some"], 2, "batch-size 'some': a whole number, or auto, expected"),
        (["train", "--batch-size", "auto", "--device", "cpu"], 2, "batch-size auto without a GPU: give a number"),
        (["train", "--device", "abacus"], 1, "abacus"),
        (["evaluate"], 1, "run run does not exist: name a run folder, or run pneumo-fast train first"),
        (["evaluate", "junk"], 1, "junk is a dataset, not a run: name a run folder"),
        (["report", "junk"], 1, "junk is a dataset, not a run: name a run folder"),
        (["train", "trained"], 1, "trained is a run, not a dataset: name a dataset folder"),
        (["verify", "trained"], 1, "trained is a run, not a dataset: name a dataset folder"),
        (["predict", "junk", "images"], 2, "expected a run folder first, then what to score: junk is not a run folder"),
        (["evaluate", "--split", "all"], 2, "Invalid value for '--split'"),
        (["evaluate", "--threshold", "2"], 2, "threshold 2.0 is not a probability"),
        (["show"], 1, "dataset dataset does not exist"),
        (["show", "--count", "0"], 2, "count 0: 1 to 100 images expected"),
        (["show", "--out", "sheet"], 2, "out sheet: the name of a PNG file expected"),
        (["show", "--augment", "none"], 2, "Invalid value for '--augment'"),
        (["verify", "junk"], 1, "dataset junk: not a complete manifest"),
        (["phantom", "out", "--count", "0"], 2, "count is 0"),
    ],
)  # fmt: skip
def test_an_error_is_one_line(run_cli: Run, arguments: list[str], code: int, words: str) -> None:
    ended = run_cli(*arguments)
    assert ended.code == code
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert words in ended.err
    assert "Traceback" not in ended.out


OUT_OF_MEMORY = "out of memory: free some, or use a machine with more; what was written before stands"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device", "x"), "x: No space left on device"),
        (MemoryError(), OUT_OF_MEMORY),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), OUT_OF_MEMORY),
        (RuntimeError("CUDA error: out of memory"), OUT_OF_MEMORY),
        (ConvertError("one\n two [bold]three[/]"), "one two [bold]three[/]"),
    ],
)
def test_errors_of_the_system_are_one_line_too(
    monkeypatch: pytest.MonkeyPatch, run_cli: Run, error: Exception, line: str
) -> None:
    def fail(*_args: object) -> NoReturn:
        raise error

    monkeypatch.setattr(convert_module, "convert", fail)
    ended = run_cli("convert", "i", "l")
    assert (ended.code, ended.err) == (1, f"error: {line}\n")


@pytest.mark.parametrize("where", [0, 1, 3])
def test_debug_shows_the_traceback(run_cli: Run, where: int) -> None:
    arguments = ["convert", "gone", "gone.csv"]
    arguments.insert(where, "--debug")
    with pytest.raises(LabelError, match=r"gone\.csv"):
        run_cli(*arguments)


def test_memory_that_runs_out_at_once_is_one_line_too(monkeypatch: pytest.MonkeyPatch, run_cli: Run) -> None:
    def fail() -> NoReturn:
        raise MemoryError

    monkeypatch.setattr(app_module, "_open_closed_streams", fail)
    ended = run_cli("--version")
    assert (ended.code, ended.err) == (1, f"error: {OUT_OF_MEMORY}\n")


@pytest.mark.parametrize("error", [ZeroDivisionError(), RuntimeError("shapes do not fit")])
def test_a_fault_of_ours_is_a_traceback(monkeypatch: pytest.MonkeyPatch, run_cli: Run, error: Exception) -> None:
    def fail(*_args: object) -> NoReturn:
        raise error

    monkeypatch.setattr(convert_module, "convert", fail)
    with pytest.raises(type(error)) as raised:
        run_cli("convert", "i", "l")
    assert raised.value is error


# ---- what is shown


@pytest.mark.parametrize("arguments", [["--version"], ["--debug", "--version"]])
def test_version(run_cli: Run, arguments: list[str]) -> None:
    assert run_cli(*arguments) == (0, f"pneumo-fast {__version__}\n", "")


def test_no_command_shows_the_help(run_cli: Run) -> None:
    ended = run_cli()
    assert ended.code == 2
    assert "convert" in ended.err
    assert run_cli("--help").out == ended.err


# ---- from the shell


def shell(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


@contextmanager
def cpu_seconds() -> Iterator[list[float]]:
    """CPU time of the child processes that end within the block."""
    used: list[float] = []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    yield used
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


@pytest.mark.parametrize("command", [[], ["train"]])
def test_help_answers_at_once(command: list[str]) -> None:
    needed, used = [], []
    for _ in range(3):  # the least: a busy machine takes more CPU time for the same work
        with cpu_seconds() as seconds:
            shell("-c", NEEDED_BY_HELP)
        needed += seconds
        with cpu_seconds() as seconds:
            assert "Usage: pneumo-fast" in shell("-m", "pneumo_fast", *command, "--help").stdout
        used += seconds
    assert min(used) < 5 * min(needed)


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys, pneumo_fast.cli.app as cli\n"
        "for name in cli.COMMANDS:\n"
        "    sys.argv = ['pneumo-fast', name, '--help']\n"
        "    try: cli.main()\n"
        "    except SystemExit: pass\n"
        "    print('imported:', name, *{'torch', 'pandas', 'numpy', 'nvidia', 'pydicom'} & set(sys.modules))\n"
    )
    said = [line for line in shell("-c", program).stdout.splitlines() if line.startswith("imported:")]
    assert said == [f"imported: {name}" for name in app_module.COMMANDS]


def test_a_signal_while_python_ends_is_no_traceback() -> None:
    program = (
        "import sys, threading, time, pneumo_fast.cli.app as cli\n"
        "threading.Thread(target=time.sleep, args=(20,)).start()\n"  # Python waits for it at its end
        "sys.argv = ['pneumo-fast', '--version']\n"
        "cli.main()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=15)
    assert (process.returncode, errors) == (-signal.SIGTERM, b"")


def test_errors_from_the_shell(tmp_path: Path) -> None:
    done = shell("-m", "pneumo_fast", "convert", str(tmp_path), str(tmp_path / "gone.csv"), code=1)
    assert len(done.stderr.splitlines()) == 1
    assert "gone.csv does not exist" in done.stderr
