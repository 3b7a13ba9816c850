"""The tag directories of TIFF, which EXIF and the phones' multi-picture JPEG use too.

Read by ourselves since three facts are needed before any decoder sees the file: its size, its number of
pages, and how it is turned. Source: TIFF 6.0, section 2; BigTIFF; Exif 2.32.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ascseg_cli.errors import InputError

IMAGE_WIDTH, IMAGE_HEIGHT, BITS_PER_SAMPLE, PHOTOMETRIC = 256, 257, 258, 262
NEW_SUBFILE_TYPE, ORIENTATION, SAMPLES_PER_PIXEL, SAMPLE_FORMAT = 254, 274, 277, 339
COMPRESSION, PLANAR, TILE_WIDTH, TILE_LENGTH, MP_ENTRIES = 259, 284, 322, 323, 0xB002
STRIP_OFFSETS, STRIP_SIZES, TILE_OFFSETS, TILE_SIZES = 273, 279, 324, 325

_WANTED = frozenset({254, 256, 257, 258, 259, 262, 273, 274, 277, 279, 284, 322, 323, 324, 325, 339, 347, 0xB002})
_MOST_VALUES = 65_536  # of one tag: the strips of a very tall picture

_CODES = {1: "B", 3: "H", 4: "I", 7: "B", 13: "I", 16: "Q"}  # the unsigned integer types, and bytes
_MOST_ENTRIES = 1_000_000  # over all directories: a real file has hundreds, a hostile one loops


@dataclass(frozen=True)
class Directory:
    """One directory.

    order   "<" or ">"
    values  by tag
    places  by tag: where its values lie in the file, and their type's letter in `struct`
    """

    order: str
    values: dict[int, tuple[int, ...]]
    places: dict[int, tuple[int, str]]

    def first(self, tag: int, default: int) -> int:
        return self.values.get(tag, (default,))[0]


def directories(data: bytes) -> Iterator[Directory]:
    """The directories in file order, with the tags named above, where they hold unsigned integers.

    Raises InputError where the chain or a value leaves the file, or the chain returns to itself.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise InputError("damaged TIFF: no byte order at its beginning")
    seen: set[int] = set()
    entries = 0
    try:
        big = struct.unpack_from(order + "H", data, 2)[0] == 43
        offset = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
        while offset:
            if offset in seen:
                raise InputError("damaged TIFF: its chain of pages is a circle")
            seen.add(offset)
            directory, offset, count = _directory(data, offset, order, big)
            entries += count
            if entries > _MOST_ENTRIES:
                raise InputError(f"damaged TIFF: more than {_MOST_ENTRIES:,} tags")
            yield directory
    except (struct.error, OverflowError):  # the latter from 64 bit offsets
        raise InputError(
            "truncated TIFF: some of its tags lie behind the file's end", "copy or download the file again"
        ) from None


def _directory(data: bytes, offset: int, order: str, big: bool) -> tuple[Directory, int, int]:
    head, entry, link = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    (count,) = struct.unpack_from(order + head, data, offset)
    start = offset + struct.calcsize(order + head)
    size = struct.calcsize(order + entry)
    values, places = {}, {}
    for position in range(start, min(start + size * count, len(data) - size + 1), size):
        tag, kind, number, _ = struct.unpack_from(order + entry, data, position)
        if tag in _WANTED and tag not in values and kind in _CODES and number:
            places[tag], values[tag] = _integers(data, position, order, big, kind, number)
    (following,) = struct.unpack_from(order + link, data, start + size * count)
    return Directory(order, values, places), following, count


def _integers(
    data: bytes, position: int, order: str, big: bool, kind: int, number: int
) -> tuple[tuple[int, str], tuple[int, ...]]:
    """((place, letter), values) of one entry. Raises struct.error where they lie behind the file's end."""
    code = _CODES[kind]
    place = position + (12 if big else 8)
    if struct.calcsize(code) * number > (8 if big else 4):
        (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, place)
    return (place, code), struct.unpack_from(f"{order}{min(number, _MOST_VALUES)}{code}", data, place)


def exif_orientation(exif: bytes) -> int:
    """How the picture is turned, 1 to 8; 1 where the tags are absent or damaged, as viewers do."""
    try:
        directory = next(directories(exif.removeprefix(b"Exif\0\0")), None)
    except InputError:
        return 1
    turn = directory.first(ORIENTATION, 1) if directory else 1
    return turn if 1 <= turn <= 8 else 1
