"""The scripts around the package, with stand-ins for Python, pip and the Kaggle client."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

import pytest

from tests.support.repository import ROOT

SCRIPTS = sorted([*(p for p in (ROOT / "scripts").iterdir() if p.is_file() and not p.suffix), ROOT / ".ci" / "run"])

FAKE_PYTHON = """#!/usr/bin/env bash
case "$*" in
    -c*) exit "${FAKE_TOO_OLD:-0}" ;;
    -V*) echo "Python 3.99.0" ;;
    "-m venv "*)
        echo venv >>"$CALLS"
        rm -rf "${@: -1}"; mkdir -p "${@: -1}/bin"; cd "${@: -1}/bin"
        cp "$0" python
        echo "#!$PWD/python" >pip
        printf '%s\\n' '#!/bin/sh' 'echo "tool $1" >>"$CALLS"' >pneumo-fast; chmod +x pneumo-fast ;;
    "-m pip "*) echo "$PWD: $*" >>"$CALLS"; exit "${FAKE_PIP_STATUS:-0}" ;;
esac
"""
FAKE_KAGGLE = """#!/usr/bin/env bash
echo "$*" >>"$CALLS"
echo "$KAGGLE_SAYS"
[ -z "$KAGGLE_ZIP" ] || cp "$KAGGLE_ZIP" "$5/"
exit "${KAGGLE_STATUS:-0}"
"""


def write_program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@dataclass
class Sandbox:
    """A copy of the scripts in a folder of its own, run with a home and a log of calls of its own."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)

    def run(self, script: str, *args: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.root / "scripts" / script), *args]
        full = {**self.env, **env}
        return subprocess.run(
            command, cwd=cwd or self.root, env=full, capture_output=True, text=True, timeout=60, check=False
        )

    def calls(self) -> list[str]:
        log = Path(self.env["CALLS"])
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    root = tmp_path / "a clone"
    shutil.copytree(ROOT / "scripts", root / "scripts")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, root)
    python = write_program(tmp_path / "bin" / "fake-python", FAKE_PYTHON)
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "CALLS": str(tmp_path / "calls")}
    return Sandbox(root, {**env, "PYTHON": str(python)})


def pip_call(root: Path) -> str:
    return f"{root}: -m pip install -c constraints.txt -e .[dev]"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_script_parses_and_can_be_run(script: Path) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run([shutil.which("bash") or "bash", "-n", str(script)], check=True)
    assert "set -euo pipefail" in script.read_text()


def test_constraints_are_names_and_versions_only() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = [line.removesuffix('; python_version >= "3.11"').split("==") for line in lines]
    assert all(len(pin) == 2 and re.fullmatch(r"\d+(\.\d+)*(\.post\d+)?", pin[1]) for pin in pins)
    assert {"torch", "torchvision", "nvidia-dali-cuda120", "pytest", "ruff", "mypy"} <= {name for name, _ in pins}


class TestEnvironment:
    def test_installs_once(self, sandbox: Sandbox, tmp_path: Path) -> None:
        first = sandbox.run("environment", cwd=tmp_path)
        again = sandbox.run("environment", cwd=tmp_path)
        assert (first.returncode, again.returncode) == (0, 0)
        assert sandbox.calls() == ["venv", pip_call(sandbox.root)]
        assert again.stdout + again.stderr == ""

    @pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
    def test_changed_requirements_are_installed_into_the_same_venv(self, sandbox: Sandbox, name: str) -> None:
        sandbox.run("environment")
        with (sandbox.root / name).open("a") as file:
            file.write("# changed\n")
        assert sandbox.run("environment").returncode == 0
        assert sandbox.calls() == ["venv", pip_call(sandbox.root), pip_call(sandbox.root)]

    def test_failed_first_install_is_made_anew(self, sandbox: Sandbox) -> None:
        failed = sandbox.run("environment", FAKE_PIP_STATUS="1")
        assert failed.returncode == 1
        assert "pip did not finish" in failed.stderr
        assert sandbox.run("environment").returncode == 0
        assert sandbox.calls() == ["venv", pip_call(sandbox.root)] * 2

    def test_failed_update_is_done_again(self, sandbox: Sandbox) -> None:
        sandbox.run("environment")
        original = (sandbox.root / "constraints.txt").read_text()
        (sandbox.root / "constraints.txt").write_text(original + "# changed\n")
        assert sandbox.run("environment", FAKE_PIP_STATUS="1").returncode == 1
        (sandbox.root / "constraints.txt").write_text(original)
        assert sandbox.run("environment").returncode == 0
        assert sandbox.calls() == ["venv", *[pip_call(sandbox.root)] * 3]

    def test_moved_venv_is_made_anew(self, sandbox: Sandbox, tmp_path: Path) -> None:
        sandbox.run("environment")
        moved = Sandbox(sandbox.root.rename(tmp_path / "moved"), sandbox.env)
        assert moved.run("environment").returncode == 0
        assert moved.calls()[2:] == ["venv", pip_call(moved.root)]

    def test_old_python_is_refused_in_one_line(self, sandbox: Sandbox) -> None:
        refused = sandbox.run("environment", FAKE_TOO_OLD="1")
        assert refused.returncode == 1
        assert refused.stderr.startswith("scripts/environment: no Python 3.10 or newer among: ")
        assert refused.stderr.count("\n") == 1
        assert sandbox.calls() == []


