"""The command line: defaults are the library's, every error is one line with the right exit code."""

from __future__ import annotations

import csv
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pytest

from pneumo_fast import __version__
from pneumo_fast.cli.commands import parse_max_rejects
from pneumo_fast.conversion import convert as convert_module
from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.errors import ConfigError, ConvertError, LabelError
from pneumo_fast.evaluation import evaluate as evaluate_module
from pneumo_fast.evaluation.options import EvaluateConfig
from pneumo_fast.explanation import explain as explain_module
from pneumo_fast.explanation.options import ExplainConfig
from pneumo_fast.loading import preview as show_module
from pneumo_fast.loading.options import ShowConfig
from pneumo_fast.phantoms import make as phantom_module
from pneumo_fast.phantoms.make import PhantomSet
from pneumo_fast.phantoms.options import PhantomConfig
from pneumo_fast.reporting import report as report_module
from pneumo_fast.reporting.options import ReportConfig
from pneumo_fast.training import train as train_module
from pneumo_fast.training.options import TrainConfig

HELP_CPU_S = 0.5
Run = Callable[..., Any]


class CaughtError(Exception):
    """Ends a command in the place of the work."""


@pytest.fixture
def config_of(monkeypatch: pytest.MonkeyPatch, run_cli: Run) -> Callable[..., Any]:
    """The configuration that a command hands to the library."""

    def catch(*arguments: object) -> Any:
        caught: list[Any] = []

        def instead(config: Any, *_callbacks: object) -> NoReturn:
            caught.append(config)
            raise CaughtError

        for module, name in (
            (convert_module, "convert"),
            (train_module, "train"),
            (evaluate_module, "evaluate"),
            (explain_module, "explain"),
            (report_module, "report"),
            (show_module, "show"),
            (phantom_module, "make_phantoms"),
        ):
            monkeypatch.setattr(module, name, instead)
        with pytest.raises(CaughtError):
            run_cli(*arguments)
        return caught[0]

    return catch


# ---- options


@pytest.mark.parametrize(
    ("arguments", "config"),
    [
        (["convert", "i", "l"], ConvertConfig(images=Path("i"), labels=Path("l"))),
        (["train"], TrainConfig()),
        (["evaluate"], EvaluateConfig()),
        (["explain"], ExplainConfig()),
        (["report"], ReportConfig()),
        (["show"], ShowConfig()),
        (["phantom", "o"], PhantomConfig(out=Path("o"))),
    ],
)
def test_defaults_are_the_librarys(config_of: Run, arguments: list[str], config: Any) -> None:
    assert config_of(*arguments) == config


CONVERT_OPTIONS = {
    "--id-column": "id",
    "--label-column": "ill",
    "--group-column": "who",
    "--path-column": "file",
    "--class-info": "c.csv",
    "--groups": "m.json",
    "--ungrouped": "drop",
    "--val-fraction": "0.2",
    "--test-fraction": "0.3",
    "--seed": "7",
    "--size": "64",
    "--dtype": "uint8",
    "--layout": "folder",
    "--shard-size": "9",
    "--decode": "exact",
    "--window": "none",
    "--workers": "3",
    "--scheduler": "tcp://h:1",
    "--max-rejects": "5",
    "--timeout-s": "2.5",
    "--max-pixels": "1000",
    "--resume": "",
    "--hash-ids": "",
    "--hash-key": "k",
}
TRAIN_OPTIONS = {
    "--share": "2",
    "--out": "r",
    "--epochs": "3",
    "--batch-size": "5",
    "--accumulate": "2",
    "--model": "resnet34",
    "--weights": "w.pt",
    "--optimizer": "adamw",
    "--lr": "0.01",
    "--weight-decay": "0.5",
    "--schedule": "cosine",
    "--warmup-epochs": "1.5",
    "--clip-norm": "2.5",
    "--ema": "0.75",
    "--label-smoothing": "0.25",
    "--pos-weight": "2.5",
    "--order": "weighted",
    "--balance": "view",
    "--window": "3",
    "--loader": "dali",
    "--resident-share": "0.5",
    "--augment": "strong",
    "--flip": "",
    "--amp": "",
    "--amp-dtype": "bfloat16",
    "--compile": "",
    "--monitor": "ap",
    "--patience": "3",
    "--max-skipped": "4",
    "--checkpoint-minutes": "2.5",
    "--tensorboard": "",
    "--profile": "",
    "--sync-bn": "",
    "--device": "cpu",
    "--seed": "7",
    "--resume": "",
}
EVALUATE_OPTIONS = {
    "--dataset": "d",
    "--split": "test",
    "--threshold": "0.3",
    "--target-sensitivity": "0.8",
    "--target-specificity": "0.7",
    "--cost-ratio": "4.0",
    "--prevalence": "0.1",
    "--resamples": "300",
    "--seed": "7",
    "--device": "cpu",
    "--batch-size": "5",
}
EXPLAIN_OPTIONS = {
    "--dataset": "d",
    "--split": "test",
    "--method": "hirescam",
    "--layer": "layer2",
    "--count": "3",
    "--threshold": "0.3",
    "--resamples": "300",
    "--seed": "7",
    "--device": "cpu",
    "--batch-size": "5",
}
SHOW_OPTIONS = {"--out": "o.png", "--split": "test", "--count": "5", "--augment": "strong", "--flip": "", "--seed": "7"}


