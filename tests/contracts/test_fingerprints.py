"""The comparison of two commits: what counts as a difference, what does not, and that nothing is no proof."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import fingerprints
import pytest
import torch
import typer
from fingerprint_files import (
    NothingComparedError,
    Row,
    bytes_print,
    compare,
    find_state,
    json_print,
    read_print,
    state_print,
    table,
)
from fingerprint_steps import BYTES, FLOATS, Step, steps

from pneumo_fast.cli.app import app

CHECKSUM = "ab" * 32


def compared(base: Any, new: Any, added: frozenset[str] = frozenset()) -> Row:
    return compare("s", {"d/m.json": json_print(base, {})}, {"d/m.json": json_print(new, {})}, added)


@pytest.mark.parametrize(
    ("base", "new", "key"),
    [
        ({"a": [1, {"b": 0.1}]}, {"a": [1, {"b": 0.1 + 1e-16}]}, "a/1/b"),
        ({"a": 1}, {"a": 1.0}, "a"),
        ({"a": "val"}, {"a": "train"}, "a"),
        ({"a": None}, {"a": 0}, "a"),
        ({"a": []}, {"a": {}}, "a"),
        ({"a": 1}, {"a": 1, "b": []}, "b"),
        ({"a": 1, "b": "some words"}, {"a": 1}, "b"),
    ],
)
def test_json_differs(base: Any, new: Any, key: str) -> None:
    row = compared(base, new)
    assert [text.split(": ")[:2] for text in row.different] == [["d/m.json", key]]


@pytest.mark.parametrize("key", ["created_by", "versions", "images_per_s", "val_seconds"])
def test_versions_and_times_are_left_out(key: str) -> None:
    row = compared([{"a": 1, key: 1}], [{"a": 1, key: {"torch": "2"}}])
    assert not row.different
    assert not row.words


def test_sentences_are_told_apart() -> None:
    row = compared({"note": "one way"}, {"note": "another way"})
    assert not row.different
    assert row.words == ["d/m.json: note: 'one way' -> 'another way'"]


def test_a_sentence_that_becomes_an_id_differs() -> None:
    assert compared({"a": "two words"}, {"a": "one"}).different


def test_listed_keys_may_be_added() -> None:
    row = compared({"a": 1}, {"a": 1, "options": {"seed": 0}, "option": 1}, frozenset({"m.json/options"}))
    assert row.different == ["d/m.json: option: absent -> '1'"]


def test_checksums_of_files_with_times_go_by_name() -> None:
    content = {"sha256": CHECKSUM, "identity": CHECKSUM, "shard": "cd" * 32, "path": "/home/me/run"}
    known = {CHECKSUM: "sha256-of:run/best.pt", "/home/me": "WORK"}
    texts = {key: value.text for key, value in json_print(content, known).items()}
    assert texts == {
        "sha256": "sha256-of:run/best.pt",
        "identity": "sha256-of:run/best.pt",
        "shard": "cd" * 32,
        "path": "WORK/run",
    }


def test_the_first_line_that_differs_is_named() -> None:
    base, new = (bytes_print(f"id,label\na,{label}\nb,1\n".encode(), lines=True) for label in (0, 1))
    assert compare("s", {"t.csv": base}, {"t.csv": new}).different[0] == "t.csv: line 2: 'a,0' -> 'a,1'"


def test_pages_are_words_without_checksums_that_vary(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(f"<p>\n{CHECKSUM} {'long ' * 99}0.5\n")
    base = {"p": read_print(page, {CHECKSUM: "best.pt"})}
    page.write_text(f"<p>\n{'cd' * 32} {'long ' * 99}0.7\n")
    row = compare("s", base, {"p": read_print(page, {"cd" * 32: "best.pt"})})
    shown = ("long " * 10)[2:]
    assert not row.different
    assert row.words == [rf"p: text: ...'{shown}0.5\n' -> ...'{shown}0.7\n'"]


def test_a_labelled_figure_is_words_and_any_other_picture_is_bytes(tmp_path: Path) -> None:
    for name, words in (("roc.png", True), ("TP-01.png", False)):
        (tmp_path / name).write_bytes(b"one")
        base = {name: read_print(tmp_path / name, {})}
        (tmp_path / name).write_bytes(b"two")
        row = compare("s", base, {name: read_print(tmp_path / name, {})})
        assert (bool(row.words), bool(row.different)) == (words, not words)


def test_line_ends_count() -> None:
    assert bytes_print(b"a\n", lines=True) != bytes_print(b"a", lines=True)


def state(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"w": torch.arange(6, dtype=torch.float32).reshape(2, 3), "n": torch.tensor(3), **changes}


def test_state_does_not_depend_on_order_or_strides() -> None:
    turned = state()["w"].T.contiguous().T
    assert state_print(dict(reversed(state(w=turned).items()))) == state_print(state())


@pytest.mark.parametrize(
    "change",
    [
        {"w": state()["w"].nextafter(torch.tensor(9.0))},
        {"w": state()["w"].reshape(3, 2)},
        {"n": torch.tensor(3, dtype=torch.int32)},
        {"more": torch.zeros(1)},
    ],
    ids=["value", "shape", "dtype", "name"],
)
def test_state_differs(change: dict[str, torch.Tensor]) -> None:
    assert state_print(state(**change)) != state_print(state())


@pytest.mark.parametrize(
    "checkpoint",
    [
        {"model": state(), "ema": {"model": state(n=torch.tensor(4))}, "settings": {"model": "resnet18"}},
        {"weights": {"model": state(), "arch": "resnet18"}, "ema": {"model": state(n=torch.tensor(4))}},
    ],
)
def test_state_is_found_in_a_checkpoint(checkpoint: dict[str, Any], tmp_path: Path) -> None:
    torch.save(checkpoint, tmp_path / "best.pt")
    assert read_print(tmp_path / "best.pt", {}) == state_print(state())


@pytest.mark.parametrize(
    "checkpoint", [[], {"model": "resnet18"}, {"model": {}}, {"a": {"model": state()}, "b": {"model": state()}}]
)
def test_no_state_or_two_are_errors(checkpoint: Any) -> None:
    with pytest.raises(ValueError, match="a checkpoint"):
        find_state(checkpoint)


def test_a_file_on_one_side_differs() -> None:
    one = {"a": bytes_print(b"")}
    assert compare("s", one, {**one, "b": bytes_print(b"")}).different == ["b: only the new side has it"]
    assert compare("s", one, {}).different == ["a: only the base side has it"]


@pytest.mark.parametrize(("base", "new"), [({}, {}), ({}, {"a": bytes_print(b"")}), ({"a": {}}, {"a": {}})])
def test_nothing_is_no_proof(base: Any, new: Any) -> None:
    with pytest.raises(NothingComparedError):
        compare("s", base, new)
    with pytest.raises(NothingComparedError):
        list(table([]))


def test_table_counts() -> None:
    rows = [Row(step="a", files=1, values=2), Row(step="b", files=3, values=4, different=["x"] * 5, words=["y"])]
    lines = list(table(rows))
    assert [line.endswith("DIFFERENT") for line in lines[:2]] == [False, True]
    assert lines[-1] == (
        "2 steps, 4 files, 6 values compared: 1 steps equal, 1 DIFFERENT; 1 differences in words alone"
    )


def test_steps_have_names_of_their_own_and_read_what_was_written() -> None:
    for quick in (False, True):
        names = [step.name for step in steps(Path("real"), quick=quick)]
        assert len(set(names)) == len(names)
        assert {f"convert {FLOATS}", f"convert {BYTES}"} < set(names)
    assert len(steps(None, quick=True)) < len(steps(None, quick=False)) / 2


GIT = shutil.which("git") or "git"
PACKAGE = """
import json, pathlib, sys
command, *rest = sys.argv[1:]
if command == "refuse":
    sys.exit("error: refused")
