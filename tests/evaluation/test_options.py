"""Options of evaluate that cannot work."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from pneumo_fast.errors import ConfigError
from tests.support.untrained_run import config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"thresholds": ()}, "no threshold"),
        ({"thresholds": (0.5, 1.01)}, "threshold 1.01 is not a probability"),
        ({"thresholds": (-0.1,)}, "threshold -0.1 is not a probability"),
        ({"thresholds": (math.nan,)}, "threshold nan is not a probability"),
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