@pytest.mark.parametrize(
    ("arguments", "options", "default", "left"),
    [
        (
            ["convert", "i", "l", "o"],
            CONVERT_OPTIONS,
            ConvertConfig(images=Path("i"), labels=Path("l")),
            {"images", "labels", "overwrite"},
        ),
        (["train", "d"], TRAIN_OPTIONS, TrainConfig(), {"overwrite", "folds", "fold", "limit_images"}),
        (["evaluate", "r"], EVALUATE_OPTIONS, EvaluateConfig(), set()),
        (["explain", "r"], EXPLAIN_OPTIONS, ExplainConfig(), {"ids"}),
        (["show", "d"], SHOW_OPTIONS, ShowConfig(), set()),
    ],
)
def test_every_option_reaches_its_field(
    config_of: Run, arguments: list[str], options: dict[str, str], default: Any, left: set[str]
) -> None:
    given = config_of(*arguments, *(word for option in options.items() for word in option if word))
    assert {f.name for f in fields(default) if getattr(given, f.name) == getattr(default, f.name)} == left
    for option, text in options.items():
        value = getattr(given, option[2:].replace("-", "_"), None)
        if value is None:
            value = getattr(given, f"{option[2:]}s")
        assert value in {True, (float(text) if text[:1].isdigit() else None,)} or str(value) == text


def test_overwrite_reaches_its_field(config_of: Run) -> None:
    assert config_of("convert", "i", "l", "--overwrite").overwrite
    assert config_of("train", "--overwrite").overwrite


def test_lists(config_of: Run) -> None:
    assert config_of("evaluate", "--threshold", "0.1", "--threshold", "0.9").thresholds == (0.1, 0.9)
    assert config_of("explain", "--id", "a", "--id", "b").ids == ("a", "b")
    train = config_of("train", "a", "b", "--share", "1", "--share", "3")
    assert (train.datasets, train.shares) == ((Path("a"), Path("b")), (1.0, 3.0))


def test_folds_and_limit_reach_their_fields(config_of: Run) -> None:
    given = config_of("train", "--folds", "5", "--fold", "2", "--limit-images", "9")
    assert (given.folds, given.fold, given.limit_images) == (5, 2, 9)


def test_a_run_is_repeated_but_for_what_is_given(config_of: Run, tmp_path: Path) -> None:
    before = TrainConfig(
        datasets=(Path("a"), Path("b")), shares=(1.0, 2.0), out=Path("old"), lr=0.5, seed=3, compile=True, ema=0.9
    )
    (tmp_path / "config.json").write_text(json.dumps({"config": asdict(before)}, default=str))
    for path in (tmp_path, tmp_path / "config.json"):
        again = config_of("train", "--config", path, "--lr", "0.25", "--out", "new")
        assert again == replace(before, lr=0.25, out=Path("new"))


