"""Random masks of every kind that breaks a metric: noise, blobs, single pixels, lines, empty and full ones."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np


def random_mask(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """One mask (h, w) bool of a kind drawn at random."""
    kind = random.integers(8)
    mask = np.zeros(shape, bool)
    if kind == 1:
        mask[:] = True
    elif kind == 2:
        mask[random.integers(shape[0]), random.integers(shape[1])] = True
    elif kind == 3:
        mask = random.random(shape) < random.random()
    elif kind == 4:
        mask[random.integers(shape[0])] = True
    elif kind > 4:
        noise = cv2.GaussianBlur(random.normal(size=shape), (0, 0), max(shape) / random.uniform(4, 20))
        mask = noise > np.quantile(noise, random.uniform(0.2, 0.95))
    return mask


def random_pairs(count: int, seed: int, largest: int = 24) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of masks of one shape, which differs from pair to pair; every tenth pair is twice the same mask."""
    random = np.random.default_rng(seed)
    for i in range(count):
        shape = (int(random.integers(1, largest)), int(random.integers(1, largest)))
        pred = random_mask(random, shape)
        yield pred, pred.copy() if i % 10 == 0 else random_mask(random, shape)
