"""A web server on loopback that serves one file and misbehaves as told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


class Mirror:
    """A server of one file; `answers` are used one a request, the last one for ever."""

    def __init__(self, content: bytes, *answers: Answer) -> None:
        self.content = content
        self.answers = list(answers)
        self.requests: list[tuple[str, str | None]] = []
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.requests.append((self.path, self.headers.get("Range")))
                answer = mirror.answers[min(len(mirror.requests), len(mirror.answers)) - 1]
                try:
                    answer(self, mirror.content)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client has had enough

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/kvasir-tiny.safetensors"

    @property
    def ranges(self) -> list[str | None]:
        """The Range header of each request."""
        return [span for _, span in self.requests]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def _begin(handler: BaseHTTPRequestHandler, status: int, **headers: object) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), str(value))
    handler.end_headers()


def _start(handler: BaseHTTPRequestHandler) -> int:
    return int((handler.headers.get("Range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))


def whole(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """As a good server: the rest from the wanted byte on."""
    start = _start(handler)
    if start:
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        _begin(handler, 206, Content_Length=len(content) - start, Content_Range=span)
    else:
        _begin(handler, 200, Content_Length=len(content))
    handler.wfile.write(content[start:])


def without_range(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """All of it, whatever was asked for."""
    _begin(handler, 200, Content_Length=len(content))
    handler.wfile.write(content)


def cut_after(count: int) -> Answer:
    """Honest headers, then the connection closes after `count` more bytes."""

    def answer(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        start = _start(handler)
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        _begin(handler, 206 if start else 200, Content_Length=len(content) - start, Content_Range=span)
        handler.wfile.write(content[start : start + count])

    return answer


def forgetful(count: int) -> Answer:
    """Always the first `count` bytes, though it promises all."""

    def answer(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        _begin(handler, 200, Content_Length=len(content))
        handler.wfile.write(content[:count])

    return answer


def wrong_bytes(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """Of the right length, each byte inverted."""
    whole(handler, bytes(byte ^ 0xFF for byte in content))


def wrong_length(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """Another, shorter file."""
    whole(handler, content[:1000])


def too_much(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """The file and then bytes without end, with no length stated."""
    _begin(handler, 200)
    handler.wfile.write(content)
    for _ in range(100_000):
        handler.wfile.write(b"x" * 65_536)


def html_page(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """A log-in page with status 200."""
    page = b"<html>Please log in</html>"
    _begin(handler, 200, Content_Type="text/html; charset=utf-8", Content_Length=len(page))
    handler.wfile.write(page)


def status(code: int) -> Answer:
    """An error of HTTP."""

    def answer(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        _begin(handler, code, Content_Length=0)

    return answer


def redirect_to(place: str) -> Answer:
    """A redirect."""

    def answer(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        _begin(handler, 302, Location=place, Content_Length=0)

    return answer


def drip(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """Ten bytes a tenth of a second."""
    _begin(handler, 200, Content_Length=len(content))
    for at in range(0, len(content), 10):
        handler.wfile.write(content[at : at + 10])
        handler.wfile.flush()
        time.sleep(0.1)


def silence(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """Accepts, and never says a word."""
    time.sleep(3)


def broken_http(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """Not HTTP at all."""
    handler.wfile.write(b"\x00\xff\x00garbage\r\n\r\n")
