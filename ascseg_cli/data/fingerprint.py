"""Whether two images are the same picture: one definition for splits, checks, evaluation and weights.

Three things stay of an image. `content` is exact: the decoded pixels and their size. `sketch` tells whether one
picture is a part of another, however bright (sketch.py, overlap.py). `perceptual` survives scaling, JPEG and
changes of brightness: the signs of 64 coefficients of the picture's cosine transform, taken as a function on
the unit square, so that its size plays no part. A flip changes the signs of odd frequencies and a turn
exchanges rows with columns, so the hashes of all eight flips and turns follow from one; the distance of two
pictures is the least number of differing bits over the eight. Frequencies even both ways are left out: a lesion
in the middle of each picture makes them all alike. docs/data.md has the measured rates behind NEAR and ALIKE.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ascseg_cli.data import sketch
from ascseg_cli.data.overlap import overlaps
from ascseg_cli.errors import WeightsError

NEAR = 4  # bits: pictures at most this far apart count as copies of one another
ALIKE = 0.945  # likeness of a picture and a part of another: from here on they count as copies, too
SCHEME = "dct64-2"  # names the definition in stored texts; another definition gets another name
SCHEME_WITHOUT_SKETCH = "dct64-1"  # of weights made before November 2026
_FLAT = 1e-3  # grey levels: a coefficient below is rounding, not picture
_CONTENT = 16  # bytes
_RECORDS = {SCHEME: _CONTENT + 8 + sketch.BYTES, SCHEME_WITHOUT_SKETCH: _CONTENT + 8}  # bytes an image

# (row, column) frequencies, one of them odd, lowest first; 64, and closed under exchange, without (5, 5)
_FREQUENCIES = sorted(
    (
        (u, v)
        for u in range(13)
        for v in range(13)
        if ((u % 2 or v % 2) and u + v <= 12 and (u, v) != (5, 5)) or (u, v) in ((6, 7), (7, 6))
    ),
    key=lambda uv: (sum(uv), max(uv), uv),
)
_ROWS, _COLUMNS = (np.array(axis) for axis in zip(*_FREQUENCIES))
_BIT = {uv: bit for bit, uv in enumerate(_FREQUENCIES)}
_EXCHANGED = np.array([_BIT[v, u] for u, v in _FREQUENCIES])
_UPSIDE_DOWN = np.uint64(sum(1 << bit for bit, (u, _) in enumerate(_FREQUENCIES) if u % 2))
_MIRRORED = np.uint64(sum(1 << bit for bit, (_, v) in enumerate(_FREQUENCIES) if v % 2))
_ONES = np.array([i.bit_count() for i in range(1 << 16)], np.uint8)


@dataclass(frozen=True)
class Fingerprint:
    """What stays of an image when it is to be recognised.

    content     first 16 bytes of SHA-256 over "height width" and the RGB bytes
    perceptual  64 bits of the upright image
    sketch      what `sketch.sketch` keeps; empty where an old text doesn't tell
    """

    content: bytes
    perceptual: int
    sketch: bytes = b""


@dataclass(frozen=True)
class Match:
    """Two images that are copies: positions in the queries and in the stored ones, and their distance in bits.

    exact     the same pixels; else a near copy
    likeness  of one and the best part of the other, ALIKE to 1; None where it is less
    """

    query: int
    stored: int
    distance: int
    exact: bool
    likeness: float | None = None

    def __str__(self) -> str:
        if self.exact:
            return "the same pixels"
        if self.distance <= NEAR or self.likeness is None:
            return f"{self.distance} of 64 bits differ"
        return f"one shows the other or a part of it, likeness {self.likeness:.2f}"


def fingerprint(pixels: np.ndarray) -> Fingerprint:
    """What stays of an image's pixels (h, w, 3) uint8, as `decode.read_pixels` gives them."""
    content = hashlib.sha256(f"{pixels.shape[0]} {pixels.shape[1]}\n".encode())
    content.update(np.ascontiguousarray(pixels).data)
    bits = _coefficients(pixels)[_ROWS, _COLUMNS] > _FLAT
    perceptual = sum(1 << int(bit) for bit in np.flatnonzero(bits))
    return Fingerprint(content.digest()[:_CONTENT], perceptual, sketch.sketch(pixels))


def turned(perceptual: np.ndarray) -> np.ndarray:
    """The hashes of the eight flips and turns of images, from the hash of each: (n,) uint64 -> (8, n)."""
    exchanged = np.zeros_like(perceptual)
    for bit, source in enumerate(_EXCHANGED):
        exchanged |= (perceptual >> np.uint64(source) & np.uint64(1)) << np.uint64(bit)
    flips = (np.uint64(0), _UPSIDE_DOWN, _MIRRORED, _UPSIDE_DOWN ^ _MIRRORED)
    return np.stack([hashes ^ flip for hashes in (perceptual, exchanged) for flip in flips])


def distances(queries: Sequence[Fingerprint], stored: Sequence[Fingerprint]) -> np.ndarray:
    """Bits between each query and each stored image, least over the eight flips and turns: (q, s) uint8."""
    there = _hashes(stored)
    least = np.full((len(queries), len(stored)), 64, np.uint8)
    for hashes in turned(_hashes(queries)):
        for row, one in enumerate(hashes):  # a row at a time stays in the cache
            bits = (there ^ one).view(np.uint16)
            np.minimum(least[row], _ONES[bits].reshape(-1, 4).sum(1, dtype=np.uint8), out=least[row])
    return least


