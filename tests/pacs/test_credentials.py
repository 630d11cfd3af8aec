"""Who we are to a server is read from a file or the environment, and told to nobody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pneumo_fast.errors import ConfigError
from pneumo_fast.pacs.credentials import Credentials, load_credentials

SECRET = "zxqsecret"  # noqa: S105  # of nobody


def write(path: Path, content: Any, mode: int = 0o600) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(mode)
    return path


def test_a_file_says_who_we_are(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("")
    path = write(tmp_path / "pacs.json", {"user": "a", "password": SECRET, "ca": "ca.pem"})
    found = load_credentials(path, {"PNEUMO_FAST_DICOMWEB_TOKEN": "other"})
    assert found == Credentials(user="a", password=SECRET, ca=tmp_path / "ca.pem")
    assert found.secret
    assert SECRET not in repr(found)


def test_the_environment_says_it_where_no_file_does() -> None:
    known = {"PNEUMO_FAST_DICOMWEB_TOKEN": SECRET, "PNEUMO_FAST_DICOMWEB_ALLOW_HTTP": "1", "HOME": "/"}
    found = load_credentials(None, known)
    assert found == Credentials(token=SECRET, allow_http=True)
    assert SECRET not in repr(found)
    assert not load_credentials(None, {}).secret


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "no JSON"),
        ([], "a JSON object expected"),
        ({"usr": SECRET}, "a name in it is unknown; known are user, password, token"),
        ({"token": 5}, "token: text expected"),
        ({"allow_http": "yes"}, "allow_http: true or false"),
        ({"user": SECRET}, "user and password belong together"),
        ({"password": SECRET}, "user and password belong together"),
        ({"user": "a", "password": SECRET, "token": SECRET}, "user and token exclude each other"),
        ({"token": f"{SECRET}\r\nX: y"}, "token: printable ASCII"),
        ({"token": ""}, "token: printable ASCII"),
        ({"key": "a.pem"}, "a key is given without its certificate"),
        ({"certificate": "a.pem"}, "certificate: .*a.pem cannot be read"),
        ("[" * 10_000, "no JSON"),
    ],
)
def test_what_cannot_be_is_refused_and_not_quoted(content: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told) as error:
        load_credentials(write(tmp_path / "pacs.json", content))
    assert SECRET not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"can be read by other users \(mode 0640\): run chmod 600"):
        load_credentials(write(tmp_path / "pacs.json", {"token": SECRET}, 0o640))
    with pytest.raises(ConfigError, match=r"cannot be used \(No such file"):
        load_credentials(tmp_path / "none.json")
