"""What a release holds, that it installs elsewhere, and that the container is built from the same steps."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email import message_from_string
from pathlib import Path

import pytest

import pneumo_fast

PACKAGE = Path(pneumo_fast.__file__).parent
ROOT = PACKAGE.parent
INSTALLED = [path for path in sys.path if Path(path).name == "site-packages"]


def build(source: Path, out: Path, *arguments: str) -> None:
    """Build what the arguments ask for, with the setuptools that is installed."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), *arguments, str(source)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and sdist of this tree, built from a copy."""
    source, out = (tmp_path_factory.mktemp(name) for name in ("source", "dist"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, source)
    for name in ("docs", "notebooks", "pneumo_fast", "scripts", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build(source, out)
    return out


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    return next(distributions.glob("*.whl"))


def names_in(wheel: Path) -> set[str]:
    """The files of a wheel, those of its own description left out."""
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def files_of_the_package() -> set[str]:
    found = (path for path in PACKAGE.rglob("*") if path.is_file() and path.parent.name != "__pycache__")
    return {path.relative_to(ROOT).as_posix() for path in found}


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    assert names_in(wheel) == files_of_the_package()
    assert any(name.endswith("/licenses/LICENSE") for name in zipfile.ZipFile(wheel).namelist())


def test_wheel_says_the_version_and_shows_the_readme(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as files:
        text = files.read(f"pneumo_fast-{pneumo_fast.__version__}.dist-info/METADATA").decode()
    metadata = message_from_string(text)
    assert metadata["Version"] == pneumo_fast.__version__
    assert metadata.get_payload() == (ROOT / "README.md").read_text()


def test_sdist_holds_the_package_and_the_documents(distributions: Path) -> None:
    with tarfile.open(next(distributions.glob("*.tar.gz"))) as files:
        names = {Path(*Path(member.name).parts[1:]) for member in files.getmembers() if member.isfile()}
    assert {path.as_posix() for path in names if path.parts[0] == "pneumo_fast"} == files_of_the_package()
    assert {path.as_posix() for path in names if len(path.parts) == 1} == {
        "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "constraints.txt",
        "pyproject.toml", "setup.cfg",
    }  # fmt: skip
    assert {path.parts[0] for path in names if len(path.parts) > 1} == {"pneumo_fast", "pneumo_fast.egg-info", "docs"}


def test_changelog_names_the_version() -> None:
    headings = re.findall(r"(?m)^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text())
    released = [name for name in headings if name != "Unreleased"]
    assert headings.index("Unreleased") == 0
    assert released[:1] in ([], [pneumo_fast.__version__])


# ---- the container


def steps() -> Iterator[tuple[str, list[str]]]:
    """Instruction and words of each step of Containerfile."""
    for line in (ROOT / "Containerfile").read_text().splitlines():
        if not line.startswith("#"):
            instruction, words = line.split(" ", 1)
            yield instruction, shlex.split(words)


def test_container_copies_what_the_wheel_is_made_of(wheel: Path, tmp_path: Path) -> None:
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    source = tmp_path / "src"
    for *names, target in (words for instruction, words in steps() if instruction == "COPY"):
        assert {f"!{name}" for name in names} <= set(allowed)
        folder = tmp_path / target.lstrip("/")
        for name in names:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder)
    build(source, tmp_path / "dist", "--wheel")
    assert names_in(next((tmp_path / "dist").glob("*.whl"))) == names_in(wheel)
    assert os.access(source / "scripts" / "install", os.X_OK)


def test_container_installs_by_the_script_and_runs_as_another_user_than_root() -> None:
    instructions = list(steps())
    runs = [words for instruction, words in instructions if instruction == "RUN"]
    assert runs[0][:3] == ["/src/scripts/install", "/opt/pneumo-fast", "$DEVICE"]
    assert runs[-1] == ["pneumo-fast", "doctor"]
    assert ("USER", ["pneumo"]) in instructions
    assert [instruction for instruction, _ in instructions].index("USER") < instructions.index(("RUN", runs[-1]))


# ---- the installed wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The wheel in a new environment, installed by the script that the container uses, and what to run it with.

    Dependencies are those that are installed here: pip is told to bring none.
    """
    folder = tmp_path_factory.mktemp("elsewhere")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))},
        "PYTHON": sys.executable, "PYTHONPATH": os.pathsep.join(INSTALLED), "XDG_CONFIG_HOME": str(folder / "config"),
        "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_IGNORE_INSTALLED": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [str(ROOT / "scripts" / "install"), str(folder / "a venv"), "gpu", str(wheel)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"pneumo-fast  {pneumo_fast.__version__}" in done.stdout  # doctor
    return folder, environment


@pytest.mark.slow
def test_installed_wheel_takes_the_steps_of_the_demo(installed: tuple[Path, dict[str, str]]) -> None:
    folder, environment = installed

    def run(arguments: str) -> str:
        command = [str(folder / "a venv" / "bin" / "pneumo-fast"), *arguments.split()]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    found = json.loads(run("doctor --json"))
    assert found["pneumo_fast"] == pneumo_fast.__version__
    run("phantom phantoms --count 40 --size 64")
    run(
        "convert phantoms/stage_2_train_images phantoms/stage_2_train_labels.csv dataset --size 32 --val-fraction 0.3 "
        "--groups phantoms/mappings.json --class-info phantoms/stage_2_detailed_class_info.csv"
    )
    run("train dataset --out run --epochs 1 --batch-size 16")
    run("evaluate run --resamples 100")
    run("explain run --count 1 --resamples 100")
    run("report run")
    run("predict run phantoms/stage_2_train_images --out predictions")
    assert "Grad-CAM" in (folder / "run" / "report.html").read_text()
    assert (folder / "run" / "model_card.md").stat().st_size
    assert len((folder / "predictions" / "predictions.csv").read_text().splitlines()) == 41
