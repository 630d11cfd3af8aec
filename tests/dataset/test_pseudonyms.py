"""Pseudonyms are RFC 2104's HMAC, made with a key of its owner alone."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo_fast.dataset.pseudonyms import KEY_BYTES, default_key_path, load_key, pseudonym
from pneumo_fast.errors import ConfigError

KEY = bytes(range(KEY_BYTES))


def hmac_sha256(key: bytes, message: bytes) -> str:
    """RFC 2104, written out."""
    block = key.ljust(64, b"\0")
    inner, outer = (bytes(byte ^ pad for byte in block) for pad in (0x36, 0x5C))
    return hashlib.sha256(outer + hashlib.sha256(inner + message).digest()).hexdigest()


@given(st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES), st.text(st.characters(codec="utf-8"), min_size=1))
def test_pseudonym_is_keyed(key: bytes, text: str) -> None:
    assert pseudonym(key, "group", text) == hmac_sha256(key, b"group\0" + text.encode())[:16]


def test_pseudonyms_of_kinds_keys_and_texts_differ() -> None:
    other = KEY[::-1]
    made = [pseudonym(KEY, "group", "a"), pseudonym(KEY, "image", "a"), pseudonym(other, "group", "a")]
    assert len({*made, pseudonym(KEY, "group", "b")}) == 4


def test_unknown_stays_unknown() -> None:
    assert pseudonym(KEY, "group", "") == ""


def test_text_that_is_no_unicode_has_a_pseudonym() -> None:
    assert len(pseudonym(KEY, "path", os.fsdecode(b"\xff"))) == 16


def test_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "hash.key"
    key = load_key(path, make=True)
    assert len(key) == KEY_BYTES
    assert load_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["hash.key"]
    assert load_key(tmp_path / "other.key", make=True) != key


@pytest.mark.parametrize(("variable", "below"), [("XDG_CONFIG_HOME", ""), ("HOME", ".config")])
def test_key_lies_in_the_configuration_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, below: str
) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    assert default_key_path() == tmp_path / below / "pneumo-fast" / "hash.key"
    assert load_key(make=True) == bytes.fromhex(default_key_path().read_text())


def test_a_user_without_a_home_is_told_to_name_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("XDG_CONFIG_HOME", "HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # of nobody
    with pytest.raises(ConfigError, match=r"HOME is not set: name a file with --hash-key"):
        load_key(make=True)


def test_two_processes_of_the_same_number_end_with_one_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in two containers that share a home: one makes the key while the other is about to."""
    path, link, keys = tmp_path / "hash.key", os.link, []

    def link_later(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        keys.append(load_key(path, make=True))
        link(source, target)

    monkeypatch.setattr(os, "link", link_later)
    keys.append(load_key(path, make=True))
    assert keys == [bytes.fromhex(path.read_text())] * 2
    assert [p.name for p in tmp_path.iterdir()] == ["hash.key"]


def test_the_first_of_two_processes_makes_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "hash.key"

    def link_too_late(source: Path, target: Path) -> None:
        target.write_text(KEY.hex())
        target.chmod(0o600)
        raise FileExistsError(source)

    monkeypatch.setattr(os, "link", link_too_late)
    assert load_key(path, make=True) == KEY
    assert [p.name for p in tmp_path.iterdir()] == ["hash.key"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (KEY.hex()[2:], "has 31 bytes, 32 expected"),
        ("", "has 0 bytes, 32 expected"),
        ("not hexadecimal", "not hexadecimal text"),
        (b"\xff\xfe", "not hexadecimal text"),
        (None, "Is a directory"),
    ],
)
def test_bad_keys_are_refused(tmp_path: Path, content: str | bytes | None, words: str) -> None:
    path = tmp_path / "hash.key"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=f"hash key {path} .*{words}.*: name another with --hash-key"):
        load_key(path)


def test_key_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"hash key .* cannot be used"):
        load_key(tmp_path / "file" / "hash.key", make=True)
