"""A tiny run of the benchmark: every stage, every contender, and figures that can be read by programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import JPEGBaseline8Bit

from benchmarks import train_stage
from benchmarks.load_stage import RESIDENT, STREAMED, gpu_ratios
from benchmarks.measure import Result, Turn
from benchmarks.processes import entries
from benchmarks.throughput import main
from tests.support.make_dataset import make_dataset
from tests.support.repository import ROOT

THROUGHPUT = ROOT / "benchmarks" / "throughput.py"
TINY = ["--images", 8, "--runs", 1, "--size", 32, "--batch-size", 4, "--least-seconds", 0]
TINY_TRAINING = ["--train-size", 32, "--train-batch-size", 4, "--steps", 1]
ONLY = ["--only", "fused, uint8", "--only", "memory map"]
PLUGINS = get_decoder(JPEGBaseline8Bit).available_plugins


def results_of(stage: dict[str, Any]) -> dict[str, Any]:
    return {result["name"]: result for result in stage["results"]}


@pytest.mark.slow
def test_a_tiny_run_measures_everything(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    command = [sys.executable, THROUGHPUT, *TINY, *TINY_TRAINING, "--workers", 2, "--out", out]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=one_thread)
    assert done.returncode == 0, done.stderr
    table, _, last = done.stdout.rstrip().rpartition("\n")
    assert max(map(len, table.splitlines())) <= 80
    content = json.loads(last)
    assert content == json.loads(out.read_text())
    assert {"date", "cpu", "cores", "memory_gb", "gpu", "threads", "versions"} <= content["surroundings"].keys()
    stages = {stage["name"]: stage for stage in content["stages"]}
    assert list(stages) == ["convert", "direct", "load", "start", "train", "predict"]
    for stage in stages.values():
        for result in stage["results"]:
            assert len(result["turns"]) == 1
            assert min(result["rates"]) > 0
        assert min(stage["ratios"].values()) > 0
    assert results_of(stages["convert"]).keys() >= {
        "pneumo-fast, fast",
        "pneumo-fast, exact",
        "pneumo-fast, fast, 1 worker",
        "pneumo-fast, fast, a single image",
        "ceiling: libjpeg-turbo alone",
    }
    references = [name for name in results_of(stages["convert"]) if name.startswith("reference")]
    assert len(references) == min(len(PLUGINS), 2)
    assert stages["convert"]["ratios"].keys() >= {
        "start-up: seconds to convert a single image",
        "fast / ceiling, end to end",
        "exact / ceiling, end to end",
        "fast, 2 workers / 1, end to end",
        *(f"fast / {name}, end to end" for name in references),
    }
    loaders = results_of(stages["load"])
    for entry in entries(torch.device("cpu")):
        noted = any(note.startswith(f"{entry.name} does not take part: ") for note in stages["load"]["notes"])
        assert (entry.name in loaders) != noted, "either measured, or absent with the reason"
    assert loaders.keys() >= {
        *(f"pneumo-fast, {e}, {d}" for e in ("fused", "dali", "resident") for d in ("float16", "uint8")),
        "reference: DatasetFolder",
        "memory map",
        "float32 in RAM",
        "DALI readers.numpy",
    }
    for result in loaders.values():
        details = result["details"]
        assert details["every row once"] == 1.0
        assert min(details[name] for name in ("cold", "cpu_us", "peak_pss", "first_batch_s", "bytes")) >= 0
    check_training(stages["train"])


def check_training(stage: dict[str, Any]) -> None:
    waits = {name: result["waiting"] for name, result in results_of(stage).items()}
    assert waits.keys() == {
        "ceiling: one fixed batch",
        "step fed by pneumo-fast, fused",
        "step fed by pneumo-fast, dali",
        "step fed by DataLoader, 0 workers",
        "step fed by DataLoader, 2 workers",
        "step of 1 ms, alone",
        "step of 1 ms, fed",
    }
    assert waits.pop("step of 1 ms, alone") is None
    assert all(0 <= share <= 1 for share in waits.values())
    assert len(stage["ratios"]) == 5
    assert "GFLOP/s of a matrix product" in stage["notes"][0]


@pytest.fixture
def throughput(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the benchmark in this process; gives what it printed."""

    def run(*arguments: object) -> str:
        monkeypatch.setenv("XDG_CONFIG_HOME", os.environ["XDG_CONFIG_HOME"])  # the benchmark sets it
        monkeypatch.setattr(sys, "argv", ["throughput.py", *map(str, [*TINY, *arguments])])
        main()
        return capfd.readouterr().out

    return run


