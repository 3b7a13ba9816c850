"""One attempt to get a file's bytes from one mirror: trusts nothing that the server says.

Python's own client serves: it reads the system's certificates and proxies, and gives bytes as they arrive,
so that a server which drips can be told from one that works.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from ascseg_cli import __version__
from ascseg_cli.errors import DownloadError
from ascseg_cli.weights.naming import printable

PIECE = 2**16
CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True)
class Limits:
    """Patience with a mirror; seconds and bytes a second."""

    timeout: float = 30.0
    slow_window: float = 30.0
    slow_rate: float = 1024.0
    attempts: int = 3
    pause: float = 1.0


class MirrorError(Exception):
    """Why a mirror didn't deliver.

    again    the same mirror may succeed if asked once more
    restart  the bytes that are there can't be right, or can't be continued
    """

    def __init__(self, reason: str, *, again: bool = False, restart: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.again = again
        self.restart = restart


class DiskError(Exception):
    """The file couldn't be written: no fault of the mirror's."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows at most five redirects, only to the web, and never from TLS to a plain connection."""

    max_redirections = 5
    max_repeats = 2

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        scheme = urlsplit(newurl).scheme
        if scheme not in ("https", "http") or (scheme == "http" and req.full_url.startswith("https:")):
            raise MirrorError(f"redirects to a {printable(scheme)}: address, which isn't followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        fp.close()  # else urllib reads the whole body, of whatever length, before it follows
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def opener() -> urllib.request.OpenerDirector:
    """A client for http and https alone, with the system's proxies; certificates are always checked."""
    client = urllib.request.OpenerDirector()
    client.addheaders = [("User-Agent", f"ascseg/{__version__}"), ("Accept-Encoding", "identity")]
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=_tls()),
        _Redirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        client.add_handler(handler)
    return client


def _tls() -> ssl.SSLContext:
    """The system's certificates and certifi's, or only those that the user names in the environment."""
    for variable in CA_VARIABLES:
        if bundle := os.environ.get(variable):
            try:
                folder = Path(bundle).is_dir()
                return ssl.create_default_context(
                    cafile=None if folder else bundle, capath=bundle if folder else None
                )
            except OSError as error:
                raise DownloadError(
                    f"{variable} names {bundle}, no readable certificate bundle ({error.strerror or error})",
                    f"correct or unset {variable}",
                ) from error
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def transfer(
    client: urllib.request.OpenerDirector,
    url: str,
    file: IO[bytes],
    have: int,
    size: int,
    limits: Limits,
    progress: Callable[[int], None],
) -> None:
    """Bring `file` from its first `have` bytes to exactly `size`, from zero if the mirror can't resume.

    progress is told the bytes that are there. Raises MirrorError or DiskError; bytes once written stay.
    """
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with client.open(request, timeout=limits.timeout) as response:
            start = _accepted(response, have, size)
            _at(file, start)
            _receive(response, file, start, size, limits, progress)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _mirror_error(error, limits) from error


def _accepted(response: Any, have: int, size: int) -> int:
    """Where the answer's bytes begin; an answer that can't be our file is refused before it is read."""
    start = 0
    if response.status == 206:
        span = re.fullmatch(
            r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15}|\*)", response.headers.get("Content-Range", "").strip()
        )
        if not span or int(span[1]) != have or span[3] not in (str(size), "*"):
            raise MirrorError("answers with another part of the file than was asked for", restart=True)
        start = have
    elif response.status != 200:
        raise MirrorError(f"answers HTTP {response.status}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise MirrorError("sends the file compressed though it was asked not to")
    if "html" in response.headers.get("Content-Type", "").lower():
        raise MirrorError("sends an HTML page instead of the file (a log-in or error page?)")
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and length.lstrip("0") != str(size - start):
        raise MirrorError(f"sends {printable(length)} bytes where {size - start} are expected", restart=start > 0)
    return start


def _receive(
    response: Any, file: IO[bytes], have: int, size: int, limits: Limits, progress: Callable[[int], None]
) -> None:
    since, arrived = time.monotonic(), 0
    progress(have)
    while piece := response.read1(PIECE):
        if have + len(piece) > size:
            raise MirrorError(f"sends more than the {size:,} bytes that the file has", restart=True)
        _write(file, piece)
        have, arrived = have + len(piece), arrived + len(piece)
        progress(have)
        passed = time.monotonic() - since
        if passed > limits.slow_window:
            if arrived < limits.slow_rate * passed and have < size:
                raise MirrorError(f"sends only {arrived / passed:.0f} bytes a second")
            since, arrived = time.monotonic(), 0
    if have < size:
        raise MirrorError(f"closed the connection after {have:,} of {size:,} bytes", again=True)


def _at(file: IO[bytes], start: int) -> None:
    try:
        file.seek(start)
        file.truncate()
    except OSError as error:
        raise DiskError(error.strerror or str(error)) from error


def _write(file: IO[bytes], piece: bytes) -> None:
    try:
        file.write(piece)
    except OSError as error:
        raise DiskError(error.strerror or str(error)) from error


def _mirror_error(error: Exception, limits: Limits) -> MirrorError:
    """A client's exception in words, and whether it may pass."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        if "infinite loop" in str(error.reason):
            return MirrorError("redirects in a circle, or too often")
        passing = error.code >= 500 or error.code == 429
        return MirrorError(
            f"answers HTTP {error.code} {printable(error.reason)}", again=passing, restart=error.code == 416
        )
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return MirrorError(f"has a TLS certificate that isn't trusted ({printable(cause.verify_message)})")
    if isinstance(cause, socket.gaierror):
        return MirrorError("is unknown: its name can't be resolved")
    if isinstance(cause, TimeoutError):
        return MirrorError(f"doesn't answer within {limits.timeout:g} s", again=True)
    if isinstance(cause, OSError):
        return MirrorError(
            f"can't be reached ({printable(cause.strerror or cause)})", again=isinstance(cause, ConnectionError)
        )
    return MirrorError(f"answers with broken HTTP ({printable(type(error).__name__)})")
