"""An address and a query are taken as they are, or refused without a word of what may be secret."""

from __future__ import annotations

import pytest

from pneumo_fast.errors import ConfigError
from pneumo_fast.pacs.address import check_address, is_loopback, parse_query


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("pacs/dicom-web", "an address as http://HOST:PORT/PATH"),
        ("ftp://pacs", "an address as http://HOST:PORT/PATH"),
        ("http://:80/x", "an address as http://HOST:PORT/PATH"),
        ("http://pacs:99999/", "not an address"),
        ("http://[::1/", "not an address"),
        ("http://pacs/ x", "an address as http://HOST:PORT/PATH"),
        ("http://pacs/web?PatientID=zxqsecret", "has a [?] or a #"),
        ("https://user:zxqsecret@pacs/web", "leave them out"),
        ("https://zxqsecret@pacs/web", "leave them out"),
        ("user:zxqsecret@pacs", "leave them out"),
    ],
)
def test_other_addresses_are_refused(url: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as error:
        check_address(url)
    assert "zxqsecret" not in str(error.value)


def test_loopback_is_known() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.8.8.8", "::1")))
    assert not any(map(is_loopback, ("pacs", "10.0.0.1", "localhost.example", "127.0.0.1.example", "")))


def test_a_query_is_keywords_and_values() -> None:
    given = ["StudyDate=20260101-20260131", "PatientName=A=B*", "00080060=DX"]
    assert parse_query(given) == {"StudyDate": "20260101-20260131", "PatientName": "A=B*", "00080060": "DX"}


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["Zxqsecret"], "query 1: KEYWORD=VALUE expected"),
        (["Modality=DX", "=zxqsecret"], "query 2: KEYWORD=VALUE expected"),
        (["PatientID="], "query 1: KEYWORD=VALUE expected"),
        (["Patient ID=zxqsecret"], "query 1: KEYWORD=VALUE expected"),
        (["PatientNam=zxqsecret"], "query PatientNam: no keyword of DICOM"),
        (["PatientID=zxqsecret", "PatientID=zxqsecret"], "query PatientID is given more than once"),
    ],
)
def test_other_queries_are_refused(texts: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as error:
        parse_query(texts)
    assert "zxqsecret" not in str(error.value).lower()
