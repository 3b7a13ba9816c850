"""Overlays: the boundary is shown exactly, and stands out from whatever lies below."""

from __future__ import annotations

import numpy as np
import pytest

from ascseg_cli.inference import overlay

BACKGROUNDS = {
    "black ultrasound": (0, 0, 0),
    "grey ultrasound": (110, 110, 110),
    "white": (255, 255, 255),
    "bright skin": (235, 190, 170),
    "dark lesion": (70, 40, 30),
    "red mucosa": (200, 70, 50),
    "cyan like the tint": overlay.TINT,
}


def disc(height: int, width: int, radius: float) -> np.ndarray:
    y, x = np.indices((height, width))
    return np.hypot(y - height / 2, x - width / 2) < radius


def luminance(colour: np.ndarray) -> np.ndarray:
    linear = np.where(colour <= 10, colour / 255 / 12.92, ((colour / 255 + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_one_of_the_two_lines_contrasts_with_any_background(name: str) -> None:
    """Contrast at least 3:1, as WCAG 2 asks of graphics, by luminance alone."""
    ground = luminance(np.array(BACKGROUNDS[name], float))
    ratios = [
        (max(ground, line) + 0.05) / (min(ground, line) + 0.05)
        for line in (luminance(np.array(c, float)) for c in (overlay.LINE, overlay.OUTSIDE))
    ]
    assert max(ratios) >= 3


@pytest.mark.parametrize(("height", "width"), [(60, 80), (768, 1024), (1500, 1300)])
def test_the_boundary_runs_between_the_two_lines(height: int, width: int) -> None:
    mask = disc(height, width, height / 4)
    pixels = np.full((height, width, 3), 90, np.uint8)
    drawn = overlay.draw(pixels, mask)
    bright, black = ((drawn == colour).all(-1) for colour in (overlay.LINE, overlay.OUTSIDE))
    assert not (bright & ~mask).any()
    assert not (black & mask).any()
    for axis in (0, 1):
        inside = np.diff(mask.astype(int), axis=axis) != 0
        first = np.take(bright, range(mask.shape[axis] - 1), axis) | np.take(
            black, range(mask.shape[axis] - 1), axis
        )
        assert first[inside].all()
    untouched = ~mask & ~black
    assert (drawn[untouched] == 90).all()
    assert bright.sum() == pytest.approx(2 * np.pi * height / 4 * overlay.line_width(mask.shape), rel=0.3)


def test_the_tint_leaves_the_texture_visible() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)
    mask = np.zeros((200, 200), bool)
    mask[40:160, 40:160] = True
    drawn = overlay.draw(pixels, mask)[60:140, 60:140].astype(float)
    assert np.corrcoef(drawn.ravel(), pixels[60:140, 60:140].ravel())[0, 1] > 0.9
    assert np.abs(drawn - pixels[60:140, 60:140]).mean() > 15


def test_the_input_stays_as_it_was_and_an_empty_mask_changes_nothing() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    before = pixels.copy()
    np.testing.assert_array_equal(overlay.draw(pixels, np.zeros((9, 11), bool)), pixels)
    overlay.draw(pixels, np.ones((9, 11), bool))
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (2, 2)])
def test_tiny_images(shape: tuple[int, int]) -> None:
    drawn = overlay.draw(np.zeros((*shape, 3), np.uint8), np.ones(shape, bool))
    assert drawn.shape == (*shape, 3)
    assert (drawn != 0).any()


def test_a_mask_that_fills_the_image_has_no_outline_at_the_image_edge() -> None:
    drawn = overlay.draw(np.full((50, 50, 3), 100, np.uint8), np.ones((50, 50), bool))
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) == 1