class Index:
    """Images to be found again: exact and near copies of any number of queries."""

    def __init__(self, stored: Sequence[Fingerprint]) -> None:
        self.stored = tuple(stored)
        self._by_content: dict[bytes, list[int]] = defaultdict(list)
        for place, one in enumerate(self.stored):
            self._by_content[one.content].append(place)

    def matches(self, queries: Sequence[Fingerprint], within: int = NEAR) -> list[Match]:
        """Every pair of a query and a stored image that are copies; of each query the nearest first."""
        alike = self._alike(queries)
        found = []
        for start in range(0, len(queries), 256):
            some = queries[start : start + 256]
            bits = distances(some, self.stored)
            near = {(int(q), int(s)) for q, s in zip(*np.nonzero(bits <= within))}
            near |= {(q, s) for q, one in enumerate(some) for s in self._by_content.get(one.content, ())}
            near |= {(q - start, s) for q, s in alike if start <= q < start + 256}
            for q, s in near:
                exact = some[q].content == self.stored[s].content
                distance = 0 if exact else int(bits[q, s])
                found.append(Match(start + q, s, distance, exact, alike.get((start + q, s))))
        return sorted(found, key=lambda match: (match.query, not match.exact, match.distance, match.stored))

    def _alike(self, queries: Sequence[Fingerprint]) -> dict[tuple[int, int], float]:
        """The likeness of each pair of a query and a stored image one of which is a part of the other."""
        ours, theirs = (sketch.coefficients([one.sketch for one in images]) for images in (queries, self.stored))
        found: dict[tuple[int, int], float] = {}
        for pairs, swapped in ((overlaps(ours, theirs, ALIKE), False), (overlaps(theirs, ours, ALIKE), True)):
            ends = (pairs.whole, pairs.part) if swapped else (pairs.part, pairs.whole)
            for q, s, likeness in zip(*(end.tolist() for end in ends), pairs.likeness.tolist()):
                found[q, s] = max(likeness, found.get((q, s), 0))
        return found


def copies_within(images: Sequence[Fingerprint], within: int = NEAR) -> list[Match]:
    """Every pair of images of one list that are copies, each pair once: `query` before `stored`."""
    return [match for match in Index(images).matches(images, within) if match.query < match.stored]


def encode(images: Iterable[Fingerprint]) -> str:
    """Fingerprints as one text for a weights file; those without a sketch, from older weights, after the others.

    A scheme, a colon, base64 of 108 (without sketch 24) bytes an image, sorted; a space between both kinds.
    """
    by_content = {one.content: one for one in sorted(images, key=lambda one: len(one.sketch))}
    records = sorted(one.content + one.perceptual.to_bytes(8, "big") + one.sketch for one in by_content.values())
    texts = []
    for scheme, size in _RECORDS.items():
        some = b"".join(record for record in records if len(record) == size)
        if some or scheme == SCHEME:
            texts.append(f"{scheme}:{base64.b64encode(some).decode('ascii')}")
    return " ".join(texts)


def decode(text: str) -> list[Fingerprint]:
    """What `encode` wrote, those of each kind by their content. Raises WeightsError for any other text."""
    return [one for part in text.split(" ") for one in _decoded(part)]


def _decoded(text: str) -> Iterator[Fingerprint]:
    scheme, _, body = text.partition(":")
    if scheme not in _RECORDS:
        raise WeightsError(
            f"the training images' hashes are of the scheme {scheme[:20]!r}; "
            f"this release reads {' and '.join(_RECORDS)}",
            "upgrade ascseg",
        )
    try:
        data = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise WeightsError("the training images' hashes are damaged: not base64") from error
    if len(data) % _RECORDS[scheme]:
        raise WeightsError(
            f"the training images' hashes are damaged: {len(data)} bytes, not a multiple of {_RECORDS[scheme]}"
        )
    for start in range(0, len(data), _RECORDS[scheme]):
        one = data[start : start + _RECORDS[scheme]]
        perceptual = int.from_bytes(one[_CONTENT : _CONTENT + 8], "big")
        yield Fingerprint(one[:_CONTENT], perceptual, one[_CONTENT + 8 :])


def _hashes(images: Sequence[Fingerprint]) -> np.ndarray:
    return np.array([one.perceptual for one in images], np.uint64)


def _coefficients(pixels: np.ndarray) -> np.ndarray:
    """∫∫ grey(y, x) cos(π u y) cos(π v x) dy dx over the unit square: (13, 13), in grey levels."""
    import cv2

    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    rows, columns = (_cosines(length) for length in grey.shape)
    # Not `@`: BLAS's threads wait for one another for longer than this takes, wherever other threads decode.
    return np.einsum("uw,vw->uv", np.einsum("uh,hw->uw", rows, grey), columns)


@lru_cache(maxsize=64)
def _cosines(length: int) -> np.ndarray:
    """∫ cos(π k t) dt over each of `length` equal steps from 0 to 1: (13, length) float32."""
    edges, k = np.arange(length + 1) / length, np.arange(1, 13)[:, None]
    waves = np.diff(np.sin(np.pi * k * edges) / (np.pi * k), axis=1)
    return np.concatenate([np.full((1, length), 1 / length), waves]).astype(np.float32)
