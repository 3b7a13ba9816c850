"""Copies are recognised whatever was done to them, other pictures aren't, and the text form loses nothing."""

from __future__ import annotations

import base64
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures import by_opencv, by_pillow, drawn
from scipy.fft import dctn

from ascseg_cli.data.decode import read_pixels
from ascseg_cli.data.fingerprint import (
    NEAR,
    Fingerprint,
    Index,
    copies_within,
    decode,
    distances,
    encode,
    fingerprint,
)
from ascseg_cli.errors import WeightsError


def _picture(seed: int, h: int = 150, w: int = 200) -> np.ndarray:
    """Smooth shapes without symmetry, different for each seed."""
    noise = np.random.default_rng(seed).normal(size=(h, w, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 12)
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return np.rint(smooth * 255).astype(np.uint8)


def _apart(one: np.ndarray, other: np.ndarray) -> int:
    return int(distances([fingerprint(one)], [fingerprint(other)])[0, 0])


def _signs(pixels: np.ndarray) -> dict[tuple[int, int], bool]:
    """The hash's bits by scipy's cosine transform of the grey picture, which is our integral on a fine grid."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float64)
    wanted = [
        (u, v) for u, v in product(range(13), repeat=2) if (u % 2 or v % 2) and u + v <= 12 and (u, v) != (5, 5)
    ]
    return {uv: bool(dctn(grey)[uv] > 0) for uv in [*wanted, (6, 7), (7, 6)]}


def test_the_hash_is_the_signs_of_the_cosine_transform() -> None:
    pixels = _picture(1, 240, 320)
    signs = _signs(pixels)
    ordered = sorted(signs, key=lambda uv: (sum(uv), max(uv), uv))
    assert len(ordered) == 64
    assert fingerprint(pixels).perceptual == sum(1 << bit for bit, uv in enumerate(ordered) if signs[uv])


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("flipped", [False, True])
def test_flips_and_turns_are_the_same_picture(turns: int, flipped: bool) -> None:
    pixels = _picture(2)
    other = np.ascontiguousarray(np.rot90(pixels[:, ::-1] if flipped else pixels, turns))
    assert _apart(pixels, other) <= 1
    assert _apart(other, pixels) <= 1


@pytest.mark.parametrize("scale", [0.3, 0.5, 2.0])
@pytest.mark.parametrize("quality", [30, 95])
def test_scaled_and_recompressed_copies_are_near(scale: float, quality: int) -> None:
    pixels = _picture(3, 300, 400)
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    assert _apart(pixels, read_pixels(by_pillow(small, "JPEG", quality=quality))) <= NEAR


def test_squeezing_brightness_and_contrast_keep_a_copy_near() -> None:
    pixels = _picture(4)
    squeezed = cv2.resize(pixels, (128, 128), interpolation=cv2.INTER_AREA)
    assert _apart(pixels, squeezed) <= NEAR
    assert _apart(pixels, (pixels * 0.7 + 30).astype(np.uint8)) <= NEAR


def test_different_pictures_are_far() -> None:
    images = [fingerprint(_picture(seed)) for seed in range(40)]
    assert copies_within(images) == []
    assert distances(images, images)[np.triu_indices(40, 1)].min() > NEAR


def test_content_is_of_pixels_and_size_not_of_files() -> None:
    pixels = drawn()
    png, bmp = read_pixels(by_opencv(pixels, ".png")), read_pixels(by_pillow(pixels, "BMP"))
    assert fingerprint(png) == fingerprint(bmp) == fingerprint(pixels)
    changed = pixels.copy()
    changed[5, 5, 1] ^= 1
    assert fingerprint(changed).content != fingerprint(pixels).content
    assert fingerprint(pixels.reshape(47, 33, 3)).content != fingerprint(pixels).content


def test_matches_are_those_of_counting_bits_one_by_one() -> None:
    random = np.random.default_rng(0)
    base = [int(v) for v in random.integers(0, 2**63, 30)]
    near = [v ^ sum(1 << int(b) for b in random.choice(64, k, replace=False)) for k, v in enumerate(base[:10])]
    stored = [Fingerprint(bytes([i] * 16), v) for i, v in enumerate(base)]
    queries = [Fingerprint(bytes([i + 100] * 16), v) for i, v in enumerate(near)]
    found = {(m.query, m.stored): m.distance for m in Index(stored).matches(queries, within=6)}
    slow = {
        (q, s): (near[q] ^ base[s]).bit_count() for q in range(10) for s in range(30)
        if (near[q] ^ base[s]).bit_count() <= 6
    }  # fmt: skip
    assert slow.items() <= found.items()
    assert found == {pair: int(distances(queries, stored)[pair]) for pair in found}
    assert len(slow) == 7


def test_equal_pixels_are_exact_and_come_first() -> None:
    one = Fingerprint(b"a" * 16, 0b1011)
    stored = [Fingerprint(b"b" * 16, 0b1011), one, Fingerprint(b"c" * 16, ~0b1011 & (1 << 64) - 1)]
    first, second = Index(stored).matches([one])[:2]
    assert (first.stored, first.exact, first.distance) == (1, True, 0)
    assert (second.stored, second.exact, second.distance) == (0, False, 0)


def test_a_flat_picture_has_a_hash() -> None:
    grey = np.full((40, 60, 3), 90, np.uint8)
    assert fingerprint(grey).perceptual == 0
    assert _apart(grey, _picture(5)) > NEAR


def test_no_images_match_nothing() -> None:
    assert Index([]).matches([fingerprint(drawn())]) == []
    assert copies_within([]) == []
    assert decode(encode([])) == []


def test_the_text_holds_every_fingerprint() -> None:
    images = [fingerprint(_picture(seed, 40, 50)) for seed in range(5)]
    text = encode(images)
    assert set(decode(text)) == set(images)
    assert encode(images[::-1]) == text
    assert len(text.partition(":")[2]) == 5 * 144


def test_texts_of_older_weights_are_read_and_kept_beside_newer_ones() -> None:
    new = [fingerprint(_picture(seed, 40, 50)) for seed in range(3)]
    old = [Fingerprint(bytes([i] * 16), 2**40 + i) for i in range(4)]
    of_old = base64.b64encode(b"".join(one.content + one.perceptual.to_bytes(8, "big") for one in old)).decode()
    assert decode(f"dct64-1:{of_old}") == old
    both = encode([*old, *new])
    assert set(decode(both)) == {*old, *new}
    again = [Fingerprint(one.content, one.perceptual) for one in new]
    assert encode([*old, *new, *again]) == both, "what is known with its sketch isn't kept without"
    assert Index(decode(f"dct64-1:{of_old}")).matches(old)[0].exact


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dct64-3:", "scheme 'dct64-3'.*reads dct64-2 and dct64-1"),
        ("", "scheme ''"),
        ("dct64-1:%%%%", "damaged: not base64"),
        ("dct64-1:AAAA", "damaged: 3 bytes, not a multiple of 24"),
        ("dct64-2:AAAA", "damaged: 3 bytes, not a multiple of 108"),
        ("dct64-2: ", "scheme ''"),
        ("dct64-1:é", "damaged: not base64"),
    ],
)
def test_other_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        decode(text)


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        ("BUSI/Dataset_BUSI_with_GT/benign", ("benign (233).png", "benign (299).png")),
        ("BUSI/Dataset_BUSI_with_GT/malignant", ("malignant (4).png", "malignant (5).png")),
    ],
)
def test_known_copies_are_found(shared_data: Path, folder: str, names: tuple[str, str]) -> None:
    one, other = (read_pixels(shared_data / folder / name) for name in names)
    assert 0 < _apart(one, other) <= NEAR


def test_a_copy_across_the_official_split_is_found(shared_data: Path) -> None:
    root = shared_data / "ISIC2017"
    paths = [next(root.rglob(f"{name}.jpg")) for name in ("ISIC_0012970", "ISIC_0012127")]
    assert [path.parent.name for path in paths] == ["ISIC-2017_Training_Data", "ISIC-2017_Validation_Data"]
    assert _apart(*map(read_pixels, paths)) <= NEAR
