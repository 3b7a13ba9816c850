"""TLS with a private authority made here: trusted only where the user's environment names it."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from mirrors import Mirror, redirect_to, whole

from ascseg_cli.errors import DownloadError
from ascseg_cli.weights import store
from ascseg_cli.weights.download import fetch
from ascseg_cli.weights.manifest import Entry
from ascseg_cli.weights.transfer import CA_VARIABLES, Limits

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl, which makes the certificates, is missing"
)
HASTY = Limits(timeout=5, attempts=1)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem, and key.pem and server.pem for 127.0.0.1 signed by it."""
    folder = tmp_path_factory.mktemp("tls")
    (folder / "san.txt").write_text("subjectAltName=IP:127.0.0.1\n")
    for command in (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=private -keyout ca.key -out ca.pem"
        " -addext keyUsage=critical,keyCertSign -addext basicConstraints=critical,CA:TRUE",
        "req -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -keyout key.pem -out server.csr",
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san.txt"
        " -out server.pem",
    ):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def secure(mirror: Callable[..., Mirror], certificates: Path) -> Mirror:
    """A good mirror behind TLS, whose authority nobody knows."""
    return over_tls(mirror(whole), certificates)


def over_tls(server: Mirror, certificates: Path) -> Mirror:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "key.pem")
    server.server.socket = context.wrap_socket(server.server.socket, server_side=True)
    server.server.handle_error = lambda *_: None  # type: ignore[method-assign]
    return server


def https(server: Mirror) -> str:
    return server.url.replace("http:", "https:")


def test_an_unknown_authority_is_refused(
    secure: Mirror, entry_for: Callable[..., Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in CA_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DownloadError, match="TLS certificate that isn't trusted") as caught:
        fetch(entry_for(https(secure)), limits=HASTY)
    assert "SSL_CERT_FILE" in caught.value.hint
    assert secure.requests == []


@pytest.mark.parametrize("variable", CA_VARIABLES)
def test_a_private_authority_is_trusted_where_it_is_named(
    variable: str,
    secure: Mirror,
    certificates: Path,
    entry_for: Callable[..., Entry],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in CA_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(certificates / "ca.pem"))
    entry = entry_for(https(secure))
    assert store.is_whole(fetch(entry, limits=HASTY), entry)


def test_a_bundle_that_is_not_there_is_one_line(
    secure: Mirror, entry_for: Callable[..., Entry], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for bundle in (tmp_path / "missing.pem", tmp_path / "empty.pem"):
        monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
        with pytest.raises(DownloadError, match=r"SSL_CERT_FILE names .*\.pem, no readable certificate bundle"):
            fetch(entry_for(https(secure)), limits=HASTY)


def test_a_redirect_from_tls_to_a_plain_connection_is_not_followed(
    mirror: Callable[..., Mirror],
    certificates: Path,
    entry_for: Callable[..., Entry],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = mirror(whole)
    server = over_tls(mirror(redirect_to(plain.url)), certificates)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))
    with pytest.raises(DownloadError, match="redirects to a http: address"):
        fetch(entry_for(https(server)), limits=HASTY)
    assert plain.requests == []