class TestInstall:
    def test_brings_pytorch_first_where_it_is_for_the_cpu(self, sandbox: Sandbox, tmp_path: Path) -> None:
        assert sandbox.run("install", "a tool", "cpu", cwd=tmp_path).returncode == 0
        pip = f"{sandbox.root}: -m pip install --no-cache-dir -c constraints.txt"
        assert sandbox.calls() == [
            "venv",
            f"{pip} --index-url https://download.pytorch.org/whl/cpu torch torchvision",
            f"{pip} .[decoders,dicom,export,fast,pacs]",
            "tool doctor",
        ]

    def test_takes_a_wheel_by_its_full_path(self, sandbox: Sandbox, tmp_path: Path) -> None:
        (tmp_path / "a.whl").touch()
        assert sandbox.run("install", "tool", "gpu", "a.whl", cwd=tmp_path).returncode == 0
        assert sandbox.calls()[1].endswith(f"-c constraints.txt {tmp_path}/a.whl[decoders,dicom,export,fast,pacs]")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "name the folder of the new environment"),
            (["new", "tpu"], "cpu or gpu expected, tpu given"),
            (["scripts"], "scripts is not empty"),
            (["new", "cpu", "missing.whl"], "missing.whl is not there"),
        ],
        ids=lambda value: value if isinstance(value, str) else " ".join(value),
    )
    def test_refuses_in_one_line(self, sandbox: Sandbox, arguments: list[str], message: str) -> None:
        refused = sandbox.run("install", *arguments)
        assert refused.returncode == 1
        assert refused.stderr.startswith("scripts/install: ")
        assert message in refused.stderr
        assert refused.stderr.count("\n") == 1
        assert sandbox.calls() == []


class TestDemo:
    def test_leaves_a_folder_that_is_not_its_own(self, sandbox: Sandbox, tmp_path: Path) -> None:
        mine = tmp_path / "mine"
        (mine / "run").mkdir(parents=True)
        refused = sandbox.run("demo", "mine", cwd=tmp_path)
        assert refused.returncode == 1
        assert "mine holds something that is not a demo's" in refused.stderr
        assert (mine / "run").is_dir()
        assert sandbox.calls() == []

    def test_replaces_its_own_output_and_nothing_else(self, sandbox: Sandbox, tmp_path: Path) -> None:
        sandbox.run("environment")
        write_program(sandbox.root / ".venv" / "bin" / "pneumo-fast", '#!/bin/sh\necho "tool $1" >>"$CALLS"\n')
        demo = tmp_path / "demo"
        assert sandbox.run("demo", cwd=tmp_path).returncode == 0
        (demo / "note.txt").touch()
        (demo / "run").mkdir()
        assert sandbox.run("demo", cwd=tmp_path).returncode == 0
        assert sorted(path.name for path in demo.iterdir()) == [".pneumo-fast-demo", "note.txt"]
        assert (
            sandbox.calls()[2:]
            == [f"tool {verb}" for verb in ("phantom", "convert", "train", "evaluate", "explain", "report")] * 2
        )


