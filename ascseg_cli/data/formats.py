"""What a file says of itself, read before any decoder sees it.

Decoders differ in what they let pass: a JPEG that was cut and closed again, a PNG whose checksums are wrong, an
animation of which they show the first frame. Size, pages, turn and wholeness are settled here, by the formats'
own specifications: PNG (third edition), ITU T.81, RIFF and WebP (RFC 9649), BMP, TIFF 6.0.
"""

from __future__ import annotations

import re
import struct
from dataclasses import replace

from ascseg_cli.data import ifd
from ascseg_cli.data.header import Header, damaged, truncated
from ascseg_cli.data.png import png_header
from ascseg_cli.errors import InputError


def read_header(data: bytes) -> Header | None:
    """The header by the file's first bytes; None for a format that isn't ours. Raises InputError."""
    for name, magic, reader in _READERS:
        if magic.match(data):
            try:
                return reader(data)
            except struct.error:
                raise truncated(name) from None
    return None


_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # neither a stuffed byte nor filling nor a restart
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_MOST_SCANS = 500  # a progressive picture has about ten; thousands take minutes to decode


def _jpeg(data: bytes) -> Header:
    header = Header("JPEG", 0, 0, 8, data)
    position, scans = 2, 0
    while True:
        found = _MARKER.search(data, position)
        if found is None:
            raise truncated("JPEG")
        position, marker = found.end(), data[found.end() - 1]
        if marker == 0xD9:
            break
        if marker in (0x01, 0xD8):  # these two have no body
            continue
        (length,) = struct.unpack_from(">H", data, position)
        header = _jpeg_segment(header, marker, data[position + 2 : position + length])
        position += length
        scans += marker == 0xDA
    if not header.width or not scans:
        raise damaged("JPEG", "no picture in it")
    if scans > _MOST_SCANS:
        raise damaged("JPEG", f"{scans:,} scans, where a real picture has about ten")
    return header


def _jpeg_segment(header: Header, marker: int, body: bytes) -> Header:
    if marker in _FRAME_HEADERS and not header.width:
        bits, height, width = struct.unpack_from(">BHH", body)
        return replace(header, bits=bits, height=height, width=width)
    if marker == 0xE1 and body.startswith(b"Exif\0\0"):
        return replace(header, orientation=ifd.exif_orientation(body))
    if marker == 0xE2 and body.startswith(b"MPF\0"):
        return replace(header, frames=_multi_picture_frames(body[4:]))
    return header


def _multi_picture_frames(body: bytes) -> int:
    """Pictures of equal rank (stereo, panorama: type 2 of CIPA DC-007); previews and gain maps don't count."""
    try:
        directory = next(ifd.directories(body), None)
    except InputError:
        return 1
    entries = bytes(directory.values.get(ifd.MP_ENTRIES, ())) if directory else b""
    kinds = entries[(1 if body[:2] == b"MM" else 2) :: 16]  # the third byte, counted from the lowest, of each
    return max(1, kinds.count(2))


def _webp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 4)
    if 8 + size > len(data):
        raise truncated("WebP")
    header, position, frames = Header("WebP", 0, 0, 8, data), 12, 0
    while position + 8 <= 8 + size:
        kind, length = struct.unpack_from("<4sI", data, position)
        body = data[position + 8 : position + 8 + min(length, 1 << 20)]
        if kind in _WEBP_SIZES and not header.width:
            width, height = _WEBP_SIZES[kind](body)
            header = replace(header, width=width, height=height)
        elif kind == b"EXIF":
            header = replace(header, orientation=ifd.exif_orientation(body))
        frames += kind == b"ANMF"
        position += 8 + length + length % 2
    return replace(header, frames=max(1, frames))


def _vp8x_size(body: bytes) -> tuple[int, int]:
    return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")


