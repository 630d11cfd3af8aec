"""Exported models against what evaluate says, and what must leave no file behind."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from pneumo_fast.errors import ConfigError, ExportError, RunError
from pneumo_fast.evaluation.ensemble import open_members
from pneumo_fast.evaluation.evaluate import evaluate
from pneumo_fast.export import formats
from pneumo_fast.export.export import BATCHES, ExportSummary, export_model, images_to_check, largest_difference
from pneumo_fast.export.formats import Images
from pneumo_fast.export.options import ExportConfig
from pneumo_fast.run.layout import BEST, PREDICTIONS
from pneumo_fast.vocabulary import NOT_CLINICAL, ExportFormat
from tests.support.folds import make_folds
from tests.support.repository import DOCS, ROOT
from tests.support.untrained_run import change, config, evaluated, read_csv

Both = dict[ExportFormat, ExportSummary]
FORMATS = pytest.mark.parametrize("name", ["onnx", "torch"])
OUTPUTS = ("logit", "probability", "calibrated_probability")


def stored(run: Path) -> Images:
    """The images that evaluate judged, as they are stored."""
    images: Images = np.load(run.parent / "dataset" / "val-00000.npy").astype(np.float32)[:, None]
    return images


def predictions(run: Path) -> list[Any]:
    """What evaluate wrote, by output."""
    rows = read_csv(evaluated(run) / PREDICTIONS)
    return [np.array([float(row[name]) for row in rows]) for name in OUTPUTS]


def opened(summary: ExportSummary) -> Callable[[Images], list[Any]]:
    """A file, to be run without this package."""
    if summary.path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(str(summary.path), providers=["CPUExecutionProvider"])
        return lambda images: list(session.run(list(summary.outputs), {"image": images}))
    model = torch.export.load(summary.path).module()
    return torch.inference_mode()(lambda images: [each.numpy() for each in model(torch.from_numpy(images))])


def answers(summary: ExportSummary, images: Images) -> list[Any]:
    """What a file says."""
    return opened(summary)(images)


def metadata(path: Path) -> dict[str, str]:
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return dict(session.get_modelmeta().custom_metadata_map)
    extra: dict[str, Any] = {"pneumo_fast.json": ""}
    torch.export.load(path, extra_files=extra)
    content: dict[str, str] = json.loads(extra["pneumo_fast.json"])
    return content


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# ---- what is written


@FORMATS
def test_the_outputs_are_what_evaluate_says(exported: Both, judged: Path, name: ExportFormat) -> None:
    for said, expected in zip(answers(exported[name], stored(judged)), predictions(judged), strict=True):
        assert said.dtype == np.float32
        assert said == pytest.approx(expected, abs=1e-5)


@FORMATS
def test_any_number_of_images_fits(exported: Both, judged: Path, name: ExportFormat) -> None:
    run, images = opened(exported[name]), stored(judged)[:11]
    all_of_them = run(images)
    for count in (1, 2, 5, 11):
        for one, other in zip(all_of_them, run(images[:count]), strict=True):
            assert other.shape == (count,)
            assert other == pytest.approx(one[:count], abs=1e-6)


@FORMATS
def test_the_summary(exported: Both, judged: Path, name: ExportFormat) -> None:
    summary = exported[name]
    assert summary.path == judged / {"onnx": "model.onnx", "torch": "model.pt2"}[name]
    assert summary.size_bytes == summary.path.stat().st_size
    assert (summary.size, summary.outputs, summary.notes) == (32, OUTPUTS, ())
    assert summary.checked_on == "16 images of the run's dataset"
    assert 0 <= summary.difference <= 1e-5


@FORMATS
def test_the_metadata(exported: Both, judged: Path, name: ExportFormat) -> None:
    found = metadata(exported[name].path)
    assert found["notice"] == NOT_CLINICAL
    assert found["created_by"].startswith("pneumo-fast ")
    assert (json.loads(found["input_range"]), json.loads(found["size"])) == ([0, 1], 32)
    assert tuple(json.loads(found["outputs"])) == OUTPUTS
    (run,) = json.loads(found["runs"])
    operating = json.loads((judged / "operating.json").read_text())
    assert (run["arch"], run["mean"], run["std"]) == ("resnet18", 0.5, 0.25)
    assert run["sha256"] == operating["checkpoint"]
    assert (run["calibration"], run["thresholds"]) == (operating["calibration"], operating["thresholds"])
    assert run["calibration"]["shift"] == 0.7


def test_both_formats_say_the_same_and_the_document_lists_it(exported: Both) -> None:
    found = metadata(exported["onnx"].path)
    assert found == metadata(exported["torch"].path)
    text = (DOCS / "export.md").read_text()
    assert not [key for key in (*found, *json.loads(found["runs"])[0], *OUTPUTS) if f"`{key}`" not in text]


@FORMATS
def test_no_path_of_this_machine_is_in_the_file(exported: Both, judged: Path, name: ExportFormat) -> None:
    content = exported[name].path.read_bytes()
    for path in (judged.parent, ROOT, Path(torch.__file__).parents[1]):
        assert str(path).encode() not in content


@FORMATS
def test_again_gives_the_same_bytes_in_the_place_of_the_first(exported: Both, run: Path, name: ExportFormat) -> None:
    path = ExportConfig(runs=(run,), format=name).file
    path.unlink(missing_ok=True)
    path.write_bytes(b"an earlier one")
    export_model(ExportConfig(runs=(run,), format=name))
    assert path.read_bytes() == exported[name].path.read_bytes()


# ---- several runs, or none that was evaluated


def test_several_runs_are_averaged_in_logits(judged: Path, other: Path, tmp_path: Path) -> None:
    out = tmp_path / "both.pt2"
    summary = export_model(ExportConfig(runs=(judged, other), format="torch", out=out))
    logit, probability, calibrated = answers(summary, stored(judged))
    (one, *_, first), (two, *_, second) = predictions(judged), predictions(other)
    assert np.abs(one - two).max() > 1e-3
    assert logit == pytest.approx((one + two) / 2, abs=1e-5)
    assert probability == pytest.approx(1 / (1 + np.exp(-(one + two) / 2)), abs=1e-5)
    odds = np.sqrt(first / (1 - first) * second / (1 - second))
    assert calibrated == pytest.approx(odds / (1 + odds), abs=1e-5)
    assert "none is fitted to the average" in summary.notes[0]
    found = metadata(out)
    assert "not fitted to the mean" in found["calibration"]
    assert [run["mean"] for run in json.loads(found["runs"])] == [0.5, 0.4]


@pytest.mark.parametrize("spoil", [lambda run: (run / "operating.json").unlink(), lambda run: change(run, epoch=4)])
def test_without_an_evaluation_of_the_checkpoint_nothing_is_calibrated(run: Path, spoil: Callable[[Path], Any]) -> None:
    spoil(run)
    summary = export_model(ExportConfig(runs=(run,), format="torch"))
    assert summary.outputs == ("logit", "probability")
    assert summary.notes[0].startswith("No calibrated probability, since not evaluated")
    assert summary.notes[0].endswith(f"Evaluate it, then export again: pneumo-fast evaluate {run}")
    images, _ = images_to_check(open_members([run])[0])
    assert len(answers(summary, images)) == 2
    assert metadata(summary.path)["calibration"].startswith("none")


def test_one_run_without_calibration_leaves_it_out_of_the_mean(run: Path, other: Path, tmp_path: Path) -> None:
    (run / "operating.json").unlink()
    summary = export_model(ExportConfig(runs=(other, run), format="torch", out=tmp_path / "both.pt2"))
    assert summary.outputs == ("logit", "probability")
    assert str(run) in summary.notes[0]
    assert str(other) not in summary.notes[0]


def test_each_fold_of_a_cross_validation_is_to_be_evaluated_by_itself(judged: Path, tmp_path: Path) -> None:
    folds = make_folds(tmp_path / "my cv", judged.parent / "dataset")
    evaluate(config(folds))
    summary = export_model(ExportConfig(runs=(folds,), format="torch"))
    commands = [f"pneumo-fast evaluate '{folds}/fold-{fold}'" for fold in (1, 2, 3)]
    assert summary.notes[0].endswith(f"Evaluate each by itself, then export again: {' && '.join(commands)}")


def test_runs_of_different_sizes(run: Path, judged: Path) -> None:
    change(run, size=64)
    with pytest.raises(RunError, match=r"64 x 64 images, .* on 32 x 32: one model takes images of one size"):
        open_members([judged, run])


# ---- the check


def test_random_images_where_the_dataset_is_not_there(run: Path) -> None:
    change(run, dataset_identity="another")
    (images, said), (again, _) = (images_to_check(open_members([run])[0]) for _ in range(2))
    assert said.startswith("random images")
    assert np.array_equal(images, again)
    assert images.shape == (16, 1, 32, 32)
    assert images.dtype == np.float32
    assert 0 <= images.min() < images.max() <= 1


def test_stored_images_are_checked_in_batches_of_three_sizes(judged: Path) -> None:
    images, said = images_to_check(open_members([judged])[0])
    assert said == "16 images of the run's dataset"
    assert np.array_equal(images[:4, 0], np.load(judged.parent / "dataset" / "train-00000.npy").astype(np.float32))
    counts: list[int] = []

    def run(batch: Images) -> list[Any]:
        counts.append(len(batch))
        return [batch.mean(axis=(1, 2, 3))]

    assert largest_difference(lambda batch: (batch.mean((1, 2, 3)),), run, images) < 1e-6
    assert tuple(counts) == BATCHES == (1, 3, 16)


@pytest.mark.parametrize(
    ("logit", "said", "difference"),
    [
        (0.5, 0.5 + 1e-3, 1e-3),
        (1000.0, 1000.5, 5e-4),
        (0.0, np.nan, np.nan),
        (np.nan, np.nan, np.nan),
    ],
)
def test_differences_are_relative_to_large_logits_alone(logit: float, said: float, difference: float) -> None:
    found = largest_difference(
        lambda batch: (torch.full((len(batch),), logit),),
        lambda batch: [np.full(len(batch), said, dtype=np.float32)],
        np.zeros((16, 1, 2, 2), dtype=np.float32),
    )
    assert found == pytest.approx(difference, rel=1e-3, nan_ok=True)


def test_another_shape_is_no_agreement() -> None:
    images = np.zeros((16, 1, 2, 2), dtype=np.float32)
    found = largest_difference(
        lambda batch: (torch.zeros(len(batch)),), lambda batch: [np.zeros((len(batch), 1), dtype=np.float32)], images
    )
    assert found == np.inf


@FORMATS
@pytest.mark.parametrize("off", [1e-3, np.nan])
def test_a_runtime_that_disagrees_leaves_what_was_there(
    exported: Both, run: Path, monkeypatch: pytest.MonkeyPatch, name: ExportFormat, off: float
) -> None:
    content, load = exported[name].path.read_bytes(), formats.load
    monkeypatch.setattr(formats, "serialize", lambda *_: content)
    monkeypatch.setattr(formats, "load", lambda *args: lambda images: [output + off for output in load(*args)(images)])
    path = ExportConfig(runs=(run,), format=name).file
    path.unlink(missing_ok=True)
    path.write_bytes(b"an earlier one")
    before = names_in(run)
    with pytest.raises(ExportError, match=r"was not written: .* and PyTorch differ by .*, at most 1e-05 expected"):
        export_model(ExportConfig(runs=(run,), format=name))
    assert names_in(run) == before
    assert path.read_bytes() == b"an earlier one"


# ---- what cannot be exported


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_names_the_extra(run: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ExportError, match=rf"needs {package}, which is not installed: pip install onnx onnxscript onnxruntime, or"
    ):
        export_model(ExportConfig(runs=(run,)))
    formats.check_installed("torch")


def _newer(run: Path) -> None:
    (run / BEST).unlink()
    torch.save({"format": "pneumo-fast checkpoint 99"}, run / BEST)


def _damaged_operating(run: Path) -> None:
    (run / "operating.json").unlink()
    (run / "operating.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_newer, "is not a checkpoint of this release"),
        (lambda run: (run / BEST).unlink(), "no checkpoint .*best.pt: run pneumo-fast train first"),
        (_damaged_operating, "operating.json is damaged"),
        (lambda run: change(run, arch="resnet34"), "does not fit model 'resnet34'"),
    ],
)
@FORMATS
def test_a_run_that_cannot_be_used(run: Path, name: ExportFormat, spoil: Callable[[Path], Any], message: str) -> None:
    spoil(run)
    before = names_in(run)
    with pytest.raises(RunError, match=message) as caught:
        export_model(ExportConfig(runs=(run,), format=name))
    assert "\n" not in str(caught.value)
    assert names_in(run) == before


def test_a_file_in_the_place_of_a_run(judged: Path) -> None:
    with pytest.raises(RunError, match="is a file: name the run folder"):
        export_model(ExportConfig(runs=(judged / BEST,), format="torch", out=Path("unused.pt2")))


@pytest.mark.parametrize("place", ["missing", "file", "taken"])
def test_a_place_that_cannot_be_written(
    exported: Both, judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    content = exported["torch"].path.read_bytes()
    monkeypatch.setattr(formats, "serialize", lambda *_: content)
    (tmp_path / "file").write_text("")
    (tmp_path / "taken" / "model.pt2").mkdir(parents=True)
    with pytest.raises(RunError, match=r"model\.pt2 cannot be written"):
        export_model(ExportConfig(runs=(judged,), format="torch", out=tmp_path / place / "model.pt2"))
    assert names_in(tmp_path) == {"file", "taken"}
    assert names_in(tmp_path / "taken") == {"model.pt2"}


def test_a_model_that_onnx_cannot_hold(judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "LARGEST_ONNX", 1000)
    with pytest.raises(ExportError, match=r"does not fit into one ONNX file .*: use --format torch"):
        export_model(ExportConfig(runs=(judged,), out=tmp_path / "a.onnx"))
    assert not names_in(tmp_path)


class Deciding(nn.Module):
    """Asks a value of the images which way to go, which no graph can hold."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1).sum(1, keepdim=True) if images.sum() > 0 else images.flatten(1)[:, :1]


