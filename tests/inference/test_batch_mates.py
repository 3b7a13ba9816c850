"""An image's probabilities depend on the image alone: not on its batch, its place there, its mates, the threads.

To the last bit. Plain torch rounds by an image's place in a batch, so on the CPU the engine gives it single ones.
On a GPU it holds for batches of one size, which a run keeps (a short one is filled up).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ascseg_cli.inference.engine import open_engine
from ascseg_cli.inference.torch_engine import TorchEngine
from ascseg_cli.kernels import backend
from ascseg_cli.weights.store import locate

ORDERS = ([0, 1, 2, 3], [3, 2, 1, 0], [0, 0, 0, 0], [2, 3, 3, 1])


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    drawn = np.random.default_rng(0).normal(size=(4, 3, 256, 256)).astype(np.float32)
    drawn[3] *= 50  # a mate whose numbers would drown the others'
    return drawn


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def engine_of(weights: Path, name: str) -> TorchEngine:
    if not backend.availability(name).ok:
        pytest.skip(f"backend {name}: {backend.availability(name).reason}")
    return open_engine(weights, device="cuda" if name == "gpu" else "cpu", backend=name)


def test_compiled_kernels_give_the_same_bits_in_any_batch_and_with_any_threads(
    images: np.ndarray, threads: None
) -> None:
    engine = engine_of(locate("kvasir", None), "cpu")
    torch.set_num_threads(1)
    alone = np.concatenate([engine.probabilities(images[i : i + 1]) for i in range(4)])
    assert len({one.tobytes() for one in alone}) == 4
    for count, orders in ((1, ([1, 3], *ORDERS[1:2])), (2, ([2], [2, 0, 1]))):
        torch.set_num_threads(count)
        for order in orders:
            np.testing.assert_array_equal(engine.probabilities(images[order]), alone[order], strict=True)


@pytest.mark.parametrize("name", ["reference", "gpu"])
def test_in_batches_of_one_size_neither_mates_nor_places_matter(
    drawn_weights: Path, images: np.ndarray, name: str
) -> None:
    engine, small = engine_of(drawn_weights, name), np.ascontiguousarray(images[:, :, :32, :48])
    whole = {tuple(order): engine.probabilities(small[order]) for order in ORDERS}
    first = whole[(0, 1, 2, 3)]
    assert len({one.tobytes() for one in first}) == 4
    for order, got in whole.items():
        np.testing.assert_array_equal(got, first[list(order)], strict=True)
