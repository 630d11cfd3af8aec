"""Judging a checkpoint: the model's answers against a plain pass over the arrays, and every way it can go wrong."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pneumo_fast.dataset.folder import Dataset, write_table
from pneumo_fast.dataset.format import FORMAT, FORMAT_VERSION, INDEX_TYPES, Manifest, ShardInfo
from pneumo_fast.dataset.npy import write_array
from pneumo_fast.drawing import style
from pneumo_fast.errors import ConfigError, DatasetError, DeviceError, PneumoError, RunError
from pneumo_fast.evaluation import results as evaluation_module
from pneumo_fast.evaluation.evaluate import evaluate
from pneumo_fast.evaluation.notes import origin_note
from pneumo_fast.evaluation.options import EvaluateConfig
from pneumo_fast.evaluation.results import Predictions, predictions_csv, to_json
from pneumo_fast.metrics.scored import sigmoid
from pneumo_fast.run.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from pneumo_fast.run.folder import write_config
from pneumo_fast.run.layout import BEST, FIGURES, METRICS, PREDICTIONS
from pneumo_fast.run.model import build_model

SIZE = 32
LABELS = {"train": [0, 1, 0, 1], "val": [0, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0], "test": [0, 0, 0]}
DEVICES = pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
        ),
    ],
)


def make_dataset(path: Path, *, mean: float = 0.5, std: float = 0.25, size: int = SIZE) -> Path:
    """A dataset of noise, written by hand: positives a little brighter, two images to a patient."""
    path.mkdir()
    rng = np.random.default_rng(7)
    shards, index = [], []
    for split, labels in LABELS.items():
        if not labels:
            continue
        level = 0.2 + 0.3 * np.array(labels)[:, None, None] + 0.3 * rng.random((len(labels), 1, 1))
        images = (level * rng.random((len(labels), size, size))).astype(np.float16)
        name = f"{split}-00000.npy"
        digest = write_array(path / name, images)
        shards.append(
            ShardInfo(name=name, split=split, rows=len(labels), bytes=(path / name).stat().st_size, sha256=digest)
        )
        index += [
            {"image_id": f"{split}, {row}", "split": split, "shard": name, "row": row, "label": label}
            | {"group": f"{split}{row // 2}", "height": size, "width": size}
            for row, label in enumerate(labels)
        ]
    unknown = {name: kind() for name, kind in INDEX_TYPES.items()}
    table = pd.DataFrame([unknown | image for image in index])
    tables = {"index.csv": write_table(path, "index.csv", table)}
    boxes = pd.DataFrame(columns=["image_id", "x", "y", "width", "height", "source_width", "source_height"])
    tables["boxes.csv"] = write_table(path, "boxes.csv", boxes)
    manifest = Manifest(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        created_by="test",
        layout="shards",
        image_shape=(size, size),
        dtype="float16",
        scale=1.0,
        mean=mean,
        std=std,
        preprocessing={},
        split={},
        counts={},
        input={},
        duplicates={},
        rejects={},
        arguments={},
        shards=tuple(shards),
        tables=tables,
    )
    (path / "manifest.json").write_text(manifest.to_json())
    return path


def make_run(path: Path, dataset: Path) -> Path:
    path.mkdir()
    torch.manual_seed(0)
    checkpoint = Checkpoint(
        arch="resnet18",
        size=SIZE,
        mean=0.5,
        std=0.25,
        pos_weight=1.0,
        dataset_identity=Dataset.open(dataset).identity,
        epoch=3,
        best=0.5,
        monitor="auroc",
        best_epoch=3,
        history=[],
        model=build_model().state_dict(),
        optimizer={},
        scaler={},
    )
    save_checkpoint(checkpoint, path / BEST)
    write_config(path, {"config": {"datasets": [str(dataset)]}})
    return path


def change(run: Path, **values: Any) -> None:
    """Write the run's checkpoint again with other values."""
    save_checkpoint(replace(load_checkpoint(run / BEST), **values), run / BEST)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "dataset")


@pytest.fixture
def drawn_run(tmp_path: Path, dataset: Path) -> Path:
    """A run whose figures are drawn."""
    return make_run(tmp_path / "run", dataset)