pathlib.Path("m.json").write_text(json.dumps({"figure": FIGURE, "note": "in " + WORDS}))
"""


def checkout(folder: Path, figure: float, words: str = "words") -> Path:
    """A tree whose command line writes one figure."""
    (folder / "pneumo_fast").mkdir(parents=True, exist_ok=True)
    (folder / "pneumo_fast" / "__init__.py").touch()
    code = PACKAGE.replace("FIGURE", str(figure)).replace("WORDS", repr(words))
    (folder / "pneumo_fast" / "__main__.py").write_text(code)
    return folder


def test_the_command_line_takes_every_step_that_is_to_succeed() -> None:
    commands = vars(typer.main.get_command(app))["commands"]
    for step in steps(Path("real"), quick=False):
        if step.arguments and step.way != "refused":
            name, *words = step.arguments
            commands[name].make_context(name, words)


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two steps, and a repository whose first commit has the figure 1."""
    root = checkout(tmp_path / "root", 1)
    for git in (["init", "-q"], ["add", "."], ["-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "one"]):
        subprocess.run([GIT, "-C", str(root), *git], check=True)
    todo = [
        Step(name="write", arguments=("write",), results=("m.json",)),
        Step(name="no", arguments=("refuse",), way="refused"),
    ]
    monkeypatch.setattr(fingerprints, "ROOT", root)
    monkeypatch.setattr(fingerprints, "steps", lambda _real, **_: todo)
    return root


@pytest.mark.parametrize(
    ("figure", "words", "options", "code"),
    [
        (1, "words", [], 0),
        (2, "words", [], 1),
        (1, "other words", [], 0),
        (1, "other words", ["--strict-words"], 1),
    ],
)
def test_two_trees(sandbox: Path, figure: float, words: str, options: list[str], code: int) -> None:
    checkout(sandbox, figure, words)
    lines: list[str] = []
    assert fingerprints.main(["HEAD", *options], lines.append) == code
    assert lines[-1].startswith("2 steps, 2 files, 5 values compared")
    worktrees = subprocess.run([GIT, "-C", str(sandbox), "worktree", "list"], capture_output=True, check=True)
    assert worktrees.stdout.count(b"\n") == 1


def test_a_crash_is_no_comparison(sandbox: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sandbox / "pneumo_fast" / "__main__.py").write_text("import sys; sys.exit('broken')")
    assert fingerprints.main(["HEAD"]) == 2
    assert "new, write: exit code 1\nbroken" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_no_comparison(sandbox: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sandbox / "pneumo_fast" / "__main__.py").write_text(
        "import sys; open('m.json', 'w'); sys.exit('refuse' in sys.argv)"
    )
    assert fingerprints.main(["HEAD"]) == 2
    assert "no comparison: Expecting value" in capsys.readouterr().err


def test_a_file_that_is_no_longer_written_differs(sandbox: Path) -> None:
    (sandbox / "pneumo_fast" / "__main__.py").write_text("import sys; sys.exit('refuse' in sys.argv)")
    lines: list[str] = []
    assert fingerprints.main(["HEAD"], lines.append) == 1
    assert "    m.json: only the base side has it" in lines


def test_another_package_is_refused(sandbox: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(sandbox / "pneumo_fast")
    assert fingerprints.main(["HEAD"]) == 2
    assert "new: the package found is" in capsys.readouterr().err
