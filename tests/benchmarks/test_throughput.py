"""A tiny run of the benchmark: every stage, every contender, and figures that can be read by programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import JPEGBaseline8Bit

from benchmarks import load_stage, train_stage
from benchmarks.contenders import Epochs
from benchmarks.convert_stage import replicate
from benchmarks.inputs import store_dataset, store_numbered
from benchmarks.load_stage import AbsentError, Entry, Process, devices, entries, prepare
from benchmarks.loaders import OWN
from benchmarks.measure import Result, Turn, race, ratio, without_start_up
from benchmarks.rivals import bilinear, chosen_plugin, run_rivals
from benchmarks.serve import Child
from benchmarks.throughput import main
from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.errors import ConfigError
from pneumo_fast.phantoms.make import PhantomSet
from tests.support.make_dataset import make_dataset

THROUGHPUT = Path(__file__).resolve().parents[2] / "benchmarks" / "throughput.py"
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
    assert list(stages) == ["convert", "load", "train"]
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


def test_a_run_of_loading_takes_as_many_whole_epochs_as_asked(throughput: Callable[..., str], tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset")
    printed = throughput("--stage", "load", "--dataset", dataset.path, "--least-seconds", 0.2, *ONLY)
    (stage,) = json.loads(printed.splitlines()[-1])["stages"]
    turns = [turn for result in stage["results"] for turn in result["turns"]]
    assert all(turn["images"] > 8 and turn["images"] % 8 == 0 for turn in turns)
    assert min(turn["seconds"] for turn in turns) >= 0.2


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


def test_contenders_take_turns_and_the_first_turn_is_not_counted() -> None:
    calls: list[str] = []

    def contender(name: str) -> Turn:
        calls.append(name)
        return Turn(images=len(calls), seconds=1.0)

    first, second = race({"a": lambda: contender("a"), "b": lambda: contender("b")}, runs=2)
    assert calls == ["a", "b"] * 3
    assert (first.rates, second.rates) == ([3.0, 5.0], [4.0, 6.0])


def result(name: str, images: int, *seconds: float) -> Result:
    return Result(name=name, turns=[Turn(images=images, seconds=value) for value in seconds])


def test_ratio_is_that_of_the_medians() -> None:
    results = [result("a", 8, 8.0, 1.0, 0.5), result("b", 8, 2.0, 4.0, 0.1)]
    assert ratio(results, "a", "b") == 2.0


def test_start_up_is_taken_off_run_by_run() -> None:
    steady = without_start_up(result("a", 101, 3.0, 6.0), result("one", 1, 1.0, 2.0))
    assert steady is not None
    assert (steady.name, steady.rates) == ("a, steady", [50.0, 25.0])


def test_start_up_is_not_taken_off_what_hardly_took_longer() -> None:
    assert without_start_up(result("a", 101, 3.0, 1.9), result("one", 1, 1.0, 1.0)) is None


def test_waiting_is_the_median_share() -> None:
    turns = [Turn(images=1, seconds=2.0, waited_s=waited) for waited in (0.2, 1.0, 0.4)]
    assert Result(name="a", turns=turns).waiting == 0.2
    assert result("b", 1, 2.0).waiting is None


@pytest.mark.parametrize("count", [3, 100])
def test_files_are_linked_under_new_ids_until_there_are_enough(
    phantoms: PhantomSet, tmp_path: Path, count: int
) -> None:
    made = replicate(phantoms.images, tmp_path / "made", count)
    originals = {path.read_bytes() for path in phantoms.images.iterdir()}
    assert len(set(made.paths)) == count
    assert all(Path(path).read_bytes() in originals for path in made.paths)
    assert len(made.labels.read_text().splitlines()) == count + 1
    assert ("replicated" in made.about["from"]) == (count > len(originals))


def test_radiographs_that_are_not_jpeg_baseline_are_refused(shared_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give JPEG Baseline files"):
        replicate(shared_data / "variants", tmp_path / "made", 1)


def test_the_reference_resize_looks_at_two_neighbours_in_each_direction() -> None:
    ramp = np.arange(8, dtype=np.float32)[None, :].repeat(8, axis=0)
    np.testing.assert_allclose(bilinear(ramp, 4)[0], [0.5, 2.5, 4.5, 6.5])
    spike = np.zeros((8, 8), np.float32)
    spike[0, 0] = 1.0
    assert bilinear(spike, 2).sum() == 0.0  # it aliases: the spike is between the positions it looks at


def test_the_reference_writes_one_small_file_for_each_image(phantoms: PhantomSet, tmp_path: Path) -> None:
    paths = sorted(map(str, phantoms.images.iterdir()))[:5]
    assert run_rivals(["reference", str(tmp_path), "32", "pillow"], paths, 2, dict(os.environ)) > 0
    stored = [np.load(tmp_path / f"{Path(path).stem}.npy") for path in paths]
    assert {(image.shape, image.dtype.name) for image in stored} == {((32, 32), "float16")}
    assert 0 <= np.min(stored) < np.max(stored) <= 1


def test_a_process_that_fails_stops_the_measurement(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="'ready'"):
        run_rivals(["decode"], [str(tmp_path / "none.dcm")], 1, dict(os.environ))


def test_pydicom_chooses_one_of_its_plugins(phantoms: PhantomSet) -> None:
    assert chosen_plugin(next(phantoms.images.iterdir())) in PLUGINS


def sorted_epoch(epochs: Epochs) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Images and labels of one epoch, whatever its order."""
    with closing(epochs):
        batches = [(images.clone(), labels.clone()) for images, labels in next(epochs)]
    images, labels = (torch.cat(parts).numpy() for parts in zip(*batches, strict=True))
    order = np.argsort(images.sum(axis=(1, 2, 3)))
    return images[order], labels[order]


