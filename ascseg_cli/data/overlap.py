"""Whether one picture is a part of another: sketches compared over crops, aspects, flips and turns.

First all pairs over a family of centred crops by their lowest frequencies, then the likely ones by all
frequencies; where that leaves a doubt, the crop itself is sought.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from ascseg_cli.data.sketch import SIDE, WEIGHT

_SHARES = (1.0, 0.87, 0.76, 0.66)  # of a side that a crop keeps, in the family
_COARSE = 8  # the highest sum of both frequencies in the first look
_LIKELY = 0.88  # after the first look
_DOUBTFUL = 0.88  # after the second: below, seeking the crop finds more false pairs than true ones
_PARTS, _WHOLES, _PAIRS = 64, 2048, 4096  # at a time, so that they stay in the cache, and memory small
_STEPS = (0.04, 0.02, 0.01)  # of a side, in the search for the crop

_SIGNS = (-1.0) ** np.arange(SIDE, dtype=np.float32)
_FAMILY = np.array([(rows, columns) for rows in _SHARES for columns in _SHARES])
_EACH = np.arange(SIDE, dtype=np.float32)
_PLAIN = np.where(WEIGHT > 0, 1 / np.maximum(WEIGHT, 1), 0).astype(np.float32)


@dataclass(frozen=True)
class Overlaps:
    """Pairs of a part and a whole by their numbers, and how alike they are, -1 to 1: (n,) each."""

    part: np.ndarray
    whole: np.ndarray
    likeness: np.ndarray


def overlaps(parts: np.ndarray, wholes: np.ndarray, least: float) -> Overlaps:
    """Every pair whose part shows the whole or a crop of it, in any turn, with a likeness of `least` or more.

    parts, wholes  coefficients (n, SIDE, SIDE), (m, SIDE, SIDE), as `sketch.coefficients` gives them
    """
    if not (parts.any() and wholes.any()):
        return Overlaps(np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0))
    found = [np.empty((0, 3))]
    for before in range(0, len(wholes), _WHOLES):
        some = _Wholes(wholes[before : before + _WHOLES])
        for start in range(0, len(parts), _PARTS):
            turned = _turned(parts[start : start + _PARTS])
            part, whole = np.nonzero(some.first_look(turned) >= _LIKELY)
            for i in range(0, len(part), _PAIRS):
                pairs = part[i : i + _PAIRS], whole[i : i + _PAIRS]
                likeness = some.second_look(turned, *pairs, least)
                both = np.stack((pairs[0] + start, pairs[1] + before, likeness), axis=1)
                found.append(both[likeness >= least])
    part, whole, likeness = np.concatenate(found).T
    return Overlaps(part.astype(np.intp), whole.astype(np.intp), likeness)


class _Wholes:
    """Images of which others may be parts, and their crops of the family.

    crops  (family, m, SIDE, SIDE)
    low    for each of the family (frequencies, m): its low frequencies, of length 1
    """

    def __init__(self, images: np.ndarray) -> None:
        self.plain = images * _PLAIN
        self.crops = [_cropped(self.plain, *_centred(one[None])) for one in _FAMILY]
        self.low = [np.ascontiguousarray(_unit(one[:, seen]).T) for one, seen in zip(self.crops, _LOW)]

    def first_look(self, turned: np.ndarray) -> np.ndarray:
        """The best likeness of parts (8, p, SIDE, SIDE) and each whole by low frequencies: (p, m)."""
        best = np.full((turned.shape[1], len(self.plain)), -1, np.float32)
        scores = np.empty_like(best)
        for seen, crops in zip(_LOW, self.low):
            for turn in _unit(turned[:, :, seen]):
                np.maximum(best, np.matmul(turn, crops, out=scores), out=best)
        return best

    def second_look(self, turned: np.ndarray, part: np.ndarray, whole: np.ndarray, least: float) -> np.ndarray:
        """The likeness of pairs by all frequencies (n,), not sought further where `least` is reached."""
        best, view = np.full(len(part), -1.0), np.zeros((len(part), 2), np.intp)
        for view_here in product(range(len(_FAMILY)), range(len(turned))):
            open_ = np.flatnonzero(best < least)
            crop, turn = view_here
            likeness = _likeness(turned[turn][part[open_]], self.crops[crop][whole[open_]])
            better = likeness > best[open_]
            best[open_[better]], view[open_[better]] = likeness[better], view_here
        doubt = np.flatnonzero((best >= _DOUBTFUL) & (best < least))
        if len(doubt):
            crop, turn = view[doubt].T
            best[doubt] = _sought(turned[turn, part[doubt]], self.plain[whole[doubt]], _FAMILY[crop])
        return best


def crop_matrix(share: np.ndarray, start: np.ndarray) -> np.ndarray:
    """(n, SIDE, SIDE): from the cosine coefficients of f(x) to those of f(start + share · x), x from 0 to 1."""
    u, k = np.arange(SIDE)[:, None], np.arange(SIDE)[None, :]
    stretched, shift = k * share[:, None, None], k * start[:, None, None]
    waves = [
        np.cos(np.pi * (shift + (stretched + sign * u) / 2)) * np.sinc((stretched + sign * u) / 2)
        for sign in (1, -1)
    ]
    norm = np.where(u, np.sqrt(2), 1) * np.where(k, np.sqrt(2), 1) / 2
    return (norm * (waves[0] + waves[1])).astype(np.float32)


def _centred(shares: np.ndarray) -> np.ndarray:
    """Centred crops by their shares of rows and columns: (n, 2) -> rows, top, columns, left (4, n)."""
    rows, columns = shares.T
    return np.stack((rows, (1 - rows) / 2, columns, (1 - columns) / 2))


def _cropped(
    plain: np.ndarray, rows: np.ndarray, top: np.ndarray, columns: np.ndarray, left: np.ndarray
) -> np.ndarray:
    """Weighted coefficients of a crop of each of n images (n, SIDE, SIDE); 0 where the whole's don't tell them."""
    moved = crop_matrix(rows, top) @ plain @ crop_matrix(columns, left).transpose(0, 2, 1)
    return moved * WEIGHT * _known(rows, columns)


def _known(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The coefficients of a crop that those of its whole tell: (n, SIDE, SIDE)."""
    return _EACH[:, None] / rows[:, None, None] + _EACH / columns[:, None, None] <= SIDE - 1


