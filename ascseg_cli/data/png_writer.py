"""PNG files of arrays: overlays are written as fast as they are found, and the same array is always the same file.

libpng takes twice as long for a photograph, for a larger file. Repeated bytes are looked for only one place back,
so that no table of earlier places is kept, whose first content could decide what is found. (isal, twice as fast
again, packed a mask into other bytes in one process of some eighty.)
Source: PNG specification, third edition, sections 5, 9 and 11.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from zlib_ng import zlib_ng

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2  # colour types
_UP = 2  # the filter type: each byte less the one above
_STRIP = 2**18  # bytes filtered at once


def encode(values: np.ndarray) -> bytes:
    """Grey (h, w) uint8 or uint16, or RGB (h, w, 3) uint8, as a PNG file of the same values."""
    h, w = values.shape[:2]
    colour = _RGB if values.ndim == 3 else _GREY
    header = struct.pack(">IIBBBBB", w, h, 8 * values.itemsize, colour, 0, 0, 0)
    deflate = zlib_ng.compressobj(1, strategy=zlib_ng.Z_RLE)
    packed = b"".join([*(deflate.compress(strip) for strip in _filtered(_lines(values))), deflate.flush()])
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def _lines(values: np.ndarray) -> np.ndarray:
    """(h, bytes of a line) uint8, the high byte of 16 bits first."""
    ordered = np.ascontiguousarray(values, values.dtype.newbyteorder(">"))
    return ordered.reshape(len(values), -1).view(np.uint8)


def _filtered(lines: np.ndarray) -> Iterator[np.ndarray]:
    """Some lines at a time, each behind its filter's type."""
    height = max(1, _STRIP // lines.shape[1])
    for top in range(0, len(lines), height):
        some = lines[top : top + height]
        strip = np.empty((len(some), 1 + some.shape[1]), np.uint8)
        strip[:, 0] = _UP
        strip[0, 1:] = some[0] - lines[top - 1] if top else some[0]
        np.subtract(some[1:], some[:-1], out=strip[1:, 1:])
        yield strip


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return struct.pack(">I4s", len(content), kind) + content + struct.pack(">I", checksum)
