"""The files that an evaluation writes: what is in them, whole or not at all."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo_fast.dataset.folder import Dataset
from pneumo_fast.errors import RunError
from pneumo_fast.evaluation import results as evaluation_module
from pneumo_fast.evaluation.evaluate import evaluate
from pneumo_fast.evaluation.results import Predictions, predictions_csv, to_json
from pneumo_fast.metrics.scored import sigmoid
from pneumo_fast.run.layout import FIGURES, METRICS, PREDICTIONS
from tests.support.repository import documented, keys_of
from tests.support.untrained_run import config, evaluated, leave_old_result, read_csv, read_json, results


def test_classes_and_counts_follow_from_the_file(run: Path) -> None:
    evaluate(config(run, thresholds=(0.5, 0.25, 0.9)))
    table = read_csv(evaluated(run) / PREDICTIONS)
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
    identity = Dataset.open(dataset).identity
    assert content["dataset"] == {
        "path": str(dataset), "name": dataset.name, "identity": identity, "trained_on": True,
    }  # fmt: skip
    assert content["intervals"]["groups"] == 6
    assert "optimistic" in content["notes"][0]
    assert "11 images of 6 patients" in content["notes"][1]
    assert [t["threshold"] for t in content["thresholds"]] == [0.5, 0.25]
    assert len(content["tradeoffs"]) == 1


def test_the_same_evaluation_writes_the_same_bytes(drawn_run: Path) -> None:
    def written() -> dict[str, bytes]:
        evaluate(config(drawn_run))
        return {path.name: path.read_bytes() for path in evaluated(drawn_run).iterdir()}

    first = written()
    assert set(first) == {METRICS, PREDICTIONS, *FIGURES}
    assert all(first[name].startswith(b"\x89PNG") for name in FIGURES)
    assert written() == first


@pytest.mark.parametrize("name", [PREDICTIONS, *FIGURES, METRICS])
def test_a_full_disk_leaves_no_metrics(run: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def write(path: Path, data: bytes | str) -> None:
        if path.name == name:
            raise OSError(28, "No space left on device")
        path.write_bytes(data.encode() if isinstance(data, str) else data)

    before = leave_old_result(run)
    monkeypatch.setattr(evaluation_module, "write_atomic", write)
    with pytest.raises(RunError, match=r"-val cannot be written \(No space left on device\)"):
        evaluate(config(run))
    assert results(run) == before


def test_a_file_in_the_way_of_the_folder(run: Path) -> None:
    (run / "eval").write_text("")
    with pytest.raises(RunError, match=r"-val cannot be written \((File exists|Not a directory)\)"):
        evaluate(config(run))


def test_every_key_and_column_is_documented(run: Path) -> None:
    evaluate(config(run, thresholds=(0.5,)))
    columns = set(read_csv(evaluated(run) / PREDICTIONS)[0])
    assert keys_of(read_json(run)) | columns <= documented("metrics.md")