@pytest.fixture
def run(drawn_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose figures are not drawn, which takes most of the time."""
    for name in ("draw_roc", "draw_precision_recall", "draw_confusion"):
        monkeypatch.setattr(style, name, lambda *_: b"figure")
    return drawn_run


def leave_old_result(run: Path) -> Path:
    """Files as an earlier evaluation left them; the path of its metrics."""
    (run / "eval").mkdir()
    for name in (METRICS, PREDICTIONS, *FIGURES):
        (run / "eval" / name).write_text("old")
    return run / "eval" / METRICS


def config(run: Path, **values: Any) -> EvaluateConfig:
    return EvaluateConfig(run=run, **{"device": "cpu", "resamples": 100, **values})


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_json(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "eval" / METRICS).read_text())
    return content


def plain_logits(run: Path, dataset: Path, split: str) -> Any:
    """What the checkpoint says about a split, without loader or evaluation."""
    checkpoint = load_checkpoint(run / BEST)
    images = np.load(dataset / f"{split}-00000.npy").astype(np.float32)
    model = build_model(checkpoint.arch)
    model.load_state_dict(checkpoint.model)
    with torch.no_grad():
        normalized = torch.from_numpy((images - checkpoint.mean) / checkpoint.std)
        return model.eval()(normalized[:, None])[:, 0].numpy()


@DEVICES
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_predictions_are_those_of_a_plain_pass(run: Path, dataset: Path, device: str, batch_size: int) -> None:
    result = evaluate(config(run, device=device, batch_size=batch_size))
    table = read_csv(run / "eval" / PREDICTIONS)
    assert [row["image_id"] for row in table] == [f"val, {i}" for i in range(11)]
    assert [int(row["label"]) for row in table] == LABELS["val"]
    logits = np.array([float(row["logit"]) for row in table], dtype=np.float32)
    assert np.array_equal(logits, result.predictions.logits)
    assert logits == pytest.approx(plain_logits(run, dataset, "val"), abs=1e-5 if device == "cpu" else 1e-2)
    assert len(set(logits.tolist())) == 11


def test_classes_and_counts_follow_from_the_file(run: Path) -> None:
    evaluate(config(run, thresholds=(0.5, 0.25, 0.9)))
    table = read_csv(run / "eval" / PREDICTIONS)
    named = ["image_id", "label", "logit", "probability", "calibrated_probability", "part"]
    assert list(table[0]) == named + [f"class_at_{t}" for t in (0.5, 0.25, 0.9)]
    for result in read_json(run)["thresholds"]:
        pairs = [(int(r["label"]), int(float(r["probability"]) >= result["threshold"])) for r in table]
        assert [int(row[f"class_at_{result['threshold']}"]) for row in table] == [called for _, called in pairs]
        names = {(0, 0): "tn", (0, 1): "fp", (1, 0): "fn", (1, 1): "tp"}
        assert result["confusion"] == {name: pairs.count(pair) for pair, name in names.items()}


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=9))
def test_numbers_in_the_file_come_back_exactly(values: list[float]) -> None:
    logits = np.array(values, dtype=np.float32)
    ids = tuple(f'a,"{i}" é' for i in range(len(values)))
    predictions = Predictions(
        image_ids=ids,
        labels=np.zeros(len(values), np.int64),
        logits=logits,
        probabilities=sigmoid(logits),
        calibrated=sigmoid(logits / 3),
        reported=np.arange(len(values)) % 2 == 0,
        groups=np.arange(len(values)),
    )
    table = list(csv.DictReader(predictions_csv(predictions, (0.5,)).splitlines()))
    assert tuple(row["image_id"] for row in table) == ids
    assert np.array_equal(np.array([float(row["logit"]) for row in table], np.float32), logits)
    assert np.array_equal(np.array([float(row["probability"]) for row in table]), predictions.probabilities)
    assert np.array_equal(np.array([float(row["calibrated_probability"]) for row in table]), sigmoid(logits / 3))
    assert [row["part"] for row in table[:2]] == ["report", "choose"][: len(values)]


def test_metrics_json_says_what_was_judged_on_what(run: Path, dataset: Path) -> None:
    result = evaluate(config(run))
    content = read_json(run)
    assert content == json.loads(json.dumps(to_json(result)))
    assert (content["split"], content["selected_on_this_data"]) == ("val", True)
    assert (content["n"], content["positives"], content["negatives"]) == (11, 4, 7)
    assert content["run"]["path"] == str(run)
    assert (content["run"]["epoch"], content["run"]["arch"]) == (3, "resnet18")
    assert content["dataset"] == {"path": str(dataset), "identity": Dataset.open(dataset).identity, "trained_on": True}
    assert content["intervals"]["groups"] == 6
    assert "flatter" in content["notes"][0]
    assert "11 images of 6 patients" in content["notes"][1]
    assert [t["threshold"] for t in content["thresholds"]] == [0.5, 0.25]
    assert len(content["tradeoffs"]) == 1


@pytest.mark.parametrize(("split", "selected"), [("val", True), ("train", False), ("test", False)])
def test_only_val_selected_the_checkpoint(run: Path, split: str, selected: bool) -> None:
    result = evaluate(config(run, split=split))
    assert result.selected_on_this_data is selected
    assert result.notes[0] == origin_note(split, "auroc", trained_on=True)


def test_another_dataset_is_normalized_as_the_run_was(run: Path, tmp_path: Path) -> None:
    other = make_dataset(tmp_path / "other", mean=0.1, std=0.9)
    first, second = evaluate(config(run)), evaluate(config(run, dataset=other))
    assert np.array_equal(first.predictions.logits, second.predictions.logits)
    assert (second.dataset.trained_on, second.selected_on_this_data) == (False, None)
    assert "not the dataset that the run was trained on" in second.notes[0]


def test_the_same_evaluation_writes_the_same_bytes(drawn_run: Path) -> None:
    def written() -> dict[str, bytes]:
        evaluate(config(drawn_run))
        return {path.name: path.read_bytes() for path in (drawn_run / "eval").iterdir()}

    first = written()
    assert set(first) == {METRICS, PREDICTIONS, *FIGURES}
    assert all(first[name].startswith(b"\x89PNG") for name in FIGURES)
    assert written() == first


def test_one_class_has_no_curves_and_old_ones_go(run: Path) -> None:
    leave_old_result(run)
    result = evaluate(config(run, split="test"))
    assert {path.name for path in (run / "eval").iterdir()} == {METRICS, PREDICTIONS, "confusion.png"}
    assert read_json(run)["ranking"]["auroc"] == {"value": None, "low": None, "high": None}
    assert any(note.startswith("All 3 images are labelled negative") for note in result.notes)
    thresholds = result.figures.thresholds
    assert [t.accuracy.value for t in thresholds] == [t.specificity.value for t in thresholds]


def test_progress_reaches_the_end(run: Path) -> None:
    calls: list[tuple[int, int]] = []
    evaluate(config(run, batch_size=4), lambda done, total: calls.append((done, total)))
    assert calls == [(4, 11), (8, 11), (11, 11)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"thresholds": ()}, "no threshold"),
        ({"thresholds": (0.5, 1.01)}, "threshold 1.01 is no probability"),
        ({"thresholds": (-0.1,)}, "threshold -0.1 is no probability"),
        ({"thresholds": (math.nan,)}, "threshold nan is no probability"),
        ({"thresholds": (0.5, 0.25, 0.5)}, "0.5 is given more than once"),
        ({"split": "validation"}, "split 'validation' is unknown: use one of train, val, test"),
        ({"batch_size": 0}, "batch size 0"),
        ({"target_sensitivity": 0.0}, "target-sensitivity 0.0"),
        ({"target_specificity": 1.5}, "target-specificity 1.5"),
        ({"cost_ratio": 0.0}, "cost-ratio 0.0"),
        ({"cost_ratio": math.inf}, "cost-ratio inf"),
        ({"prevalence": 0.0}, "prevalence 0.0"),
        ({"prevalence": 1.0}, "prevalence 1.0"),
        ({"resamples": 99}, "resamples 99"),
    ],
)
def test_options_that_cannot_work(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(Path("run"), **values)


def _no_checkpoint(run: Path, _dataset: Path) -> None:
    (run / BEST).unlink()


def _no_config(run: Path, _dataset: Path) -> None:
    (run / "config.json").unlink()


def _config_without_dataset(run: Path, _dataset: Path) -> None:
    write_config(run, {"config": {}})


def _no_dataset(_run: Path, dataset: Path) -> None:
    dataset.rename(dataset.with_name("moved"))


def _damaged_dataset(_run: Path, dataset: Path) -> None:
    (dataset / "val-00000.npy").unlink()


def _other_size(run: Path, _dataset: Path) -> None:
    change(run, size=64)


def _unknown_arch(run: Path, _dataset: Path) -> None:
    change(run, arch="resnet17")


def _other_arch(run: Path, _dataset: Path) -> None:
    change(run, arch="resnet34")


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (_no_checkpoint, RunError, "no checkpoint .*best.pt: run pneumo-fast train first"),
        (_no_config, RunError, "is no run"),
        (_config_without_dataset, RunError, "does not say which dataset.*--dataset"),
        (_no_dataset, RunError, "which is not there: say where with --dataset"),
        (_damaged_dataset, DatasetError, "val-00000.npy is missing"),
        (_other_size, RunError, "trained on 64 x 64 images, dataset .* has 32 x 32: convert with --size 64"),
        (_unknown_arch, RunError, "does not fit model 'resnet17'"),
        (_other_arch, RunError, "does not fit model 'resnet34'.*[Mm]issing"),
    ],
)
def test_what_is_missing_or_does_not_fit_leaves_the_last_result(
    run: Path, dataset: Path, spoil: Any, kind: type[PneumoError], message: str
) -> None:
    metrics = leave_old_result(run)
    spoil(run, dataset)
    with pytest.raises(kind, match=message) as caught:
        evaluate(config(run))
    assert "\n" not in str(caught.value)
    assert metrics.read_text() == "old"


def test_a_dataset_that_moved_can_be_named(run: Path, dataset: Path) -> None:
    moved = dataset.rename(dataset.with_name("moved"))
    assert evaluate(config(run, dataset=moved)).dataset.trained_on


def test_a_split_that_is_not_there(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LABELS, "test", [])
    with pytest.raises(DatasetError, match="no 'test' images: its splits are train, val"):
        evaluate(config(run, dataset=make_dataset(tmp_path / "two"), split="test"))


def test_a_device_that_is_not_there(run: Path) -> None:
    with pytest.raises(DeviceError, match="no device is called 'tpu!'"):
        evaluate(config(run, device="tpu!"))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_logit_that_is_no_number_names_the_image_and_leaves_nothing(run: Path, value: float) -> None:
    leave_old_result(run)
    state = load_checkpoint(run / BEST).model
    state["fc.bias"].fill_(value)
    change(run, model=state)
    with pytest.raises(RunError, match=rf"gives the logit {value} for image 'val, 0' \(11 of 11 .*train again"):
        evaluate(config(run))
    assert list((run / "eval").iterdir()) == []


@pytest.mark.parametrize("name", [PREDICTIONS, *FIGURES, METRICS])
def test_a_full_disk_leaves_no_metrics(run: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def write(path: Path, data: bytes | str) -> None:
        if path.name == name:
            raise OSError(28, "No space left on device")
        path.write_bytes(data.encode() if isinstance(data, str) else data)

    leave_old_result(run)
    monkeypatch.setattr(evaluation_module, "write_atomic", write)
    with pytest.raises(RunError, match=r"eval cannot be written \(No space left on device\)"):
        evaluate(config(run))
    assert not (run / "eval" / METRICS).exists()


def test_a_file_in_the_way_of_the_folder(run: Path) -> None:
    (run / "eval").write_text("")
    with pytest.raises(RunError, match=r"eval cannot be written \(File exists\)"):
        evaluate(config(run))


# ---- chosen on one part, judged on another


def test_thresholds_are_chosen_on_one_half_of_the_patients_and_judged_on_the_other(run: Path, dataset: Path) -> None:
    result = evaluate(config(run, cost_ratio=3.0))
    table = read_csv(run / "eval" / PREDICTIONS)
    groups = Dataset.open(dataset).rows("val")["group"]
    parts = {
        part: {g for row, g in zip(table, groups, strict=True) if row["part"] == part} for part in ("choose", "report")
    }
    assert parts["choose"]
    assert parts["report"]
    assert not parts["choose"] & parts["report"]
    judged = [(int(r["label"]), float(r["probability"])) for r in table if r["part"] == "report"]
    assert result.figures.parts is not None
    assert (result.figures.parts.n, "other half") == (len(judged), result.figures.parts.reported_on[4:14])
    for chosen in result.figures.chosen_thresholds:
        assert chosen.confusion.tp == sum(label and p >= (chosen.threshold or 0) for label, p in judged)
        assert chosen.confusion.tn == sum(not label and p < (chosen.threshold or 0) for label, p in judged)
    chose = {float(r["probability"]) for r in table if r["part"] == "choose"}
    assert {t.threshold for t in result.figures.chosen_thresholds} <= chose
    assert result.figures.chosen_thresholds[-1].name == "least cost, a miss worth 3 false alarms"


def test_another_split_is_judged_whole_with_what_was_chosen_on_validation_images(run: Path) -> None:
    result = evaluate(config(run, split="train"))
    assert result.figures.parts is not None
    assert (result.figures.parts.chosen_on, result.figures.parts.n) == ("split 'val' (11 images)", 4)
    assert {row["part"] for row in read_csv(run / "eval" / PREDICTIONS)} == {"report"}
    threshold = result.figures.chosen_thresholds[0].threshold
    evaluate(config(run))
    assert str(threshold) in {row["probability"] for row in read_csv(run / "eval" / PREDICTIONS)}


def test_the_calibrated_probability_follows_from_the_logit(run: Path) -> None:
    change(run, pos_weight=2.0)
    evaluate(config(run))
    calibration = read_json(run)["calibration"]
    assert calibration["log_pos_weight"] == pytest.approx(math.log(2.0))
    for row in read_csv(run / "eval" / PREDICTIONS):
        logit = (float(row["logit"]) - calibration["log_pos_weight"]) / calibration["temperature"]
        assert float(row["calibrated_probability"]) == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-9)


def test_other_data_are_judged_with_what_the_run_keeps(run: Path, tmp_path: Path) -> None:
    other = make_dataset(tmp_path / "other", mean=0.1, std=0.9)
    without = evaluate(config(run, dataset=other))
    assert without.figures.calibration is None
    assert without.figures.chosen_thresholds == ()
    own = evaluate(config(run))
    judged = evaluate(config(run, dataset=other)).figures
    assert own.figures.calibration is not None
    assert judged.calibration is not None
    assert judged.calibration.temperature == own.figures.calibration.temperature
    assert [t.threshold for t in judged.chosen_thresholds] == [t.threshold for t in own.figures.chosen_thresholds]
    assert judged.parts is not None
    assert judged.parts.n == 11
    change(run, epoch=4)  # another checkpoint: what was fitted for the old one is not for it
    assert evaluate(config(run, dataset=other)).figures.calibration is None


def test_a_damaged_operating_file_is_named(run: Path, tmp_path: Path) -> None:
    (run / "operating.json").write_text("{")
    with pytest.raises(RunError, match=r"operating.json is damaged \(Expecting .*\): remove it and evaluate"):
        evaluate(config(run, dataset=make_dataset(tmp_path / "other", mean=0.1)))


def test_shared_patients_and_pixels_are_counted(run: Path, tmp_path: Path) -> None:
    other = make_dataset(tmp_path / "other", mean=0.1)  # the same groups and no hash key at all: comparable
    result = evaluate(config(run, dataset=other))
    assert result.overlap is not None
    assert (result.overlap.patients, read_json(run)["shared_patients"]) == (6, 6)
    assert result.overlap.note in result.notes


def names(value: Any) -> set[str]:
    """Every key of nested JSON."""
    if isinstance(value, dict):
        return set(value).union(*(names(v) for v in value.values()))
    return set().union(*(names(v) for v in value)) if isinstance(value, list) else set()


def test_every_key_and_column_is_documented(run: Path) -> None:
    evaluate(config(run, thresholds=(0.5,)))
    text = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text()
    documented = set(re.findall(r"`([a-z_0-9.]+)`", text))
    columns = set(read_csv(run / "eval" / PREDICTIONS)[0])
    assert names(read_json(run)) | columns <= documented
