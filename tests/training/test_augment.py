"""Augmentation moves image and mask together, keeps flips exact, and is fixed by its seed."""

from __future__ import annotations

import pytest
import torch

from ascseg_cli.training.augment import Augmenter
from ascseg_cli.training.settings import Augmentation

STILL = Augmentation(
    flips="none", turns=False, rotation=0, zoom=1, stretch=1, shift=0, brightness=0, contrast=1, gamma=1, tint=1,
    saturation=1, blur=0, noise=0,
)  # fmt: skip
CPU = torch.device("cpu")


def _blobs(b: int, size: int) -> torch.Tensor:
    """Masks (b, size, size): one disc each, off the centre."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    centres = torch.randint(size // 4, 3 * size // 4, (b, 2, 1, 1), generator=torch.Generator().manual_seed(1))
    return (rows - centres[:, 0]) ** 2 + (columns - centres[:, 1]) ** 2 < (size // 5) ** 2


def _as_pixels(masks: torch.Tensor) -> torch.Tensor:
    return (masks[:, None].expand(-1, 3, -1, -1) * 255).to(torch.uint8)


def test_nothing_changes_where_nothing_may() -> None:
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    images, masks = Augmenter(STILL, 32, CPU)(pixels, _blobs(4, 32), 0)
    torch.testing.assert_close(images, pixels / 255, atol=2e-4, rtol=0)
    assert torch.equal(masks[:, 0].bool(), _blobs(4, 32))


def test_flips_and_turns_are_exact_and_all_occur() -> None:
    limits = STILL.model_copy(update={"flips": "both", "turns": True})
    x = torch.rand(64, 4, 5, 5)
    got = Augmenter(limits, 5, CPU)._flip(x)
    orbit = [turned for y in (x, x.transpose(2, 3)) for turned in (y, y.flip(2), y.flip(3), y.flip(2, 3))]
    which = torch.stack([(got == way).flatten(1).all(1) for way in orbit])
    assert which.any(0).all(), "an image is none of its eight turns"
    assert which.any(1).all(), "a turn never occurs"


def test_horizontal_flips_leave_rows_in_place() -> None:
    limits = STILL.model_copy(update={"flips": "horizontal"})
    x = torch.rand(32, 4, 6, 6)
    got = Augmenter(limits, 6, CPU)._flip(x)
    same, flipped = ((got == way).flatten(1).all(1) for way in (x, x.flip(3)))
    assert (same | flipped).all()
    assert same.any()
    assert flipped.any()


@pytest.mark.parametrize("seed", range(3))
def test_mask_follows_its_image(seed: int) -> None:
    geometry = Augmentation(brightness=0, contrast=1, gamma=1, tint=1, saturation=1, blur=0, noise=0)
    masks = _blobs(16, 80)
    images, moved = Augmenter(geometry, 64, CPU)(_as_pixels(masks), masks, seed)
    assert set(moved.unique().tolist()) == {0.0, 1.0}
    assert torch.equal((images[:, :1] >= 0.5).float(), moved)
    unmoved = torch.nn.functional.interpolate(masks[:, None].float(), 64)
    assert (unmoved != moved).flatten(1).any(1).all(), "an image was not changed"


def test_colour_leaves_masks_alone_and_stays_in_range() -> None:
    colour = Augmentation(flips="none", turns=False, rotation=0, zoom=1, stretch=1, shift=0)
    pixels = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)
    images, masks = Augmenter(colour, 32, CPU)(pixels, _blobs(16, 32), 0)
    assert torch.equal(masks[:, 0].bool(), _blobs(16, 32))
    assert 0 <= images.min() < images.max() <= 1
    assert (images - pixels / 255).abs().flatten(1).amax(1).min() > 1e-3


def test_a_batchs_seed_fixes_the_draw() -> None:
    masks = _blobs(8, 40)
    first, again, other = (Augmenter(Augmentation(), 32, CPU)(_as_pixels(masks), masks, s)[0] for s in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