def test_what_is_asked_of_loading_on_a_gpu() -> None:
    gpu = torch.device("cuda", 0)
    assert {STREAMED, RESIDENT} < {f"{entry.name}, {gpu.type}" for entry in entries(gpu)}
    streamed = Result(name=STREAMED, turns=[Turn(images=200_000, seconds=1.0)])
    resident = Result(name=RESIDENT, turns=[Turn(images=1_000_000, seconds=1.0)])
    limits = {"pinned host to device, GB/s": 50.0}
    assert gpu_ratios([streamed, resident], limits, 100_000) == {
        "dali, cuda / pinned host to device": pytest.approx(0.4),
        "resident, cuda / dali, cuda": pytest.approx(5.0),
    }
    assert gpu_ratios([resident], limits, 100_000) == {}


def test_training_is_measured(throughput: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_stage, "SHORT_STEPS", 20)
    printed = throughput("--stage", "train", *TINY_TRAINING)
    (stage,) = json.loads(printed.splitlines()[-1])["stages"]
    check_training(stage)
    assert {len(result["turns"]) for result in stage["results"]} == {1}


def test_a_dataset_given_is_loaded_and_left_as_it_is(throughput: Callable[..., str], tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset", size=32, dtype="uint8")
    before = {path: path.read_bytes() for path in dataset.path.rglob("*") if path.is_file()}
    printed = throughput("--stage", "load", "--dataset", dataset.path, *ONLY)
    (stage,) = json.loads(printed.splitlines()[-1])["stages"]
    assert stage["conditions"]["images"] == 8
    assert {turn["images"] for result in stage["results"] for turn in result["turns"]} == {8}
    assert before == {path: path.read_bytes() for path in dataset.path.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_run_of_loading_takes_as_many_whole_epochs_as_asked(throughput: Callable[..., str], tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset")
    printed = throughput("--stage", "load", "--dataset", dataset.path, "--least-seconds", 0.2, *ONLY)
    (stage,) = json.loads(printed.splitlines()[-1])["stages"]
    turns = [turn for result in stage["results"] for turn in result["turns"]]
    assert all(turn["images"] > 8 and turn["images"] % 8 == 0 for turn in turns)
    assert min(turn["seconds"] for turn in turns) >= 0.2


@pytest.mark.slow
def test_the_rehearsal_of_scale_replicates_images_up_to_each_size(
    throughput: Callable[..., str], tmp_path: Path
) -> None:
    dataset = make_dataset(tmp_path / "dataset")
    printed = throughput("--rehearse-scale", 50, 20, "--dataset", dataset.path)
    (stage,) = json.loads(printed.splitlines()[-1])["stages"]
    assert stage["conditions"]["images"] == "replicated"
    turns = {name: result["turns"][0]["images"] for name, result in results_of(stage).items()}
    assert turns == {"pneumo-fast, fused, 20 images": 20, "pneumo-fast, fused, 50 images": 50}
    small, large = (result["images_per_s"]["median"] for result in stage["results"])
    assert stage["ratios"]["largest / smallest size"] == pytest.approx(large / small)


def test_a_folder_without_dicoms_is_one_line(throughput: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"throughput.py: .* holds no \*.dcm files"):
        throughput("--stage", "convert", "--dicoms", tmp_path)


def test_a_batch_larger_than_the_dataset_is_refused(throughput: Callable[..., str], tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset")
    with pytest.raises(SystemExit, match="8 training images for batches of 9"):
        throughput("--stage", "train", "--dataset", dataset.path, "--train-batch-size", 9)