@pytest.fixture
def kaggle(sandbox: Sandbox, tmp_path: Path) -> Sandbox:
    """A sandbox with a Kaggle client and credentials, for a challenge of two images."""
    script = sandbox.root / "scripts" / "download_rsna"
    script.write_text(script.read_text().replace("expected=26684", "expected=2"))
    bin_dir = write_program(tmp_path / "kaggle-bin" / "kaggle", FAKE_KAGGLE).parent
    new = {"PATH": f"{bin_dir}:{os.environ['PATH']}", "KAGGLE_API_TOKEN": "token", "KAGGLE_SAYS": "", "KAGGLE_ZIP": ""}
    return Sandbox(sandbox.root, {**sandbox.env, **new})


def challenge(folder: Path, count: int = 2) -> Path:
    """Files named as in the challenge."""
    (folder / "stage_2_train_images").mkdir(parents=True)
    for number in range(count):
        (folder / "stage_2_train_images" / f"{number}.dcm").write_text("x")
    for name in ("stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"):
        (folder / name).write_text("x")
    return folder


def archive(tmp_path: Path, count: int = 2) -> str:
    """What Kaggle sends."""
    name = tmp_path / "rsna-pneumonia-detection-challenge"
    return shutil.make_archive(str(name), "zip", challenge(tmp_path / "source", count))


class TestDownload:
    @pytest.mark.parametrize(
        ("prepare", "message"),
        [
            (lambda env: env.pop("KAGGLE_API_TOKEN"), "no Kaggle credentials found; make a token"),
            (
                lambda env: env.update(KAGGLE_STATUS="1", KAGGLE_SAYS="403 Client Error: Forbidden"),
                "accept the rules at",
            ),
            (lambda env: env.update(KAGGLE_STATUS="1", KAGGLE_SAYS="401 - Unauthorized"), "make a new token"),
            (lambda env: env.update(KAGGLE_STATUS="1", KAGGLE_SAYS=" 11%| 403M/3.66G"), "Run this again to resume"),
            (lambda env: env.update(KAGGLE_SAYS="fine"), "the client brought no "),
        ],
        ids=["no credentials", "rules", "credentials", "broken off", "no archive"],
    )
    def test_says_what_to_do(self, kaggle: Sandbox, prepare: Callable[[dict[str, str]], object], message: str) -> None:
        prepare(kaggle.env)
        failed = kaggle.run("download_rsna")
        assert failed.returncode == 1
        assert message in failed.stderr
        assert failed.stderr.count("\n") == 1

    def test_says_where_to_get_the_client(self, kaggle: Sandbox, tmp_path: Path) -> None:
        bare = tmp_path / "bare"
        bare.mkdir()
        for tool in ("bash", "find", "wc"):
            (bare / tool).symlink_to(shutil.which(tool) or tool)
        failed = kaggle.run("download_rsna", PATH=str(bare))
        assert failed.returncode == 1
        assert "client is not on PATH; install it" in failed.stderr

    @pytest.mark.parametrize("name", ["kaggle.json", "access_token"])
    def test_takes_credentials_from_a_file(self, kaggle: Sandbox, name: str) -> None:
        del kaggle.env["KAGGLE_API_TOKEN"]
        write_program(Path(kaggle.env["HOME"]) / ".kaggle" / name, "{}")
        kaggle.run("download_rsna")
        assert kaggle.calls() == ["competitions download rsna-pneumonia-detection-challenge -p rsna"]

    def test_unpacks_once_and_prints_the_commands(self, kaggle: Sandbox, tmp_path: Path) -> None:
        first = kaggle.run("download_rsna", "my data", KAGGLE_ZIP=archive(tmp_path))
        again = kaggle.run("download_rsna", "my data")
        assert (first.returncode, again.returncode) == (0, 0)
        assert len(kaggle.calls()) == 1
        assert again.stdout in first.stdout
        assert "2 radiographs are in my data/stage_2_train_images." in again.stdout
        assert "pneumonia-challenge-dataset-mappings_2018.json" in again.stdout
        assert r"pneumo-fast convert my\ data/stage_2_train_images my\ data/stage_2_train_labels.csv" in again.stdout
        assert "--groups " not in again.stdout

    def test_uses_the_mapping_file_where_it_lies(self, kaggle: Sandbox) -> None:
        challenge(kaggle.root / "rsna")
        (kaggle.root / "rsna" / "pneumonia-challenge-dataset-mappings_2018.json").write_text("[]")
        assert "--groups rsna/pneumonia-challenge-dataset-mappings_2018.json" in kaggle.run("download_rsna").stdout

    def test_goes_on_where_unpacking_was_interrupted(self, kaggle: Sandbox, tmp_path: Path) -> None:
        (challenge(kaggle.root / "rsna") / ".unpacking").touch()
        assert kaggle.run("download_rsna", KAGGLE_ZIP=archive(tmp_path)).returncode == 0
        assert not (kaggle.root / "rsna" / ".unpacking").exists()
        assert len(kaggle.calls()) == 1

    def test_counts_what_came(self, kaggle: Sandbox, tmp_path: Path) -> None:
        failed = kaggle.run("download_rsna", KAGGLE_ZIP=archive(tmp_path, count=1))
        assert failed.returncode == 1
        assert "found 1 radiographs in rsna/stage_2_train_images, expected 2" in failed.stderr


