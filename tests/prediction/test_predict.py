"""Predictions against what evaluate says, and what must not be lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.dataset.pseudonyms import load_key, pseudonym
from pneumo_fast.errors import LabelError, PneumoError, PredictError, RunError
from pneumo_fast.evaluation.inference import named_datasets
from pneumo_fast.files import write_atomic
from pneumo_fast.phantoms.dicom_file import write_dicom
from pneumo_fast.phantoms.make import PhantomSet
from pneumo_fast.prediction import folder
from pneumo_fast.prediction import predict as module
from pneumo_fast.prediction.options import PredictConfig
from pneumo_fast.prediction.predict import predict
from pneumo_fast.run.checkpoint import load_trained
from pneumo_fast.run.folder import write_config
from pneumo_fast.run.layout import BEST
from pneumo_fast.run.model_input import ModelInput
from pneumo_fast.vocabulary import Dtype
from tests.support.folds import make_folds
from tests.support.untrained_run import change

pytestmark = pytest.mark.usefixtures("shared_worker")
Options = Callable[..., PredictConfig]


def table(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "predictions.csv", dtype=str, keep_default_na=False)


def evaluated(run: Path) -> pd.DataFrame:
    return pd.read_csv(next((run / "eval").glob("*/predictions.csv")), dtype={"image_id": str}).set_index("image_id")


# ---- the same as evaluate


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_the_files_of_the_validation_split_get_the_probabilities_of_evaluate(
    dtype: Dtype, make_judged: Callable[..., Path], phantoms: PhantomSet, tmp_path: Path
) -> None:
    run, out = make_judged(dtype), tmp_path / "out"
    predict(PredictConfig(inputs=(run, phantoms.images), out=out, keep_ids=True, workers=2, device="cpu"))

    expected, found = evaluated(run), table(out).set_index("image_id")
    found = found.loc[expected.index]
    assert len(expected) > 10
    for column in ("logit", "probability", "calibrated_probability"):
        assert np.abs(found[column].astype(float) - expected[column]).max() < 1e-5
    for column in ("class_at_0.5", "class_at_0.25"):
        assert (found[column].astype(int) == expected[column]).all()


def test_several_runs_are_averaged_in_logits(judged: Path, other: Path, options: Options, tmp_path: Path) -> None:
    for number, runs in enumerate([(judged,), (other,), (judged, other)]):
        predict(options(inputs=(*runs, *options().paths), out=tmp_path / f"{number}"))
    one, two, both = (table(tmp_path / f"{number}") for number in range(3))

    logits = np.array([one["logit"], two["logit"]], dtype=float)
    assert np.abs(both["logit"].astype(float) - logits.mean(0)).max() < 1e-5
    assert np.abs(both["spread"].astype(float) - logits.std(0)).max() < 1e-5
    assert logits.std(0).min() > 1e-3
    assert np.abs(both["probability"].astype(float) - 1 / (1 + np.exp(-logits.mean(0)))).max() < 1e-5
    assert "class" in one
    assert "class" not in both
    assert "spread" not in one


def test_the_class_is_that_at_the_run_s_operating_threshold(options: Options, judged: Path, tmp_path: Path) -> None:
    predict(options(thresholds=(0.3,)))
    chosen = json.loads((judged / "operating.json").read_text())["thresholds"][0]
    found, summary = table(tmp_path / "out"), json.loads((tmp_path / "out" / "predictions.json").read_text())

    for column, threshold in (("class", chosen["threshold"]), ("class_at_0.3", 0.3)):
        assert ((found["probability"].astype(float) >= threshold).astype(int) == found[column].astype(int)).all()
    assert summary["operating_point"] == chosen
    assert summary["counts"]["scored"] == 20


def test_a_checkpoint_of_an_earlier_release_asks_its_dataset(run: Path, options: Options, tmp_path: Path) -> None:
    predict(options())
    change(run, input=None)
    predict(options(inputs=(run, *options().paths), out=tmp_path / "again"))
    assert (table(tmp_path / "again")["logit"] == table(tmp_path / "out")["logit"]).all()

    write_config(run, {"config": {"datasets": ["/gone"]}})
    with pytest.raises(RunError, match=r"does not say how files become its images, and neither does its dataset"):
        predict(options(inputs=(run, *options().paths), out=tmp_path / "third"))


def test_labels_give_the_figures_of_evaluate(options: Options, judged: Path, phantoms: PhantomSet) -> None:
    dataset = Dataset.open(named_datasets(judged)[0])
    files = tuple(phantoms.images / f"{image_id}.dcm" for image_id in dataset.rows("val")["image_id"])
    summary = predict(options(inputs=(judged, *files), labels=phantoms.labels))

    metrics = json.loads(next((judged / "eval").glob("*/metrics.json")).read_text())
    assert summary.judgement is not None
    assert summary.judgement.n == len(files)
    assert summary.judgement.ranking.auroc.value == pytest.approx(metrics["ranking"]["auroc"]["value"], abs=1e-9)
    found = [found.recall.value for found in summary.judgement.thresholds]
    assert found == pytest.approx([each["recall"]["value"] for each in metrics["thresholds"]], abs=1e-9)
    at, point = summary.judgement.operating_point, summary.model.operating_point
    assert at is not None
    assert point is not None
    assert (at.name, at.threshold, at.confusion.tp + at.confusion.fp) == (
        point.name, point.threshold, summary.counts.positives["class"],
    )  # fmt: skip


def test_ids_are_pseudonyms_unless_told_otherwise(
    options: Options, some: Path, tmp_path: Path, phantoms: PhantomSet
) -> None:
    summary = predict(options(keep_ids=False, labels=phantoms.labels))
    found, key = table(tmp_path / "out"), load_key()
    names = sorted(path.name for path in some.iterdir())
    assert list(found["image_id"]) == [pseudonym(key, "image", name.removesuffix(".dcm")) for name in names]
    assert list(found["path"]) == [pseudonym(key, "path", name) for name in names]
    assert summary.judgement is not None
    assert summary.judgement.n == 20


# ---- what else lies in a folder


def plant(folder: Path, name: str, **attributes: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    write_dicom(folder / name, pixels, **attributes)


@pytest.mark.parametrize("keep_ids", [False, True])
def test_files_of_one_name_in_two_folders_can_be_told_apart(
    keep_ids: bool, options: Options, some: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(some.iterdir())
    for name, image in {"pa/IM1.dcm": files[0], "pa/IM2.dcm": files[1], "pb/IM1.dcm": files[2]}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(image, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    predict(options(inputs=(options().runs[0], Path("pa"), Path("pb")), keep_ids=keep_ids))
    key = load_key()
    named = ["pa/IM1.dcm", "pa/IM2.dcm" if keep_ids else "IM2.dcm", "pb/IM1.dcm"]
    assert table(tmp_path / "out")["path"].tolist() == [
        name if keep_ids else pseudonym(key, "path", name) for name in named
    ]


def test_a_mixed_folder(options: Options, some: Path, tmp_path: Path) -> None:
    (some / "deep" / "er").mkdir(parents=True)
    plant(some / "deep", "ct", Modality="CT")
    plant(some / "deep" / "er", "lateral", ViewPosition="LL")
    plant(some, "hand", BodyPartExamined="HAND")
    plant(some, "unknown", ViewPosition="", PatientAge="119Y", BurnedInAnnotation="YES")
    (some / "notes.txt").write_text("no DICOM")
    (some / ".hidden").write_text("not looked at")
    summary = predict(options())

    found = table(tmp_path / "out").set_index("image_id")
    assert len(found) == 25
    expected = {"ct": "other_modality", "lateral": "other_view", "hand": "other_body_part", "notes": "not_dicom"}
    assert found.loc[list(expected), "reject"].to_dict() == expected
    assert (found.loc[list(expected), ["logit", "probability", "class"]] == "").all(axis=None)
    warned = str(found.loc["unknown", "warnings"]).split()
    assert {"view=unknown", "age=119", "burned_in=YES"} <= set(warned)
    assert dict(summary.counts.rejects) == dict.fromkeys(expected.values(), 1)
    assert summary.counts.scored == 21


def test_what_is_asked_for_is_scored_with_a_warning_or_refused(options: Options, some: Path, tmp_path: Path) -> None:
    plant(some, "lateral", ViewPosition="LL")
    predict(options(views=("PA", "AP", "LL")))
    predict(options(views=("PA", "AP", "LL"), refuse=("view",), out=tmp_path / "strict"))

    scored, refused = (table(tmp_path / name).set_index("image_id").loc["lateral"] for name in ("out", "strict"))
    assert "view=LL" in scored["warnings"].split()
    assert scored["logit"]
    assert refused["reject"] == "refused"
    assert not refused["logit"]
    assert "view=LL" in refused["warnings"].split()


def test_a_csv_names_files_that_need_not_be_there(options: Options, some: Path, judged: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in some.iterdir())[:3]
    (some / "list.csv").write_text("n;file\n" + "".join(f"1;{name}\n" for name in [*names, "gone.dcm", names[0]]))
    summary = predict(options(inputs=(judged, some / "list.csv", some / names[1]), path_column="file"))

    found = table(tmp_path / "out")
    assert list(found["path"]) == [str(some / name) for name in sorted([*names, "gone.dcm"])]
    assert dict(summary.counts.rejects) == {"not_readable": 1}
    assert "2 paths named a file again" in summary.notes[0]


def test_overlays_are_drawn_of_what_is_scored(
    options: Options, some: Path, tmp_path: Path, judged: Path, other: Path
) -> None:
    (some / "0notes.txt").write_text("no DICOM")
    predict(options(explain=True, inputs=(judged, other, *sorted(some.iterdir())[:4])))
    found = table(tmp_path / "out")
    drawn = sorted(path.name for path in (tmp_path / "out" / "explain").iterdir())
    assert drawn == [name for name in found["overlay"] if name]
    assert len(drawn) == 3
    assert found.set_index("image_id").loc["0notes", "overlay"] == ""
    assert all((tmp_path / "out" / "explain" / name).read_bytes().startswith(b"\x89PNG") for name in drawn)


# ---- interrupted, resumed, replaced


def test_what_was_interrupted_is_resumed_to_the_same_bytes(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(options(out=tmp_path / "whole"))
    write, written = write_atomic, []

    def stop_at_the_third(path: Path, *rest: Any, **named: Any) -> None:
        written.append(path)
        if len(written) == 3:
            raise KeyboardInterrupt
        write(path, *rest, **named)

    monkeypatch.setattr(module, "write_atomic", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        predict(options())
    monkeypatch.undo()
    assert not (tmp_path / "out" / "predictions.csv").exists()
    with pytest.raises(PredictError, match="holds unfinished predictions"):
        predict(options())
    with pytest.raises(PredictError, match="begun with other arguments; what differs: thresholds"):
        predict(options(resume=True, thresholds=(0.1,)))

    summary = predict(options(resume=True))
    assert summary.now == 20 - 2 * 8
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == (tmp_path / "whole" / "predictions.csv").read_bytes()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["predictions.csv", "predictions.json"]


@pytest.mark.parametrize("left", [b"", b"image_id,path\n", 0.5, b"\xff\xfe\n", b"\0\n" * 9])
def test_a_part_that_a_power_cut_has_damaged_is_done_again(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: bytes | float
) -> None:
    predict(options(out=tmp_path / "whole"))

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_join", fail)
    with pytest.raises(KeyboardInterrupt):
        predict(options())
    monkeypatch.undo()
    part = next((tmp_path / "out" / ".predict").glob("part-*1.csv"))
    whole = part.read_bytes()
    part.write_bytes(left if isinstance(left, bytes) else whole[: int(left * len(whole))])

    assert predict(options(resume=True)).now == 8
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == (tmp_path / "whole" / "predictions.csv").read_bytes()


def test_too_many_rejects_end_it_and_more_allowed_resume_it(options: Options, some: Path) -> None:
    for number in range(3):
        (some / f"0{number}.txt").write_text("no DICOM")
    with pytest.raises(PredictError, match=r"3 of the first 8 files were rejected, 2 are allowed \(not_dicom 3\)"):
        predict(options(max_rejects=2))
    assert predict(options(max_rejects=3, resume=True)).counts.faults == 3


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (["list.txt"], 1, "no file could be scored: "),
        (["list.txt", "missing.csv"], 1, "a list of paths has to end in .csv"),
        (["list.txt", "ct.dcm"], 1, "no file could be scored: "),
        (["list.txt", "image.dcm"], 0, ""),
        (["ct.dcm"], 0, ""),  # skipped, as another object than is wanted
    ],
)
def test_scoring_none_of_the_named_files_is_a_failure(
    given: list[str], code: int, said: str, judged: Path, phantoms: PhantomSet, tmp_path: Path, run_cli: Any
) -> None:
    image = min(phantoms.images.iterdir())
    (tmp_path / "list.txt").write_text(f"{image}\n")
    (tmp_path / "missing.csv").write_text("path\nnothing.dcm\n")
    (tmp_path / "image.dcm").symlink_to(image)
    write_dicom(tmp_path / "ct.dcm", np.zeros((64, 64), dtype=np.uint8), Modality="CT")
    out = tmp_path / "out"
    ended = run_cli(
        "predict", judged, *(tmp_path / name for name in given), "-o", out, "--json", "--device", "cpu", "--keep-ids"
    )
    assert ended.code == code
    assert said in " ".join(ended.err.split())
    assert ("no file could be scored" in ended.err) == bool(code)
    assert json.loads(ended.out)["counts"]["files"] == len(table(out)) == len(given)


def test_only_its_own_files_are_replaced(options: Options, tmp_path: Path) -> None:
    predict(options(explain=True, inputs=(options().runs[0], next(options().paths[0].iterdir()))))
    with pytest.raises(PredictError, match="holds predictions: give --overwrite"):
        predict(options())
    (tmp_path / "out" / "explain" / "notes.png").write_text("mine")
    predict(options(overwrite=True))
    assert [path.name for path in (tmp_path / "out" / "explain").iterdir()] == ["notes.png"]
    assert len(table(tmp_path / "out")) == 20

    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "predictions.csv").write_text("mine")
    with pytest.raises(PredictError, match="holds files other than predictions"):
        predict(options(out=tmp_path / "theirs", overwrite=True))
    assert (tmp_path / "theirs" / "predictions.csv").read_text() == "mine"


@pytest.mark.parametrize("again", ["resume", "overwrite"])
def test_what_was_killed_while_it_replaced_is_begun_by_us(
    again: str, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The former table is half removed, and nothing says yet what is to take its place."""
    predict(options())
    whole = (tmp_path / "out" / "predictions.csv").read_bytes()
    (tmp_path / "out" / "notes.txt").write_text("mine")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folder, "write_atomic", fail)
    with pytest.raises(KeyboardInterrupt):
        predict(options(overwrite=True))
    monkeypatch.undo()
    with pytest.raises(PredictError, match="holds unfinished predictions"):
        predict(options())
    assert predict(options(**{again: True})).now == 20
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == whole
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


