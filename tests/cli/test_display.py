"""What is shown while a run trains: on a terminal of 80 columns, and in a file or pipe."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from pneumo_fast.cli import console as console_module
from pneumo_fast.cli import display
from pneumo_fast.formatting import harmless
from pneumo_fast.progress import OnProgress
from pneumo_fast.run.checkpoint import EpochRecord
from tests.support.training import history_of

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def shown(monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool, act: Callable[..., None]) -> str:
    """What a training display writes while ``act`` is given its two functions."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=is_terminal, width=80, height=24, highlight=False)
    monkeypatch.setattr(display, "info", console)
    with display.training_display() as (_, on_epoch, on_progress):
        act(on_epoch, on_progress)
    return file.getvalue()


def forty_epochs(record: EpochRecord) -> Callable[..., None]:
    """More than a terminal has lines."""

    def act(on_epoch: Callable[[EpochRecord], None], on_progress: OnProgress) -> None:
        for epoch in range(1, 41):
            on_progress(epoch * 26_000, 1_040_000)
            on_epoch(record | {"epoch": epoch, "images_per_s": 12_345.6, "wait_share": 0.034})

    return act


def check_lines(lines: list[str]) -> None:
    """Two lines of headings and one for each epoch."""
    assert len(lines) == 42
    assert lines[0].split() == ["train", "train", "val", "val", "val", "val"]
    assert lines[1].split() == ["epoch", "loss", "acc.", "loss", "acc.", "AUROC", "AP", "images/s", "wait"]
    for epoch, line in enumerate(lines[2:], start=1):
        cells = line.split()
        assert len(cells) == 9
        assert (cells[0], *cells[-2:]) == (str(epoch), "12,346", "3.4%")
    assert len({len(line.rstrip()) for line in lines[1:]}) == 1, "in columns"


def test_a_pipe_gets_plain_lines(monkeypatch: pytest.MonkeyPatch, reference_run: Path) -> None:
    text = shown(monkeypatch, is_terminal=False, act=forty_epochs(history_of(reference_run)[0]))
    assert "\x1b" not in text
    assert "\r" not in text
    check_lines(text.splitlines())


def test_a_terminal_gets_the_same_lines_above_a_bar(monkeypatch: pytest.MonkeyPatch, reference_run: Path) -> None:
    text = shown(monkeypatch, is_terminal=True, act=forty_epochs(history_of(reference_run)[0]))
    assert "\x1b[1m" in text
    lines = [line.split("\r")[-1].rstrip() for line in ESCAPE.sub("", text).splitlines()]
    assert max(map(len, lines)) <= 80
    bars = [line for line in lines if line.startswith("training")]
    assert re.search(r"━ 1040000/1040000 .*/s \d:\d\d:\d\d$", bars[-1])
    check_lines([line for line in lines if line and not line.startswith("training")])


def test_a_narrow_terminal_gets_a_line_for_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    console = Console(file=file, width=60)
    monkeypatch.setattr(display, "info", console)
    console.print(display._epoch_line(column for _, column in display.EPOCH_COLUMNS.values()))
    assert file.getvalue().split() == ["epoch", "loss", "acc.", "loss", "acc.", "AUROC", "AP"]
    assert len(file.getvalue().splitlines()) == 1


def test_a_terminal_gets_no_bar_before_there_is_something_to_show(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not shown(monkeypatch, is_terminal=True, act=lambda _on_epoch, _on_progress: None)


def test_the_rate_after_a_resume_leaves_out_what_was_done_before(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, get_time=lambda: float(next(clock)))
    monkeypatch.setattr(display, "info", console)
    rates: list[str] = []
    bar = display._bar()
    update = display._updater(bar, bar.add_task("training", total=None, rate=""), lambda: None)
    for done in (1_000_000, 1_000_010, 1_000_020):
        update(done, 2_000_000)
        rates.append(bar.tasks[0].fields["rate"])
    assert rates[0] == ""
    assert all(float(rate.removesuffix("/s")) <= 10 for rate in rates[1:])


@pytest.mark.parametrize(("problems", "words"), [(["a"], "1 problem: convert again"), (["a", "b"], "2 problems: ")])
def test_one_is_no_plural(capsys: pytest.CaptureFixture[str], problems: list[str], words: str) -> None:
    display.show_verification(Path("dataset"), problems, pixels=True)
    assert words in capsys.readouterr().out


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """The package's logger, as it was afterwards."""
    package = logging.getLogger("pneumo_fast")
    for name in ("level", "handlers", "propagate"):
        monkeypatch.setattr(package, name, getattr(package, name))
    return package


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_message_is_one_line_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch, package: logging.Logger, is_terminal: bool
) -> None:
    file = io.StringIO()
    monkeypatch.setattr(display, "err", Console(file=file, force_terminal=is_terminal, width=80, color_system=None))
    display.set_up_logging()
    package.getChild("train").warning("word " * 40)
    lines = file.getvalue().splitlines()
    assert lines[0].startswith("WARNING")
    assert (len(lines) == 1) != is_terminal


def test_a_message_stands_above_the_bar(monkeypatch: pytest.MonkeyPatch, package: logging.Logger) -> None:
    monkeypatch.setattr(display, "err", Console(file=io.StringIO(), force_terminal=True))

    def act(_on_epoch: object, on_progress: OnProgress) -> None:
        display.set_up_logging()
        on_progress(1, 2)
        package.getChild("train").warning("look")
        on_progress(2, 2)

    text = ESCAPE.sub("", shown(monkeypatch, is_terminal=True, act=act))
    assert re.search(r"\rWARNING +look *\ntraining ", text)


@pytest.mark.parametrize(
    "text", ["[/x]", "[bold]x[/bold]", "[link=http://a]b[/link]", "\x1b[31mred", "a\x9bb", "\u202edesrever"]
)
@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_comes_from_outside_has_no_effect(text: str, is_terminal: bool) -> None:
    file = io.StringIO()
    console = console_module.Terminal(file=file, force_terminal=is_terminal, width=200, highlight=False, markup=False)
    table = display.grid(text)
    table.add_row(text)
    console.print(text)
    console.print(table)
    console.print(display.facts([("name", text)]))
    written = ESCAPE.sub("", file.getvalue()) if is_terminal else file.getvalue()
    assert written.count(harmless(text)) == 4
    assert "\x1b" not in written
    assert text == harmless(text) or text not in written


def test_messages_have_no_control_characters() -> None:
    record = logging.LogRecord("x", logging.WARNING, "", 0, "a\x1b[2Jb [/x]", None, None)
    assert display.PlainFormatter("%(message)s").format(record) == "a\N{REPLACEMENT CHARACTER}[2Jb [/x]"
