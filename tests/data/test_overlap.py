"""A part of a picture is recognised whatever was done to it, another picture isn't, and the sums are right."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures import by_pillow
from scipy.fft import dctn
from scipy.stats import rankdata

from ascseg_cli.data.decode import read_pixels
from ascseg_cli.data.fingerprint import ALIKE, Index, copies_within, fingerprint
from ascseg_cli.data.overlap import crop_matrix, overlaps
from ascseg_cli.data.sketch import BYTES, SIDE, WEIGHT, coefficients, sketch


@cache
def _picture(seed: int, h: int = 150, w: int = 200) -> np.ndarray:
    """Shapes of many sizes without symmetry, different for each seed."""
    random = np.random.default_rng(seed)
    layers = [cv2.GaussianBlur(random.normal(size=(h, w, 3)), (0, 0), sigma) * sigma for sigma in (4, 8, 16)]
    return cv2.normalize(sum(layers), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def _likeness(part: np.ndarray, whole: np.ndarray) -> float:
    """The best likeness of two pictures, 0 below .5."""
    found = overlaps(coefficients([sketch(part)]), coefficients([sketch(whole)]), 0.5).likeness
    return float(found.max(initial=0))


def _crop(top: float, bottom: float, left: float, right: float) -> Callable[[np.ndarray], np.ndarray]:
    def crop(pixels: np.ndarray) -> np.ndarray:
        h, w = pixels.shape[:2]
        rows, columns = (
            slice(round(h * top), round(h * (1 - bottom))),
            slice(round(w * left), round(w * (1 - right))),
        )
        return np.ascontiguousarray(pixels[rows, columns])

    return crop


def test_a_sketch_is_the_cosine_transform_of_the_ranks() -> None:
    """By scipy's ranks and transform, to within the coarseness of four bits."""
    pixels = _picture(0, 64, 64)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    exact = dctn(rankdata(grey).reshape(64, 64), norm="ortho")[:SIDE, :SIDE] * WEIGHT
    exact /= np.abs(exact).max()
    (kept,) = coefficients([sketch(pixels)])
    assert kept[0, 0] == 0
    steps = (np.arange(9) / 8) ** (1 / 0.7)
    place = np.minimum(np.searchsorted(steps, np.abs(exact), "right") - 1, 7)
    assert (np.abs(exact - kept) <= np.diff(steps)[place] + 0.02).all()
    clear = np.abs(exact) > 0.02
    assert (np.sign(exact) == np.sign(kept))[clear].all()


def test_a_crop_is_a_linear_map_of_the_coefficients() -> None:
    random = np.random.default_rng(1)
    waves = random.normal(size=SIDE)
    norm = np.where(np.arange(SIDE), np.sqrt(2), 1)

    def wave(x: np.ndarray, k: int) -> np.ndarray:
        return norm[k] * np.cos(np.pi * k * x)

    x = (np.arange(20000) + 0.5) / 20000
    cut = sum(waves[k] * wave(0.13 + 0.71 * x, k) for k in range(SIDE))
    exact = [(cut * wave(x, u)).mean() for u in range(SIDE)]
    np.testing.assert_allclose(crop_matrix(np.array([0.71]), np.array([0.13]))[0] @ waves, exact, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        _crop(0.02, 0.02, 0.02, 0.02),
        _crop(0.1, 0.1, 0.1, 0.1),
        _crop(0, 0, 0.125, 0.125),
        _crop(0.17, 0.17, 0, 0),
        lambda p: cv2.resize(_crop(0, 0, 0.125, 0.125)(p), (128, 128), interpolation=cv2.INTER_AREA),
        lambda p: np.ascontiguousarray(np.rot90(_crop(0.07, 0.07, 0.07, 0.07)(p)[:, ::-1])),
        lambda p: np.clip(p.astype(int) - 40, 0, 255).astype(np.uint8),
        lambda p: (255 * (p / 255.0) ** 2).astype(np.uint8),
        lambda p: read_pixels(by_pillow(_crop(0.05, 0.05, 0.05, 0.05)(p), "JPEG", quality=40)),
    ],
    ids=["2%", "10%", "square", "rows", "squeezed square", "turned", "darker", "gamma", "JPEG"],
)
def test_parts_and_changed_copies_are_found_both_ways_round(change: Callable[[np.ndarray], np.ndarray]) -> None:
    whole, others = _picture(2), [fingerprint(_picture(seed)) for seed in range(3, 23)]
    part = fingerprint(change(whole))
    for stored, query in ((fingerprint(whole), part), (part, fingerprint(whole))):
        found = Index([*others, stored]).matches([query])
        assert [match.stored for match in found] == [len(others)]
        assert found[0].likeness is not None
        assert found[0].likeness >= ALIKE


def test_other_pictures_with_the_same_outline_are_not_alike() -> None:
    """A dark lesion in the middle of each, of its own texture."""
    rows, columns = np.mgrid[:150, :200]
    lesion = 1 / (1 + np.exp((np.hypot(rows - 75, columns - 100) - 45) / 4))
    images = [(_picture(seed) * (1 - 0.6 * lesion[..., None])).astype(np.uint8) for seed in range(12)]
    assert copies_within([fingerprint(one) for one in images]) == []


def test_pictures_of_one_grey_are_like_nothing() -> None:
    flat = np.full((40, 60, 3), 90, np.uint8)
    assert sketch(flat) == bytes(BYTES)
    assert _likeness(flat, flat) == _likeness(flat, _picture(4)) == 0


def test_blocks_of_any_size_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from ascseg_cli.data import overlap

    wholes = [_picture(seed, 120, 160) for seed in range(9)]
    parts = [_crop(0.05, 0.05, 0.05, 0.05)(one) for one in wholes[::-1]]
    images = coefficients([sketch(one) for one in parts]), coefficients([sketch(one) for one in wholes])

    def found() -> set[tuple[int, int]]:
        pairs = overlaps(*images, ALIKE)
        return set(zip(pairs.part.tolist(), pairs.whole.tolist()))

    at_once = found()
    for name in ("_PARTS", "_WHOLES", "_PAIRS"):
        monkeypatch.setattr(overlap, name, 2)
    assert found() == at_once == {(i, 8 - i) for i in range(9)}


def test_centre_crops_of_isic_are_found_in_whole_frames(shared_data: Path) -> None:
    """Those of ISIC 2018 here, in the squeezed frames of ISIC 2017: the perceptual hash knows one in a hundred."""
    wholes = sorted((shared_data / "ISIC2017" / "ISIC-2017_Training_Data").glob("*.jpg"))[::25]
    crops = {path.stem: path for path in (shared_data / "ISIC2018").rglob("ISIC_*.jpg")}
    shared = [path for path in wholes if path.stem in crops]
    assert len(shared) > 30
    index = Index([fingerprint(read_pixels(path)) for path in wholes])
    found = index.matches([fingerprint(read_pixels(crops[path.stem])) for path in shared])
    right = {match.query for match in found if wholes[match.stored].stem == shared[match.query].stem}
    assert len(right) >= 0.95 * len(shared)
    assert len(found) <= len(right) + 1
