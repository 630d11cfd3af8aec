"""What the loader's configuration refuses."""

from __future__ import annotations

from typing import Any

import pytest

from pneumo_fast.errors import ConfigError
from pneumo_fast.loading.options import LoadConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "shuffel"}, "order 'shuffel' is unknown: use one of sequential, shuffle, weighted, windowed"),
        ({"engine": "fuse"}, "engine 'fuse' is unknown: use one of auto, dali, fused, resident, source"),
        ({"resident_share": 7.0}, "resident-share 7.0: a share from 0 to 1 expected"),
        ({"window": 0}, "window 0: at least 1 shard expected"),
    ],
)
def test_a_value_that_cannot_work_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LoadConfig(batch_size=4, **options)
    assert str(caught.value) == message
