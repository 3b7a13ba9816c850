"""From pixels to probabilities: the mean over four views, each turned back, against a computation by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ascseg_cli.inference.tta import predict_probability, probabilities


class Crooked:
    """Looks at one side more than at the other, so that every view gives another answer."""

    takes_pixels = False

    def __init__(self, engine) -> None:  # type: ignore[no-untyped-def]
        self.prepared = engine.prepared

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        height, width = images.shape[2:]
        weight = np.linspace(0, 1, width, dtype=np.float32) + np.linspace(0, 3, height, dtype=np.float32)[:, None]
        return 1 / (1 + np.exp(-images[:, 0] * weight))


def test_the_mean_of_four_views_each_turned_back(engine) -> None:  # type: ignore[no-untyped-def]
    images = np.random.default_rng(0).normal(size=(2, 3, 5, 7)).astype(np.float32)
    crooked = Crooked(engine)
    one = crooked.probabilities
    want = (
        one(images).astype(np.float64)
        + one(images[:, :, :, ::-1])[:, :, ::-1]
        + one(images[:, :, ::-1])[:, ::-1]
        + one(images[:, :, ::-1, ::-1])[:, ::-1, ::-1]
    ) / 4
    got = probabilities(crooked, images, tta=True)  # type: ignore[arg-type]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=2e-7)
    assert np.abs(got - one(images)).max() > 0.01
    np.testing.assert_array_equal(probabilities(crooked, images), one(images))  # type: ignore[arg-type]


@pytest.mark.parametrize("tta", [False, True])
def test_probabilities_have_the_size_of_the_picture(engine, draw, tta: bool) -> None:  # type: ignore[no-untyped-def]
    pixels = draw(3, (31, 57))
    p = predict_probability(engine, pixels, tta=tta)
    assert p.shape == (31, 57)
    assert p.dtype == np.float32
    assert engine.prepared(pixels).shape == (3, 48, 64)


def test_a_mirrored_picture_gives_the_mirrored_probabilities(engine, draw) -> None:  # type: ignore[no-untyped-def]
    pixels = draw(4)
    crooked = Crooked(engine)
    got = predict_probability(crooked, pixels, tta=True)  # type: ignore[arg-type]
    turned = predict_probability(crooked, np.ascontiguousarray(pixels[:, ::-1]), tta=True)  # type: ignore[arg-type]
    np.testing.assert_allclose(got, turned[:, ::-1], atol=1e-6)
