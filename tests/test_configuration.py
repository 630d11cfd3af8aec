"""An option is one annotated field: its check, its marks, and what the documents say of it."""

from __future__ import annotations

import math
import runpy
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from pneumo_fast.configuration import Option, check, options_of, settings
from pneumo_fast.conversion.options import ConvertConfig
from pneumo_fast.errors import ConfigError
from pneumo_fast.serving.options import ServeConfig
from pneumo_fast.training.options import TrainConfig
from tests.support.repository import ROOT

SCRIPT = runpy.run_path(str(ROOT / "scripts" / "options_table.py"))


@dataclass(frozen=True, kw_only=True)
class Some:
    """One option of each kind."""

    count: Annotated[int | None, Option("Things.", least=1, most=9, unit="things")] = None
    rates: Annotated[tuple[float, ...], Option("Rates.", name="rate", above=0, below=math.inf)] = ()
    mode: Annotated[Literal["slow", "fast"] | None, Option("Speed.", decides=False)] = None
    size: Annotated[int | Literal["auto"], Option("Size.", least=2, refusal="{field} of {value} < {least}")] = "auto"
    folder: Annotated[Path | None, Option("Where.", decides=False)] = None

    def __post_init__(self) -> None:
        check(self)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "count 0: 1 to 9 things expected"),
        ({"count": 10}, "count 10: 1 to 9 things expected"),
        ({"rates": (1.0, 0.0)}, "rate 0.0: a number above 0 expected"),
        ({"rates": (math.inf,)}, "rate inf: a number above 0 expected"),
        ({"rates": (math.nan,)}, "rate nan: a number above 0 expected"),
        ({"mode": "medium"}, "mode 'medium' is unknown: use one of slow, fast"),
        ({"size": 1}, "size of 1 < 2"),
        ({"size": "all"}, "size 'all' of <class 'str'>: int or auto expected"),
        ({"count": np.int64(1)}, f"count {np.int64(1)!r} of <class 'numpy.int64'>: int expected"),
        ({"count": True}, "count True of <class 'bool'>: int expected"),
        ({"rates": (np.float64(1),)}, f"rate {np.float64(1)!r} of <class 'numpy.float64'>: float expected"),
        ({"rates": 1.0}, "rate 1.0 of <class 'float'>: tuple of float expected"),
        ({"rates": "12"}, "rate '12' of <class 'str'>: tuple of float expected"),
        ({"folder": "run"}, "folder 'run' of <class 'str'>: Path expected"),
    ],
)
def test_a_value_that_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Some(**values)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "values",
    [
        {}, {"count": 1}, {"count": 9}, {"rates": (0.1,)}, {"rates": [1]}, {"mode": "fast"}, {"size": 2},
        {"folder": Path("run")},
    ],
)  # fmt: skip
def test_a_value_that_is_allowed(values: dict[str, Any]) -> None:
    Some(**values)


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({}, ""),
        ({"least": 1}, "at least 1"),
        ({"least": 0, "below": 1}, "a number from 0 to below 1"),
        ({"above": 0, "below": 1}, "a number between 0 and 1"),
        ({"above": 0, "most": 1}, "a number above 0, at most 1,"),
        ({"above": 0, "unit": "seconds"}, "a number of seconds above 0"),
        ({"least": 0, "most": 1, "range": "a share from 0 to 1"}, "a share from 0 to 1"),
    ],
)
def test_a_range_in_words(bounds: dict[str, Any], words: str) -> None:
    assert Option("", **bounds).describe_range() == words


def test_a_field_without_an_option_is_noticed() -> None:
    @dataclass
    class Forgotten:
        size: int = 1

    with pytest.raises(TypeError, match=r"Forgotten\.size has no Option"):
        options_of(Forgotten)


@pytest.mark.parametrize("config", SCRIPT["COMMANDS"].values())
def test_every_field_is_an_option(config: type[Any]) -> None:
    options = options_of(config)
    assert list(options) == [field.name for field in fields(config)]
    assert all(field.option.help.endswith(".") for field in options.values())


def test_an_option_that_a_configuration_says_anew_takes_the_place_of_the_shared_one() -> None:
    assert options_of(ServeConfig)["hash_key"].option.more == "The UIDs of results are derived with it."
    assert options_of(ServeConfig)["hash_key"].group == "Privacy"


def test_what_decides_the_result_is_what_it_was() -> None:
    """These names are in checkpoints and datasets, and are compared with when resuming."""
    assert set(settings(TrainConfig())) == {
        "accumulate", "augment", "balance", "clip_norm", "compile", "ema", "flip", "fold", "folds", "half_size_epochs",
        "label_smoothing", "limit_images", "lr", "model", "monitor", "optimizer", "order", "patience", "schedule",
        "seed", "shares", "sync_bn", "warmup_epochs", "weight_decay", "weights", "window",
    }  # fmt: skip
    assert set(settings(ConvertConfig(images=Path("i"), labels=Path("l")))) == {
        "body_parts", "decode", "dtype", "group_column", "id_column", "ignore", "keep_ids", "label_column",
        "layout", "match", "max_pixels", "modalities", "negative", "path_column", "positive", "seed", "several",
        "shard_size", "size", "test_fraction", "ungrouped", "val_fraction", "views", "window",
    }  # fmt: skip
    assert {name for name, field in options_of(TrainConfig).items() if not field.option.repeated} == {
        "cache", "class_info", "decode", "groups", "images", "labels", "max_rejects", "out", "overwrite", "resume",
        "size", "test_fraction",
    }  # fmt: skip
    assert settings(Some()) == {"count": None, "rates": (), "size": "auto"}


def test_the_document_says_what_the_fields_say() -> None:
    assert SCRIPT["DOCUMENT"].read_text() == SCRIPT["document"](), "run scripts/options_table.py"