def test_a_model_that_pytorch_cannot_trace_is_one_line() -> None:
    with pytest.raises(ExportError, match=r"PyTorch cannot export the model \(.*\): use resnet18") as error:
        formats.trace(Deciding().eval(), 32)
    assert "\n" not in str(error.value)


# ---- options


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"runs": ()}, "no run is given"),
        ({"runs": (Path("a"), Path("a"))}, "run a is given more than once"),
        ({"runs": (Path("a"), Path("b"))}, "2 runs are given: name the file of their joint model with --out"),
        ({"out": Path("a.pt2")}, "the name of a .onnx file expected for --format onnx"),
        ({"out": Path("best.pt"), "format": "torch"}, "the name of a .pt2 file expected"),
        ({"format": "tflite"}, "format 'tflite' is unknown: use one of onnx, torch"),
    ],
)
def test_options_that_cannot_work(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ExportConfig(**values)


def test_what_people_see(run_cli: Callable[..., Any], run: Path) -> None:
    ended = run_cli("export", run, "--format", "torch")
    assert ended.code == 0
    starts = [line.split("  ")[0] for line in ended.out.splitlines()[:2]]
    assert starts == ["Input", "Outputs"]
    assert "largest difference" in " ".join(ended.out.split())
    assert ended.out.splitlines()[-1] == NOT_CLINICAL
    assert ended.err.splitlines() == [f"INFO exporting {run} to {run / 'model.pt2'}"]
