"""A cross-validation is judged out of fold: by which model, what is pooled, and which folders are refused."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.selection import select_fold
from pneumo_fast.errors import ConfigError, PneumoError, RunError
from pneumo_fast.evaluation import inference
from pneumo_fast.evaluation.compare import check_comparable
from pneumo_fast.evaluation.evaluate import evaluate
from pneumo_fast.evaluation.inference import best_of
from pneumo_fast.evaluation.results import read_metrics
from pneumo_fast.files import sha256_of
from pneumo_fast.metrics.ranking import auroc
from pneumo_fast.run.checkpoint import load_trained
from pneumo_fast.run.folder import read_config, write_config, write_history
from pneumo_fast.run.layout import BEST, PREDICTIONS
from tests.support.folds import SEED, make_folds
from tests.support.repository import documented
from tests.support.training import small
from tests.support.untrained_run import change, config, evaluated, make_dataset, read_csv, read_json


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Three folds, of a small network, of 15 images of nine patients. Not to be changed."""
    folder = tmp_path_factory.mktemp("folds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "build_model", lambda *_: small())
        yield make_folds(folder / "run", make_dataset(folder / "dataset"), small)


@pytest.fixture
def folds(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, to be changed; its figures are not drawn."""
    for name in ("draw_roc", "draw_precision_recall", "draw_confusion"):
        monkeypatch.setattr(f"pneumo_fast.evaluation.results.{name}", lambda *_: b"figure")
    return Path(shutil.copytree(made, tmp_path / "run"))


def plain_logits(folder: Path, dataset: Dataset, ids: list[str]) -> list[float]:
    """What a fold's checkpoint says of some images, without loader or evaluation."""
    checkpoint = load_trained(folder / BEST)
    model = small()
    model.load_state_dict(checkpoint.model)
    found = []
    for image_id in ids:
        image = dataset.index[dataset.index["image_id"] == image_id].iloc[0]
        pixels = np.load(dataset.path / image["shard"])[image["row"]].astype(np.float32)
        with torch.no_grad():
            normalized = torch.from_numpy((pixels - checkpoint.mean) / checkpoint.std)[None, None]
            found.append(float(model.eval()(normalized)[0, 0]))
    return found


def test_each_image_is_judged_by_the_fold_that_was_not_trained_on_it(folds: Path, made: Path) -> None:
    evaluate(config(folds))
    table = read_csv(evaluated(folds) / PREDICTIONS)
    dataset = Dataset.open(made.parent / "dataset")
    used = dataset.index[dataset.index["split"].isin(["train", "val"])]
    assert [row["image_id"] for row in table] == used["image_id"].tolist()
    for fold in (1, 2, 3):
        own = select_fold(dataset, 3, fold, SEED).rows("val")["image_id"].tolist()
        rows = [row for row in table if row["fold"] == str(fold)]
        assert [row["image_id"] for row in rows] == own
        assert [float(row["logit"]) for row in rows] == pytest.approx(
            plain_logits(folds / f"fold-{fold}", dataset, own), abs=1e-5
        )


def test_figures_of_each_fold_and_their_spread(folds: Path) -> None:
    result = evaluate(config(folds))
    predictions, figures = result.predictions, result.figures
    assert predictions.folds is not None
    assert (figures.n, [fold.fold for fold in figures.folds]) == (15, [1, 2, 3])
    assert sum(fold.n for fold in figures.folds) == 15
    expected = [
        auroc(predictions.labels[own], predictions.logits[own]) for own in map(predictions.folds.__eq__, (1, 2, 3))
    ]
    assert [fold.auroc.value for fold in figures.folds] == pytest.approx(expected)
    spread = {each.key: each for each in figures.spread}["auroc"]
    assert spread.mean == pytest.approx(statistics.fmean(expected))
    assert spread.sd == pytest.approx(statistics.stdev(expected))
    assert (spread.least, spread.most) == (min(expected), max(expected))
    assert figures.ranking.auroc.value == pytest.approx(auroc(predictions.labels, predictions.logits))
    assert result.intervals.groups == 8


def test_what_is_written(folds: Path) -> None:
    result = evaluate(config(folds))
    content = read_json(folds)
    assert (content["split"], content["selected_on_this_data"], content["run"]["epoch"]) == ("val", True, None)
    for fold, identity in enumerate(content["run"]["folds"], start=1):
        with (folds / f"fold-{fold}" / BEST).open("rb") as file:
            assert identity["sha256"] == sha256_of(file)
    assert content["notes"][0].startswith("The out-of-fold predictions of 3 folds are pooled")
    assert read_metrics(evaluated(folds)).folds == result.figures.folds
    assert not (folds / "operating.json").exists()


def test_every_key_and_column_is_documented(folds: Path) -> None:
    evaluate(config(folds))
    content = read_json(folds)
    columns = {name for name in read_csv(evaluated(folds) / PREDICTIONS)[0] if not name.startswith("class_at_")}
    names = {*content["folds"][0], *content["spread"][0], *columns}
    assert names <= documented("metrics.md")


def test_calibration_is_fitted_and_judged_on_different_patients(folds: Path) -> None:
    result = evaluate(config(folds))
    chosen = ~result.predictions.reported
    assert 0 < chosen.sum() < 15
    assert not set(result.predictions.groups[chosen]) & set(result.predictions.groups[~chosen])
    assert result.figures.calibration is not None
    assert result.figures.calibration.shift == pytest.approx(0.2)


def test_the_same_evaluation_whatever_the_batches(folds: Path) -> None:
    one, other = (evaluate(config(folds, batch_size=size)).predictions.logits for size in (2, 64))
    assert one == pytest.approx(other, abs=1e-5)


def test_a_fold_can_still_be_judged_alone(folds: Path) -> None:
    pooled = evaluate(config(folds)).figures.folds[1]
    alone = evaluate(config(folds / "fold-2")).figures
    assert (alone.n, alone.ranking.auroc.value, alone.folds) == (pooled.n, pooled.auroc.value, ())


def test_progress_reaches_the_end(folds: Path) -> None:
    calls: list[tuple[int, int]] = []
    evaluate(config(folds), lambda done, total: calls.append((done, total)))
    assert [total for _, total in calls] == [15] * 3
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1] == (15, 15)


def test_two_cross_validations_can_be_compared(folds: Path, made: Path) -> None:
    check_comparable(config(folds), config(made))


def test_the_terminal_says_what_it_is(folds: Path, run_cli: Callable[..., Any]) -> None:
    ended = run_cli("evaluate", folds, "--resamples", "100", "--device", "cpu")
    assert ended.code == 0, ended.err
    assert "15 images out of 3 folds, each by its own model" in ended.out
    assert "By fold" in ended.out
    assert "out-of-fold predictions of 3 folds" in " ".join(ended.out.split())
    assert all(len(line) <= 80 for line in ended.out.splitlines() if "/" not in line)


def mean_logits(folds: Path, dataset: Path, split: str) -> list[float]:
    """The mean over the folds' checkpoints, image by image."""
    opened = Dataset.open(dataset)
    ids = opened.rows(split)["image_id"].tolist()
    each = [plain_logits(folds / f"fold-{fold}", opened, ids) for fold in (1, 2, 3)]
    return [statistics.fmean(logits) for logits in zip(*each, strict=True)]


def test_images_that_no_fold_has_seen_are_judged_by_all(folds: Path, made: Path) -> None:
    calls: list[tuple[int, int]] = []
    result = evaluate(config(folds, split="test"), lambda done, total: calls.append((done, total)))
    table = read_csv(result.folder / PREDICTIONS)
    logits = [float(row["logit"]) for row in table]
    assert logits == pytest.approx(mean_logits(folds, made.parent / "dataset", "test"), abs=1e-5)
    assert "fold" not in table[0]
    assert "mean over the models of 3 folds" in " ".join(result.notes)
    assert (calls[0], calls[-1]) == ((3, 9), (9, 9))
    read = read_metrics(result.folder)
    assert (read.folds, read.chosen_thresholds, read.calibration, len(read.run.folds)) == ((), (), None, 3)
    assert not (folds / "operating.json").exists()


def test_another_dataset_is_judged_by_all_folds(folds: Path, tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    other = make_dataset(tmp_path / "other", mean=0.1)
    result = evaluate(config(folds, dataset=other))
    assert result.predictions.logits == pytest.approx(mean_logits(folds, other, "val"), abs=1e-5)
    assert result.selected_on_this_data is None
    assert result.overlap is not None
    assert result.figures.view_only is None
    ended = run_cli("evaluate", folds, "--dataset", other, "--resamples", "100", "--device", "cpu")
    assert f"{len(result.predictions.labels)} images of the val split, by the mean of 3 folds" in ended.out
    assert "By fold" not in ended.out


def test_what_the_folds_were_trained_on_is_for_one_fold(folds: Path) -> None:
    with pytest.raises(ConfigError, match=r"split 'train' of a cross-validation: .* for instance .*fold-1"):
        evaluate(config(folds, split="train"))


def test_a_dataset_that_moved_can_be_named(made: Path, folds: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(made.parent / "dataset", tmp_path / "moved"))
    assert evaluate(config(folds, dataset=moved)).figures.n == 15


def test_it_is_not_taken_for_one_model(folds: Path) -> None:
    with pytest.raises(RunError, match=r"run is a cross-validation: name one of its folds, for instance .*fold-1"):
        best_of(folds)


def _missing(run: Path) -> None:
    shutil.rmtree(run / "fold-2")


def _first_missing(run: Path) -> None:
    shutil.rmtree(run / "fold-1")


def _begun(run: Path) -> None:
    (run / "fold-3" / BEST).unlink()


def _unfinished(run: Path) -> None:
    write_history(run / "fold-2", [{"epoch": 1}, {"epoch": 2}])
    change(run / "fold-2", epoch=2, best_epoch=2)


def _emptied(run: Path) -> None:
    shutil.rmtree(run / "fold-1")
    (run / "fold-1").mkdir()


def _one_more(run: Path) -> None:
    shutil.copytree(run / "fold-1", run / "fold-4")


def _other_data(run: Path) -> None:
    change(run / "fold-2", dataset_identity="0" * 64)


def _other_setting(run: Path) -> None:
    settings = load_trained(run / "fold-3" / BEST).settings
    change(run / "fold-3", settings=settings | {"lr": 0.5})


def _other_weight(run: Path) -> None:
    description = read_config(run / "fold-3")
    write_config(run / "fold-3", {"config": description.config | {"pos_weight": 7.0}})


def _swapped(run: Path) -> None:
    shutil.copy(run / "fold-1" / BEST, run / "fold-2" / BEST)


def _damaged(run: Path) -> None:
    path = run / "fold-2" / BEST
    content = bytearray(path.read_bytes())
    content[content.index(load_trained(path).model["0.weight"].numpy().tobytes())] ^= 1
    path.write_bytes(content)


def _damaged_config(run: Path) -> None:
    write_config(run / "fold-2", {"config": {"folds": 3, "fold": 2, "epochs": "many"}})


def _other_normalization(run: Path) -> None:
    change(run / "fold-2", mean=0.1)


def _no_folds(run: Path) -> None:
    for fold in run.iterdir():
        write_config(fold, {"config": read_config(fold).config | {"folds": None, "fold": None}})


def _nothing(run: Path) -> None:
    shutil.rmtree(run)
    run.mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_missing, "fold 2 of 3 in .*run is missing: train with --folds 3 --resume"),
        (_first_missing, "fold 1 of 3 in .*run is missing: train"),
        (_begun, r"fold 3 of 3 in .*run is unfinished \(0 of 3 epochs\): train with --folds 3 --resume"),
        (_unfinished, r"fold 2 of 3 in .*run is unfinished \(2 of 3 epochs\): train with --folds 3 --resume"),
        (_emptied, "fold-1 is not a run"),
        (_one_more, "holds fold-4, which is none of 3 folds"),
        (_other_data, "the folds of .*run were trained with different dataset: train them alike"),
        (_other_setting, r"different lr \(None in fold-1, 0.5 in fold-3\): train them alike"),
        (_other_weight, r"different pos-weight \('auto' in fold-1, 7.0 in fold-3\): train them alike"),
        (_other_normalization, r"different mean \(0.5 in fold-1, 0.1 in fold-2\): train them alike"),
        (_swapped, "best.pt is not the checkpoint of fold 2 of 3 in .*run: put it back, or train that fold again"),
        (_damaged, "best.pt is damaged"),
        (_damaged_config, r"config.json is damaged \(\$.*\): train that fold again"),
        (_no_folds, "fold-1 is no fold of a cross-validation: train with --folds, or name the run itself"),
        (_nothing, "no checkpoint .*best.pt: run pneumo-fast train first"),
    ],
)
def test_folders_that_cannot_be_judged(folds: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(folds)
    with pytest.raises(PneumoError, match=message) as caught:
        evaluate(config(folds))
    assert "\n" not in str(caught.value)
    assert not (folds / "eval").exists()


def test_a_fold_that_lost_patience_is_finished(folds: Path) -> None:
    for fold in folds.iterdir():
        write_config(fold, {"config": read_config(fold).config | {"epochs": 50, "patience": 1}})
        change(fold, best_epoch=2)
    assert evaluate(config(folds)).figures.n == 15
