"""The pixel rules inside the ONNX file against those of predict."""

from __future__ import annotations

import numpy as np
import pytest

from ascseg_cli.data.preprocess import prepare, resize_probability
from ascseg_cli.graphs.to_onnx import pixels
from ascseg_cli.network.metadata import Preprocessing

from .conftest import run_nodes

SIZES = [(32, 48), (400, 400), (255, 511), (61, 83), (17, 301), (1, 1), (1, 9)]
ANTIALIAS = Preprocessing(rule="squeeze_antialias", size=(32, 48), mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 0.4))
STRETCH = Preprocessing(rule="stretch_bilinear", size=(32, 48))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape[1]).integers(3, 250, shape, dtype=np.uint8)


@pytest.mark.parametrize(("how", "limit"), [(ANTIALIAS, 1e-4), (STRETCH, 0.02)])
@pytest.mark.parametrize("size", SIZES)
def test_images_are_prepared_as_predict_does(how: Preprocessing, limit: float, size: tuple[int, int]) -> None:
    """Noise, borders included, on which any other filter differs by tens of grey values."""
    images = noise(2, *size, 3)
    got = run_nodes(lambda g, image: pixels.prepared(g, image, how), image=images)
    want = [prepare(image, rule=how.rule, size=how.size, mean=how.mean, std=how.std) for image in images]
    assert np.abs(got - np.stack(want)).max() < limit


def test_an_image_of_one_value_is_stretched_to_nothing() -> None:
    image = np.full((1, 20, 30, 3), 77, np.uint8)
    assert not run_nodes(lambda g, image: pixels.prepared(g, image, STRETCH), image=image).any()


@pytest.mark.parametrize("size", SIZES)
def test_probabilities_come_back_to_the_image_s_size(size: tuple[int, int]) -> None:
    small = np.random.default_rng(0).random((2, 1, 32, 48), np.float32)
    got = run_nodes(pixels.at_size_of, p=small, image=noise(2, *size, 3))
    assert got.shape == (2, 1, *size)
    want = np.stack([resize_probability(p[0], size) for p in small])
    assert np.abs(got[:, 0] - want).max() < 3e-5


def test_padding_repeats_the_border_and_cropping_takes_it_away() -> None:
    image = np.random.default_rng(0).random((2, 3, 17, 32), np.float32)
    padded = run_nodes(pixels.padded, image=image)
    assert np.array_equal(padded, np.pad(image, ((0, 0), (0, 0), (0, 15), (0, 0)), mode="edge"))
    cropped = run_nodes(lambda g, image: pixels.cropped(g, pixels.padded(g, image), image), image=image)
    assert np.array_equal(cropped, image)
