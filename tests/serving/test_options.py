"""Options of ``serve`` that cannot work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pneumo_fast.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"runs": ()}, "no run folder is given"),
        ({"runs": (Path("nothing"),)}, "nothing is not a run folder"),
        ({"allow": ()}, "no caller is allowed: give AE titles with --allow"),
        ({"allow": ("A", "MUCH_TOO_LONG_A_TITLE")}, "allow 'MUCH_TOO_LONG_A_TITLE': an AE title of 1 to 16"),
        ({"aet": " "}, "aet ' ': an AE title of 1 to 16"),
        ({"dicom_out": None}, "results would go nowhere: give --forward AET@HOST:PORT, --dicom-out FOLDER or both"),
        ({"forward": "PACS"}, "node 'PACS': AET@HOST:PORT expected"),
        ({"port": 65536}, "port 65536: 0 to 65535 expected"),
        ({"max_message_mb": 1000}, "max-message-mb 1000"),
        ({"network_timeout_s": 1e300}, "network-timeout-s 1e\\+300: a number of seconds above 0, at most 86400,"),
        ({"max_waiting_gb": 1e300}, "max-waiting-gb 1e\\+300: a number of gigabytes above 0, at most 1000000,"),
        ({"max_waiting": 0}, "max-waiting 0: at least 1 expected"),
        ({"threshold": 1.5}, "threshold 1.5 is not a probability"),
    ],
)
def test_what_cannot_work_is_refused(
    make_options: Callable[..., Any], tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_options(tmp_path, **values)