# ---- what cannot work


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"paths": ["missing"]}, PredictError, "missing is not there"),
        ({"paths": ["empty"]}, PredictError, "no file is in .*empty"),
        ({"paths": ["list.csv"], "path_column": "nothing"}, LabelError, "has no column 'nothing'"),
        ({"labels": Path("missing.csv")}, LabelError, "missing.csv does not exist: name a CSV file"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    values: dict[str, Any], error: type[PneumoError], message: str, options: Options, judged: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("path\nx\n")
    if paths := values.pop("paths", None):
        values["inputs"] = (judged, *(tmp_path / path for path in paths))
    with pytest.raises(error, match=message) as raised:
        predict(options(**values))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_runs_whose_images_were_made_in_another_way_are_not_averaged(
    judged: Path, make_judged: Callable[..., Path], options: Options
) -> None:
    with pytest.raises(RunError, match=r"made in another way"):
        predict(options(inputs=(judged, make_judged("uint8"), *options().paths)))


def test_a_run_that_gives_no_number_is_refused(run: Path, options: Options) -> None:
    state = load_trained(run / BEST).model
    state["fc.bias"][:] = float("nan")
    change(run, model=state)
    with pytest.raises(PredictError, match="the logit of an image is no number: train again"):
        predict(options(inputs=(run, *options().paths)))


def test_a_folder_that_may_not_be_written(options: Options, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PredictError, match=r"cannot be written \(Not a directory\)"):
        predict(options(out=tmp_path / "file" / "out"))


def test_a_cross_validation_is_the_mean_of_its_folds(options: Options, judged: Path, tmp_path: Path) -> None:
    dataset = named_datasets(judged)[0]
    folds = make_folds(tmp_path / "cv", dataset)
    for fold in (1, 2, 3):
        change(folds / f"fold-{fold}", input=ModelInput.of(Dataset.open(dataset)))
    predict(options(inputs=(folds, *options().paths), out=tmp_path / "cv-out"))
    runs = tuple(folds / f"fold-{fold}" for fold in (1, 2, 3))
    predict(options(inputs=(*runs, *options().paths), out=tmp_path / "runs-out"))
    assert (table(tmp_path / "cv-out")["logit"] == table(tmp_path / "runs-out")["logit"]).all()

    shutil.rmtree(folds / "fold-2")
    with pytest.raises(RunError, match=r"fold 2 of 3 in .* is missing: train with --folds 3 --resume"):
        predict(options(inputs=(folds, *options().paths), out=tmp_path / "third"))
