"""PNG's chunks, with their checksums and the number of lines: Pillow looks at neither.

Source: PNG specification, third edition, sections 5, 8 and 11.
"""

from __future__ import annotations

import struct
import zlib

from ascseg_cli.data import ifd
from ascseg_cli.data.header import Header, damaged, truncated


def png_header(data: bytes) -> Header:
    position, kept, orientation, frames = 8, [data[:8]], 1, 1
    kind = b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise truncated("PNG")
        if kind == b"eXIf":
            orientation = ifd.exif_orientation(data[position + 8 : end - 4])
        elif kind == b"acTL":
            frames = struct.unpack_from(">I", data, position + 8)[0]
        elif not kind[0] & 32:  # an upper-case first letter: needed to show the picture
            _check_png_chunk(data, position, end, kind)
            kept.append(data[position:end])
        position = end
    if not kept[1][4:8] == b"IHDR" or len(kept[1]) != 25:
        raise damaged("PNG", "it doesn't begin with its header")
    width, height, bits, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", kept[1], 8)
    pixel_bits = bits * {2: 3, 4: 2, 6: 4}.get(colour, 1)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    size = sum(_pass_bytes(width, height, pixel_bits, *start_and_step) for start_and_step in passes)
    return Header(
        "PNG",
        width,
        height,
        bits,
        b"".join(kept),
        frames,
        orientation,
        stored_bytes=size,
        interlaced=bool(interlaced),
    )


_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def _pass_bytes(width: int, height: int, pixel_bits: int, x: int, y: int, dx: int, dy: int) -> int:
    """Bytes of one pass before compression: each line has its filter in front."""
    columns, lines = (width - x + dx - 1) // dx, (height - y + dy - 1) // dy
    return max(lines, 0) * (1 + (columns * pixel_bits + 7) // 8) if columns > 0 else 0


def holds_all_lines(header: Header) -> bool:
    """Whether a PNG's compressed data come to the whole picture: decoders fill up what lacks, without a word."""
    inflater, counted, position = zlib.decompressobj(), 0, 8
    while position < len(header.data):
        length, kind = struct.unpack_from(">I4s", header.data, position)
        piece = header.data[position + 8 : position + 8 + length] if kind == b"IDAT" else b""
        while piece and not inflater.eof and counted < header.stored_bytes:
            counted += len(inflater.decompress(piece, 1 << 20))
            piece = inflater.unconsumed_tail
        position += 12 + length
    return counted >= header.stored_bytes


def _check_png_chunk(data: bytes, start: int, end: int, kind: bytes) -> None:
    if kind not in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
        raise damaged("PNG", f"it needs the unknown chunk {kind!r}")
    (stored,) = struct.unpack_from(">I", data, end - 4)
    if zlib.crc32(memoryview(data)[start + 4 : end - 4]) != stored:
        raise damaged("PNG", f"the checksum of its {kind.decode()} chunk is wrong")