class TestGpuProof:
    FAKE = """#!/usr/bin/env bash
    case "$*" in *"$FAILS"*) echo "it went wrong"; exit 3 ;; esac
    echo "$*"
    """

    @pytest.mark.parametrize(("fails", "first"), [("nothing", "# Everything passed"), ("-m pytest", "# Failed: tests")])
    def test_the_summary_starts_with_what_failed(
        self, sandbox: Sandbox, tmp_path: Path, fails: str, first: str
    ) -> None:
        python = write_program(tmp_path / "bin" / "gpu-python", dedent(self.FAKE))
        done = sandbox.run("gpu_proof", "proof", PYTHON=str(python), FAILS=fails)
        assert done.returncode == (fails != "nothing")
        summary = (sandbox.root / "proof" / "summary.md").read_text()
        assert summary.startswith(first + "\n")
        assert ("| tests | FAILED with status 3 |" in summary) == (fails != "nothing")
        assert "| speedrun | passed |" in summary  # a step that fails does not keep the others from running
        assert ("it went wrong" in summary) == (fails != "nothing")
        again = sandbox.run("gpu_proof", "proof", PYTHON=str(python), FAILS=fails)
        assert "proof exists; name a new folder" in again.stderr

    def test_some_of_the_steps(self, sandbox: Sandbox, tmp_path: Path) -> None:
        python = write_program(tmp_path / "bin" / "gpu-python", dedent(self.FAKE))
        done = sandbox.run("gpu_proof", "proof", PYTHON=str(python), FAILS="nothing", STEPS="load speedrun")
        assert re.findall(r"== (\w+)", done.stdout) == ["load", "speedrun"]
        assert "--stage load" in (sandbox.root / "proof" / "load.txt").read_text()
        assert done.returncode == 0

    def test_a_step_that_there_is_not(self, sandbox: Sandbox, tmp_path: Path) -> None:
        python = write_program(tmp_path / "bin" / "gpu-python", dedent(self.FAKE))
        done = sandbox.run("gpu_proof", "proof", PYTHON=str(python), FAILS="nothing", STEPS="laod speedrun")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "no step is called laod" in done.stderr
        assert not (sandbox.root / "proof").exists()

    def test_it_looks_wherever_tests_need_a_gpu(self) -> None:
        searched = tuple(word for word in (ROOT / "scripts" / "gpu_proof").read_text().split() if word[:6] == "tests/")
        marks = re.compile(r"mark\.gpu|\b(EVERYWHERE|ENGINES|DEVICES)\b")
        files = (path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__))
        marked = [path.relative_to(ROOT).as_posix() for path in files if marks.search(path.read_text())]
        assert "tests/test_gpu.py" in marked
        assert not [path for path in marked if not path.startswith(searched)]

    def test_without_a_gpu_it_says_so(self, sandbox: Sandbox, tmp_path: Path) -> None:
        python = write_program(tmp_path / "bin" / "plain-python", "#!/bin/sh\nexit 1\n")
        done = sandbox.run("gpu_proof", "proof", PYTHON=str(python))
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "finds no CUDA device" in done.stderr
        assert not (sandbox.root / "proof").exists()
