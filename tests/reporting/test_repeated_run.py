"""The commands of "Repeat it", typed in beside the same files, give the same split and the same figures."""

from __future__ import annotations

import html
import itertools
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pneumo_fast.phantoms.make import PhantomSet
from pneumo_fast.reporting.options import ReportConfig
from pneumo_fast.reporting.report import report

Run = Callable[..., Any]


def commands_in(page: Path) -> list[list[str]]:
    """The words of each command of a report."""
    found = re.search(r'aria-label="Commands"><code>(.*?)</code>', page.read_text(), re.DOTALL)
    assert found is not None
    return [shlex.split(line)[1:] for line in html.unescape(found[1]).splitlines()]


def figures_of(run: Path) -> dict[str, Any]:
    """What was measured, without what names the folders."""
    (path,) = (run / "eval").glob("*/metrics.json")
    metrics = json.loads(path.read_text())
    named = ("run", "dataset", "options", "notes")
    return {key: value for key, value in metrics.items() if key not in named} | {"epoch": metrics["run"]["epoch"]}


def test_typed_in_again_it_gives_the_same(
    phantoms: PhantomSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_cli: Run
) -> None:
    def type_all(folder: str, lines: list[list[str]]) -> Path:
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        for words in lines:
            ended = run_cli(*words)
            assert ended.code == 0, ended.err
        return tmp_path / folder

    files = {
        "IMAGES": phantoms.images, "LABELS": phantoms.labels, "GROUPS": phantoms.mappings,
        "CLASS_INFO": phantoms.class_info, "HASH_KEY": tmp_path / "my.key",
    }  # fmt: skip
    judged = ["--device", "cpu", "--resamples", "100"]
    first = type_all("first", [
        ["convert", str(files["IMAGES"]), str(files["LABELS"]), "data", "--groups", str(files["GROUPS"]),
         "--class-info", str(files["CLASS_INFO"]), "--hash-key", str(files["HASH_KEY"]), "--size", "32", "--seed", "3",
         "--val-fraction", "0.4", "--dtype", "uint8", "--positive", "1", "--negative", "0"],
        ["train", "data", "--epochs", "1", "--batch-size", "8", "--augment", "light", "--seed", "5", "--device", "cpu"],
        ["evaluate", *judged, "--threshold", "0.4", "--seed", "2"],
        ["explain", *judged, "--count", "1"],
    ])  # fmt: skip
    report(ReportConfig(run=first / "run"))
    lines = commands_in(first / "run" / "report.html")
    assert [words[0] for words in lines] == ["convert", "train", "evaluate", "explain", "report"]
    assert {word for word in itertools.chain(*lines) if word.isupper() and len(word) > 4} == files.keys()
    again = type_all("again", [[str(files.get(word, word)) for word in words] for words in lines])
    assert figures_of(again / "run") == figures_of(first / "run")
    one, other = (pd.read_csv(folder / "data" / "index.csv", dtype=str) for folder in (first, again))
    pd.testing.assert_frame_equal(one, other)
    assert one["group"].notna().all()
