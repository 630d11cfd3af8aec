"""DICOMweb over TLS: a server has to be who the credentials say, and we show it who we are."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from pneumo_fast.errors import PacsError
from pneumo_fast.pacs.credentials import Credentials
from pneumo_fast.pacs.dicomweb import connected
from tests.support.dicomweb_stub import Answer, Asked, as_json, match, stub_server


class Pair(NamedTuple):
    """A certificate signed by its own key, both PEM."""

    certificate: Path
    key: Path


def make_pair(folder: Path, name: str, address: str = "127.0.0.1") -> Pair:
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    command += ["-addext", f"subjectAltName=IP:{address}", "-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    command += ["-out", str(pair.certificate), "-keyout", str(pair.key)]
    subprocess.run(command, check=True, capture_output=True)
    return pair


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    if shutil.which("openssl") is None:
        pytest.skip("the certificates are made by openssl, which is not installed")
    folder = tmp_path_factory.mktemp("tls")
    made = {name: make_pair(folder, name) for name in ("server", "client", "stranger")}
    return made | {"elsewhere": make_pair(folder, "elsewhere", "127.0.0.9")}


def _answer(asked: Asked) -> Answer:
    return as_json([] if asked.offset else [match("1.2", "1.2.3", "1.2.3.4")])


def ask(server: Pair, credentials: Credentials, client: Pair | None = None) -> int:
    """Matches found at a server of this certificate, which wants that of the client where one is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*server)
    if client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client.certificate)
    with stub_server(_answer, context) as stub, connected(stub.url, credentials, 5.0) as pacs:
        return len(pacs.search({}))


@pytest.mark.parametrize("ca", [None, "stranger"])
def test_a_server_that_nobody_vouches_for_is_refused(ca: str | None, pairs: dict[str, Pair]) -> None:
    with pytest.raises(PacsError, match="signed by no authority known here: name it as ca in the credentials"):
        ask(pairs["server"], Credentials(ca=pairs[ca].certificate if ca else None))


def test_a_server_that_the_ca_vouches_for_is_asked(pairs: dict[str, Pair]) -> None:
    assert ask(pairs["server"], Credentials(ca=pairs["server"].certificate)) == 1


def test_a_certificate_of_another_address_is_not_said_to_be_unknown(pairs: dict[str, Pair]) -> None:
    with pytest.raises(PacsError, match="the server's certificate names another address: give the one that it names"):
        ask(pairs["elsewhere"], Credentials(ca=pairs["elsewhere"].certificate))


def test_a_server_that_wants_our_certificate_gets_it(pairs: dict[str, Pair]) -> None:
    ours, ca = pairs["client"], pairs["server"].certificate
    both = ours.key.with_name("both.pem")
    both.write_bytes(ours.certificate.read_bytes() + ours.key.read_bytes())
    apart = Credentials(ca=ca, certificate=ours.certificate, key=ours.key)
    for known in (apart, Credentials(ca=ca, certificate=both)):
        assert ask(pairs["server"], known, client=ours) == 1


@pytest.mark.parametrize(
    ("certificate", "key", "what"),
    [
        (None, None, "it wants a certificate of ours"),
        ("stranger", "stranger", "it wants a certificate of ours"),
        ("client", "stranger", r"a file of the credentials \(ca, certificate, key\) is not what it should be"),
        ("client", None, r"a file of the credentials \(ca, certificate, key\) is not what it should be"),
    ],
)
def test_another_certificate_of_ours_is_one_line(
    certificate: str | None, key: str | None, what: str, pairs: dict[str, Pair]
) -> None:
    known = Credentials(
        ca=pairs["server"].certificate,
        certificate=pairs[certificate].certificate if certificate else None,
        key=pairs[key].key if key else None,
    )
    with pytest.raises(PacsError, match=what):
        ask(pairs["server"], known, client=pairs["client"])


def test_a_ca_without_a_certificate_is_named(pairs: dict[str, Pair]) -> None:
    with pytest.raises(PacsError, match=r"a file of the credentials \(ca, certificate, key\) is not what it should be"):
        ask(pairs["server"], Credentials(ca=pairs["server"].key))