def _turned(images: np.ndarray) -> np.ndarray:
    """The eight flips and turns: (n, SIDE, SIDE) -> (8, n, SIDE, SIDE)."""
    both = (images, images.transpose(0, 2, 1))
    down, across = _SIGNS[:, None], _SIGNS[None, :]
    return np.stack([one * flip for one in both for flip in (1, down, across, down * across)])


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def _likeness(parts: np.ndarray, crops: np.ndarray) -> np.ndarray:
    """Cosine of the angle between coefficients (n, SIDE, SIDE), over those that the crops tell: (n,)."""
    seen = parts * (crops != 0)
    norms = np.sqrt(np.einsum("nuv,nuv->n", seen, seen) * np.einsum("nuv,nuv->n", crops, crops))
    return np.einsum("nuv,nuv->n", seen, crops) / np.maximum(norms, 1e-9)


def _sought(parts: np.ndarray, plain: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The likeness of each part and the best crop of its whole, from a centred one on: one edge after another."""
    crops = _centred(shares).T
    best = _likeness(parts, _cropped(plain, *crops.T))
    for step in (one for one in _STEPS for _ in range(2)):
        for change in _CHANGES:
            tried = _clipped(crops + step * change)
            likeness = _likeness(parts, _cropped(plain, *tried.T))
            better = likeness > best
            best[better], crops[better] = likeness[better], tried[better]
    return best


# of rows, top, columns, left: both edges of an axis outward or inward, or both shifted
_CHANGES = np.array(
    [
        (1, -0.5, 0, 0), (-1, 0.5, 0, 0), (0, 1, 0, 0), (0, -1, 0, 0),
        (0, 0, 1, -0.5), (0, 0, -1, 0.5), (0, 0, 0, 1), (0, 0, 0, -1),
    ]
)  # fmt: skip


def _clipped(crops: np.ndarray) -> np.ndarray:
    """Crops that lie inside their wholes."""
    shares = np.clip(crops[:, ::2], 0.5, 1)
    starts = np.clip(crops[:, 1::2], 0, 1 - shares)
    return np.stack((shares[:, 0], starts[:, 0], shares[:, 1], starts[:, 1]), axis=1)


_LOW = _known(*_FAMILY.T) & (WEIGHT > 0) & (np.add.outer(_EACH, _EACH) <= _COARSE)  # of each crop in the family