OURS = [("pneumo-fast", {"engine": engine, "dtype": dtype}) for engine in ("fused", "dali", "resident")
        for dtype in ("float16", "uint8")]  # fmt: skip
OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("DataLoader", {"workers": 0}),
    ("memory map", {"workers": 0}),
    ("float32 in RAM", {"workers": 0}),
    ("DALI readers.numpy", {"threads": 1}),
]


@pytest.mark.filterwarnings("ignore:.*DALI.*")
@pytest.mark.parametrize(("name", "setting"), [*OURS, *OTHERS])
def test_all_loaders_deliver_the_same_images_and_labels(tmp_path: Path, name: str, setting: dict[str, Any]) -> None:
    given = make_dataset(tmp_path / "given")
    stored = store_dataset(given.path, tmp_path / "forms", 100)
    cpu = torch.device("cpu")
    reference = sorted_epoch(OWN["DataLoader"](stored, cpu, 4, workers=0))
    assert len(reference[0]) == len(Dataset.open(given.path).rows("train"))
    images, labels = sorted_epoch(OWN[name](stored, cpu, 4, **setting))
    np.testing.assert_allclose(images, reference[0], atol=0.01)  # uint8 is rounded
    np.testing.assert_array_equal(labels, reference[1])


def test_a_contender_that_delivers_something_else_is_found(tmp_path: Path) -> None:
    stored = store_dataset(make_dataset(tmp_path / "given").path, tmp_path / "forms", 100)

    def spoiled(change: Callable[[torch.Tensor, torch.Tensor], Any]) -> Callable[..., Epochs]:
        def make(*arguments: Any, **setting: Any) -> Epochs:
            for epoch in OWN["DataLoader"](*arguments, **setting):
                yield (change(*batch) for batch in epoch)

        return make

    changes: list[tuple[Callable[[torch.Tensor, torch.Tensor], Any], str]] = [
        (lambda images, labels: (images.half(), labels), "float16"),
        (lambda images, labels: (images + 0.01, labels), "the images' mean is"),
        (lambda images, labels: (images[:1], labels[:1]), "images, 21 expected"),
        (lambda images, labels: (images[:, 0], labels), "float32"),
    ]
    for change, message in changes:
        with pytest.raises(RuntimeError, match=message):
            Child(stored, spoiled(change), torch.device("cpu"), 4, workers=0)


def test_the_rows_of_numbered_images_are_read_off_their_pixels(tmp_path: Path) -> None:
    given = make_dataset(tmp_path / "given", labels={"train": [0, 1, 1, 0] * 20, "val": [0]}, size=32)
    numbered = store_numbered(given.path, tmp_path / "numbered", 70)
    assert numbered.folder.index["label"].is_monotonic_increasing
    for name, setting in (("pneumo-fast", {"engine": "fused", "dtype": "uint8"}), ("DataLoader", {"workers": 0})):
        child = Child(numbered, OWN[name], torch.device("cpu"), 8, **setting)
        (epoch,) = child.rows(epochs=1)
        child.epochs.close()
        assert sorted(row for batch in epoch for row in batch) == list(range(70))


def test_a_contender_that_hangs_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = store_dataset(make_dataset(tmp_path / "given").path, tmp_path / "forms", 100)
    entry = Entry(name="x", contender="pneumo-fast")
    monkeypatch.setattr(load_stage, "PATIENCE_S", 0.01)  # it takes longer than that to start
    with pytest.raises(AbsentError, match=r"^it gave no answer within 0 s"):
        Process(prepare(stored, entry), entry, devices()[0], 4, {"engine": "fused"})


def test_a_contender_that_fails_says_why(tmp_path: Path) -> None:
    stored = store_dataset(make_dataset(tmp_path / "given").path, tmp_path / "forms", 100)
    entry = Entry(name="x", contender="pneumo-fast")
    with pytest.raises(AbsentError, match=r"^ConfigError: batch size 0 is too small"):
        Process(prepare(stored, entry), entry, devices()[0], 0, {"engine": "fused"})