def test_a_batch_size_that_was_found_is_repeated(config_of: Run, tmp_path: Path) -> None:
    assert config_of("train", "--batch-size", "auto").batch_size == "auto"
    content = {"config": asdict(TrainConfig(batch_size="auto")), "resolved": {"batch_size": 48}}
    (tmp_path / "config.json").write_text(json.dumps(content, default=str))
    assert config_of("train", "--config", tmp_path).batch_size == 48
    assert config_of("train", "--config", tmp_path, "--batch-size", "auto").batch_size == "auto"


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("5", 5), ("0.05", 0.05), ("1.0", 1.0), ("0.0", 0.0), ("5%", 0.05), ("1.5%", 0.015), ("1e-3", 0.001)],
)
def test_max_rejects_is_a_count_or_a_share(text: str, value: float) -> None:
    assert parse_max_rejects(text) == pytest.approx(value)
    assert isinstance(parse_max_rejects(text), type(value))


@pytest.mark.parametrize("text", ["x", "", "%", "5%%", "1,5"])
def test_max_rejects_that_is_no_number(text: str) -> None:
    with pytest.raises(ConfigError, match=r"max-rejects .*: a number expected"):
        parse_max_rejects(text)


# ---- errors


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phantoms: PhantomSet) -> Path:
    """The working folder, with a bad file of each kind."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").symlink_to(phantoms.images)
    (tmp_path / "labels.csv").symlink_to(phantoms.labels)
    ids = [path.stem for path in sorted(phantoms.images.iterdir())]
    (tmp_path / "conflict.csv").write_text(f"patientId,Target\n{ids[0]},0\n{ids[0]},1\n")
    (tmp_path / "strangers.csv").write_text("patientId,Target\na,0\n")
    (tmp_path / "bad.json").write_text("{}")
    (tmp_path / "bad.key").write_text("00")
    (tmp_path / "two\nlines.csv").write_text("a\n1\n")
    (tmp_path / "broken").mkdir()
    for image_id in ids:
        (tmp_path / "broken" / f"{image_id}.dcm").write_bytes(b"")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("")
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "manifest.json").write_text("{")
    return tmp_path


INPUT = ["convert", "images", "labels.csv", "out"]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["convert"], 2, "Missing argument"),
        (["nothing"], 2, "No such command 'nothing'"),
        ([*INPUT, "--nothing"], 2, "No such option: --nothing"),
        ([*INPUT, "more"], 2, "more"),
        ([*INPUT, "--size", "x"], 2, "Invalid value for '--size'"),
        ([*INPUT, "--dtype", "float32"], 2, "Invalid value for '--dtype'"),
        ([*INPUT, "--size", "8"], 2, "size 8: 16 to 4096 pixels expected"),
        ([*INPUT, "--val-fraction", "1"], 2, "both together below 1"),
        ([*INPUT, "--val-fraction", "nan"], 2, "both together below 1"),
        ([*INPUT, "--test-fraction", "-0.1"], 2, "at least 0"),
        ([*INPUT, "--workers", "0"], 2, "workers 0: at least 1 expected"),
        ([*INPUT, "--shard-size", "0"], 2, "shard-size 0: at least 1 expected"),
        ([*INPUT, "--max-pixels", "0"], 2, "max-pixels 0: at least 1 expected"),
        ([*INPUT, "--timeout-s", "0"], 2, "timeout-s 0.0: a number of seconds above 0"),
        ([*INPUT, "--max-rejects", "some"], 2, "max-rejects 'some': a number expected"),
        ([*INPUT, "--max-rejects", "101%"], 2, "a share from 0.0 to 1.0 expected"),
        ([*INPUT, "--max-rejects", "-1"], 2, "a count of at least 0"),
        ([*INPUT, "--max-rejects", "inf"], 2, "a share from 0.0 to 1.0 expected"),
        ([*INPUT, "--resume", "--overwrite"], 2, "exclude each other"),
        (["convert", "gone", "labels.csv", "out"], 1, "images folder gone is not there"),
        (["convert", "images", "gone.csv", "out"], 1, "table gone.csv cannot be read"),
        (["convert", "images", "conflict.csv", "out"], 1, "conflict.csv, line 3, column 'Target'"),
        (["convert", "images", "strangers.csv", "out"], 1, "none of the 40 files"),
        (["convert", "images", "two\nlines.csv", "out"], 1, "two lines.csv has no column 'patientId'"),
        (["convert", "images", "labels.csv", "taken"], 1, "taken holds files that are no dataset"),
        (["convert", "images", "labels.csv", "bad.key"], 1, "bad.key is a file"),
        (["convert", "broken", "labels.csv", "out"], 1, "of 40 files were rejected, 0 are allowed: see out"),
        ([*INPUT, "--id-column", "who"], 1, "no column 'who'"),
        ([*INPUT, "--groups", "bad.json"], 1, "entry 0"),
        ([*INPUT, "--hash-key", "bad.key"], 1, "hash key bad.key has 1 bytes"),
        (["train"], 1, "dataset is no dataset: no manifest.json there"),
        (["train", "junk"], 1, "dataset junk: not a complete manifest"),
        (["train", "--lr", "0"], 2, "lr 0.0: a number above 0 expected"),
        (["train", "--pos-weight", "much"], 2, "pos-weight 'much': a number expected"),
        (["train", "--flip"], 2, "flip without augment: give --augment light or strong as well"),
        (["train", "--augment", "some"], 2, "Invalid value for '--augment'"),
        (["train", "--batch-size", "1"], 2, "batch-size 1: at least 2 expected"),
        (["train", "--batch-size", "some"], 2, "batch-size 'some': a whole number, or auto, expected"),
        (["train", "--batch-size", "auto", "--device", "cpu"], 2, "batch-size auto without a GPU: give a number"),
        (["train", "--device", "abacus"], 1, "abacus"),
        (["evaluate"], 1, "best.pt"),
        (["evaluate", "--split", "all"], 2, "Invalid value for '--split'"),
        (["evaluate", "--threshold", "2"], 2, "threshold 2.0 is no probability"),
        (["show"], 1, "dataset is no dataset: no manifest.json there"),
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


@pytest.mark.usefixtures("place")
def test_too_many_rejects_leave_their_list_and_no_dataset(run_cli: Run) -> None:
    assert run_cli("convert", "broken", "labels.csv").code == 1
    with Path("dataset/rejects.csv").open() as file:
        assert {row["reason"] for row in csv.DictReader(file)} == {"not_dicom"}
    assert not Path("dataset/manifest.json").exists()
    assert run_cli("train").code == 1


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device", "x"), "[Errno 28] No space left on device: 'x'"),
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
    with pytest.raises(LabelError):
        run_cli(*arguments)


def test_a_fault_of_ours_is_a_traceback(monkeypatch: pytest.MonkeyPatch, run_cli: Run) -> None:
    def fail(*_args: object) -> NoReturn:
        raise ZeroDivisionError

    monkeypatch.setattr(convert_module, "convert", fail)
    with pytest.raises(ZeroDivisionError):
        run_cli("convert", "i", "l")


# ---- what is shown


@pytest.mark.parametrize("arguments", [["--version"], ["--debug", "--version"]])
def test_version(run_cli: Run, arguments: list[str]) -> None:
    assert run_cli(*arguments) == (0, f"pneumo-fast {__version__}\n", "")


def test_no_command_shows_the_help(run_cli: Run) -> None:
    ended = run_cli()
    assert ended.code == 2
    assert "convert" in ended.err
    assert run_cli("--help").out == ended.err


@pytest.mark.usefixtures("place")
def test_closing_summary(run_cli: Run) -> None:
    ended = run_cli("convert", "images", "labels.csv", "--val-fraction", "0.3", "--size", "32", "--workers", "1")
    manifest = Dataset.open(Path("dataset")).manifest
    assert (ended.code, ended.err) == (0, "")
    for words in (
        *(f"{split} {of['0']} {of['1']} {of['0'] + of['1']}" for split, of in manifest.counts.items()),
        "Rows without a file: 0; files without a row: 0",
        f"Leaks between splits: {manifest.split['leaks']}",
        f"mean {manifest.mean:.4f}, std {manifest.std:.4f}",
        "images/s",
    ):
        assert words in " ".join(ended.out.split())


def test_verify_names_the_damage(run_cli: Run, own_dataset: Path) -> None:
    assert run_cli("verify", own_dataset).code == 0
    images = np.load(own_dataset / "val-00000.npy")
    images[0, 0, 0] += 0.25
    np.save(own_dataset / "val-00000.npy", images)
    ended = run_cli("verify", own_dataset)
    assert ended.code == 1
    assert "val-00000.npy" in ended.out + ended.err


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


@pytest.mark.parametrize("command", [[], ["convert"], ["train"], ["evaluate"], ["verify"], ["show"], ["phantom"]])
def test_help_answers_at_once(command: list[str]) -> None:
    with cpu_seconds() as used:
        assert "Usage: pneumo-fast" in shell("-m", "pneumo_fast", *command, "--help").stdout
    assert used[0] < HELP_CPU_S


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys, pneumo_fast.cli.app as cli\n"
        "sys.argv = ['pneumo-fast', 'convert', '--help']\n"
        "try: cli.main()\n"
        "except SystemExit: print('imported:', *{'torch', 'pandas', 'numpy', 'nvidia', 'pydicom'} & set(sys.modules))\n"
    )
    assert shell("-c", program).stdout.splitlines()[-1] == "imported:"


@pytest.mark.parametrize(("debug", "lines"), [([], 1), (["--debug"], 10)])
def test_errors_from_the_shell(tmp_path: Path, debug: list[str], lines: int) -> None:
    done = shell("-m", "pneumo_fast", "convert", str(tmp_path), str(tmp_path / "gone.csv"), *debug, code=1)
    assert ("Traceback" in done.stderr) == bool(debug)
    assert len(done.stderr.splitlines()) == 1 if not debug else len(done.stderr.splitlines()) >= lines
    assert "gone.csv cannot be read" in done.stderr


# ---- the three commands, one after the other


@pytest.mark.parametrize(
    ("folder", "options", "images"),
    [
        pytest.param("rsna16", ["--size", "64"], 16, id="rsna16"),
        pytest.param("rsna_sample", ["--groups", "mappings.json"], 161, id="rsna_sample", marks=pytest.mark.slow),
    ],
)
def test_from_radiographs_to_metrics(
    shared_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_cli: Run,
    folder: str,
    options: list[str],
    images: int,
) -> None:
    source = shared_data / folder
    monkeypatch.chdir(tmp_path)
    options = [str(source / word) if word.endswith(".json") else word for word in options]
    tables = [source / "stage_2_train_images", source / "stage_2_train_labels.csv", "data"]
    assert run_cli("convert", *tables, *options, "--val-fraction", "0.3").code == 0
    assert run_cli("train", "data", "--out", "run", "--epochs", "2", "--batch-size", "8", "--amp").code == 0
    assert run_cli("evaluate", "run").code == 0
    assert run_cli("explain", "run", "--count", "1").code == 0
    assert run_cli("report", "run").code == 0
    assert Path("run/report.html").exists()
    assert len(pd.read_csv("data/index.csv")) == images
    assert len(Path("run/history.jsonl").read_text().splitlines()) == 2
    validation = Dataset.open(Path("data")).rows("val")
    predictions = pd.read_csv("run/eval/predictions.csv")
    assert predictions.iloc[:, 0].tolist() == validation["image_id"].tolist()
    assert json.loads(Path("run/eval/metrics.json").read_text())
