"""A file's bytes, without ever waiting for a pipe, waking a device, or filling memory; and what isn't an image."""

from __future__ import annotations

import os
import stat

from ascseg_cli.data.header import AGAIN
from ascseg_cli.data.remote import Place, RemotePath, read_object
from ascseg_cli.errors import InputError

_BYTES_PER_PIXEL, _ROOM = 8, 64 << 20  # four samples of 16 bit, and metadata: no file in bounds is larger


def file_bytes(path: Place, max_pixels: int) -> bytes:
    limit = max_pixels * _BYTES_PER_PIXEL + _ROOM
    if isinstance(path, RemotePath):
        content = read_object(path, limit + 1)
        if len(content) > limit:
            raise _too_large(f"more than {limit:,}", max_pixels)
        return content
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        _check_regular(os.stat(path))
        with open(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            _check_regular(status)  # it may have been exchanged in between
            if status.st_size > limit:
                raise _too_large(f"{status.st_size:,}", max_pixels)
            content = file.read(limit + 1)
            if content is None:  # a file of the system's own, which has nothing to say just now
                raise InputError("can't be read: it would have to be waited for")
            if _state(os.fstat(file.fileno())) != _state(status):
                raise InputError("the file changed while it was read", "run again when it is complete")
            return content
    except FileNotFoundError:
        if os.path.islink(path):
            raise InputError(f"a dangling link: its target {os.readlink(path)!r} doesn't exist") from None
        raise InputError("no such file") from None
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror or error}") from error
    except ValueError:
        raise InputError("no file can have this name") from None


def _too_large(size: str, max_pixels: int) -> InputError:
    return InputError(
        f"a file of {size} bytes is larger than any picture of {max_pixels:,} pixels",
        "if it is trusted and memory suffices, raise --max-pixels",
    )


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


_NO_FILES = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def _check_regular(status: os.stat_result) -> None:
    for is_kind, kind in _NO_FILES:
        if is_kind(status.st_mode):
            hint = "to read from a pipe, give - as the input" if is_kind is stat.S_ISFIFO else ""
            raise InputError(f"{kind}, not an image file", hint)


_OTHERS = (
    (b"GIF8", 0, "a GIF"),
    (b"ftypavi", 4, "an AVIF"),
    (b"ftyphei", 4, "a HEIC photo"),
    (b"ftypmif1", 4, "a HEIC photo"),
    (b"\0\0\0\x0cjP  ", 0, "a JPEG 2000 picture"),
    (b"8BPS", 0, "a Photoshop file"),
    (b"%PDF", 0, "a PDF"),
    (b"PK\3\4", 0, "a ZIP archive"),
    (b"\x1f\x8b", 0, "a gzip archive"),
    (b"<", 0, "a text page (HTML or XML)"),
)


def not_an_image(data: bytes) -> InputError:
    hint = "PNG, JPEG, BMP, TIFF, WebP and DICOM are read; convert it first"
    for magic, place, name in _OTHERS:
        if data.startswith(magic, place):
            return InputError(f"not an image of a format that is read: it looks like {name}", hint)
    if not any(data[:4096]):
        return InputError("not an image: it begins with zero bytes only, as after a failed copy", AGAIN)
    return InputError("not an image of a format that is read", hint)