def _vp8_size(body: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", body, 6)
    return width & 0x3FFF, height & 0x3FFF


def _vp8l_size(body: bytes) -> tuple[int, int]:
    (word,) = struct.unpack_from("<I", body, 1)
    return 1 + (word & 0x3FFF), 1 + (word >> 14 & 0x3FFF)


_WEBP_SIZES = {b"VP8X": _vp8x_size, b"VP8 ": _vp8_size, b"VP8L": _vp8l_size}


def _bmp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    else:
        width, height, _, bits = struct.unpack_from("<iiHH", data, 18)
    return Header("BMP", abs(width), abs(height), bits, data)


def _tiff(data: bytes) -> Header:
    pages = list(ifd.directories(data))
    if not pages:
        raise damaged("TIFF", "no picture in it")
    first = pages[0]
    if first.first(ifd.COMPRESSION, 1) != 1:  # uncompressed ones may state wrong sizes, the decoder will tell
        for offsets, sizes in ((ifd.STRIP_OFFSETS, ifd.STRIP_SIZES), (ifd.TILE_OFFSETS, ifd.TILE_SIZES)):
            pieces = zip(first.values.get(offsets, ()), first.values.get(sizes, ()))
            if any(offset + size > len(data) for offset, size in pieces):
                raise truncated("TIFF")
    full = sum(not page.first(ifd.NEW_SUBFILE_TYPE, 0) & 5 for page in pages)  # not a preview, not a mask
    orientation = first.first(ifd.ORIENTATION, 1)
    if not 1 <= orientation <= 8:
        orientation = 1
    return Header(
        "TIFF",
        max(first.first(ifd.IMAGE_WIDTH, 0), first.first(ifd.TILE_WIDTH, 0)),
        max(first.first(ifd.IMAGE_HEIGHT, 0), first.first(ifd.TILE_LENGTH, 0)),
        _tiff_bits(first),
        _upright(data, first),
        max(1, full),
        orientation,
        first.first(ifd.PHOTOMETRIC, 1) == 0,
    )


def _tiff_bits(page: ifd.Directory) -> int:
    bits = set(page.values.get(ifd.BITS_PER_SAMPLE, (1,)))
    formats = set(page.values.get(ifd.SAMPLE_FORMAT, (1,))) - {4}  # 4: undefined
    if formats - {1}:
        kind = "floating-point" if 3 in formats else "signed or complex"
        raise InputError(
            f"TIFF with {kind} samples, which no standard maps to brightness", "convert it to 8 or 16 bit"
        )
    if page.first(ifd.SAMPLES_PER_PIXEL, 1) > 8 or len(bits) > 8:
        raise damaged("TIFF", "more than 8 samples a pixel")
    if len(bits) > 1 or not bits <= {1, 2, 4, 8, 16}:
        raise InputError(
            f"TIFF with {'/'.join(map(str, sorted(bits)))} bits a sample; 1, 2, 4, 8 and 16 are read",
            "convert it to 8 or 16 bit",
        )
    if bits == {16}:
        _check_deep_tiff(page)
    return bits.pop()


def _check_deep_tiff(page: ifd.Directory) -> None:
    """Of 16 bit TIFF only what OpenCV reads rightly; planes stored apart it would mix up without a word."""
    samples, photometric = page.first(ifd.SAMPLES_PER_PIXEL, 1), page.first(ifd.PHOTOMETRIC, 1)
    together = samples == 1 or page.first(ifd.PLANAR, 1) == 1
    if not together or (photometric, samples) not in {(0, 1), (1, 1), (2, 3), (2, 4)}:
        raise InputError(
            "16 bit TIFF that is neither grey nor RGB(A) with its samples side by side", "convert it to 16 bit RGB"
        )


def _upright(data: bytes, page: ifd.Directory) -> bytes:
    """The file with orientation 1: some decoders turn a TIFF and some don't, so we do it."""
    if page.first(ifd.ORIENTATION, 1) == 1:
        return data
    place, code = page.places[ifd.ORIENTATION]
    one = struct.pack(page.order + code, 1)
    return data[:place] + one + data[place + len(one) :]


_READERS = (
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n"), png_header),
    ("JPEG", re.compile(rb"\xff\xd8\xff"), _jpeg),
    ("WebP", re.compile(rb"RIFF....WEBP", re.DOTALL), _webp),
    ("BMP", re.compile(rb"BM"), _bmp),
    ("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]"), _tiff),
)
