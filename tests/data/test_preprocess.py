"""Preprocessing against torch in float64, and against Pillow's own filter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from ascseg_cli.data.preprocess import prepare, resize_probability
from ascseg_cli.errors import WeightsError

# up, down, mixed, exact factors, one pixel, one line, very elongated, equal, 12 megapixels
SHAPES = [
    (100, 80), (531, 622), (768, 1024), (64, 999), (512, 512), (1, 1), (1, 300), (300, 1), (2, 3),
    (5, 3000), (4001, 3), (256, 256), (257, 255),
]  # fmt: skip
SIZES = [(256, 256), (48, 80)]
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def pixels(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def scaled(
    values: np.ndarray, size: tuple[int, int], antialias: bool, dtype: torch.dtype = torch.float64
) -> np.ndarray:
    """torch's interpolate: (h, w, c) -> (c, rows, columns)."""
    x = torch.from_numpy(values).to(dtype).permute(2, 0, 1)[None]
    return interpolate(x, size, mode="bilinear", antialias=antialias, align_corners=False)[0].numpy()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_squeeze_is_the_antialiased_triangle_filter(shape: tuple[int, int], size: tuple[int, int]) -> None:
    image = pixels(shape)
    got = prepare(image, rule="squeeze_antialias", size=size, mean=(0, 0, 0), std=(1 / 255,) * 3)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    exact = scaled(image, size, antialias=True)
    torchs = np.abs(scaled(image, size, antialias=True, dtype=torch.float32) - exact).max()
    error = np.abs(got - exact).max()
    assert error <= 2 * torchs + np.finfo(np.float32).eps * 255, f"{error:.2g}, torch {torchs:.2g}"
    assert error < 2e-4  # of 255


def test_squeeze_equals_pillow_in_float() -> None:
    image = pixels((531, 622))
    got = prepare(image, rule="squeeze_antialias", size=(256, 256), mean=(0, 0, 0), std=(1, 1, 1))
    for channel in range(3):
        want = Image.fromarray(image[:, :, channel]).convert("F").resize((256, 256), Image.Resampling.BILINEAR)
        assert np.abs(got[channel] * 255 - np.asarray(want)).max() < 1e-4


def test_mean_and_std_go_by_channel() -> None:
    image = pixels((90, 70))
    got = prepare(image, rule="squeeze_antialias", size=(32, 48), mean=MEAN, std=STD)
    mean, std = (np.array(v)[:, None, None] for v in (MEAN, STD))
    assert np.abs(got - (scaled(image, (32, 48), antialias=True) / 255 - mean) / std).max() < 3e-6


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_stretch_uses_the_pictures_own_range_and_no_antialias(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    image = pixels(shape) // 3 + 40
    low, high = float(image.min()), float(image.max())
    stretched = (image.astype(np.float64) - low) / max(high - low, 1) * 255
    got = prepare(image, rule="stretch_bilinear", size=size, mean=MEAN, std=STD)
    assert got.dtype == np.float32
    assert np.abs(got - scaled(stretched, size, antialias=False)).max() < 1e-3  # values/3 + 40: errors grow by 3


def test_a_picture_of_one_value_stretches_to_zero() -> None:
    image = np.full((20, 30, 3), 77, np.uint8)
    got = prepare(image, rule="stretch_bilinear", size=(16, 16), mean=MEAN, std=STD)
    assert np.array_equal(got, np.zeros((3, 16, 16), np.float32))


def test_the_rules_differ() -> None:
    """Antialias matters: were it dropped, the tests above would have to tell."""
    image = pixels((768, 1024))
    assert np.abs(scaled(image, (256, 256), True) - scaled(image, (256, 256), False)).max() > 50


def test_strided_pixels() -> None:
    image = pixels((91, 70))
    turned = image.swapaxes(0, 1)[::-1]
    arguments = {"rule": "squeeze_antialias", "size": (32, 32), "mean": MEAN, "std": STD}
    assert np.array_equal(prepare(turned, **arguments), prepare(turned.copy(), **arguments))


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(WeightsError, match="unknown preprocessing 'crop'"):
        prepare(pixels((4, 4)), rule="crop", size=(16, 16), mean=MEAN, std=STD)


@pytest.mark.parametrize("shape", [*SHAPES, (3, 40_000)])
def test_probabilities_scale_as_torch_does(shape: tuple[int, int]) -> None:
    probability = np.random.default_rng(1).random((256, 256), dtype=np.float32)
    got = resize_probability(probability, shape)
    want = scaled(probability[:, :, None], shape, antialias=False)[0]
    assert got.dtype == np.float32
    assert got.shape == shape
    assert np.abs(got - want).max() < 1e-6  # torch in float32: 2e-5
    assert got.min() >= 0
    assert got.max() <= 1
