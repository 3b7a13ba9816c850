"""Augmentation moves image and mask together, keeps masks exact, and is fixed by its seed."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ascseg_cli.training.artefacts import endoscopy, picture, skin, ultrasound
from ascseg_cli.training.augment import SCENE, SCREEN, Augmenter
from ascseg_cli.training.draws import Draws
from ascseg_cli.training.settings import AUGMENTATION, Augmentation, augmentation_for

CHANCES = [*SCENE, "frame", *SCREEN]
NONE = {name: 0.0 for name in CHANCES}
STILL = Augmentation(
    flips="none", turns=False, rotation=0, zoom=1, stretch=1, shift=0, brightness=0, contrast=1, gamma=1, tint=1,
    saturation=1, blur=0, noise=0, **NONE,
)  # fmt: skip
CPU = torch.device("cpu")


def _draws(seed: int, images: int) -> Draws:
    return Draws(torch.Generator(), seed, images, range(images)).begin("test")


def _blobs(b: int, size: int) -> Tensor:
    """Masks (b, size, size): one disc each, off the centre."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    centres = torch.randint(size // 4, 3 * size // 4, (b, 2, 1, 1), generator=torch.Generator().manual_seed(1))
    return (rows - centres[:, 0]) ** 2 + (columns - centres[:, 1]) ** 2 < (size // 5) ** 2


def _as_pixels(masks: Tensor) -> Tensor:
    return (masks[:, None].expand(-1, 3, -1, -1) * 255).to(torch.uint8)


def _photographs(b: int, size: int) -> Tensor:
    """Smooth pictures (b, 3, size, size) in .2 to .8."""
    coarse = torch.rand(b, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    return torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1) * 0.6 + 0.2


def test_nothing_changes_where_nothing_may() -> None:
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    images, masks = Augmenter(STILL, 32, CPU)(pixels, _blobs(4, 32), 0)
    torch.testing.assert_close(images, pixels / 255, atol=2e-4, rtol=0)
    assert torch.equal(masks[:, 0].bool(), _blobs(4, 32))


def test_flips_and_turns_are_exact_and_all_occur() -> None:
    limits = STILL.model_copy(update={"flips": "both", "turns": True})
    x = torch.rand(64, 4, 5, 5)
    got = Augmenter(limits, 5, CPU)._flip(x, _draws(0, 64))
    orbit = [turned for y in (x, x.transpose(2, 3)) for turned in (y, y.flip(2), y.flip(3), y.flip(2, 3))]
    which = torch.stack([(got == way).flatten(1).all(1) for way in orbit])
    assert which.any(0).all(), "an image is none of its eight turns"
    assert which.any(1).all(), "a turn never occurs"


def test_horizontal_flips_leave_rows_in_place() -> None:
    limits = STILL.model_copy(update={"flips": "horizontal"})
    x = torch.rand(32, 4, 6, 6)
    got = Augmenter(limits, 6, CPU)._flip(x, _draws(0, 32))
    same, flipped = ((got == way).flatten(1).all(1) for way in (x, x.flip(3)))
    assert (same | flipped).all()
    assert same.any()
    assert flipped.any()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("frame", [0, 1])
def test_mask_follows_its_image(seed: int, frame: float) -> None:
    still = {"brightness": 0, "contrast": 1, "gamma": 1, "tint": 1, "saturation": 1, "blur": 0, "noise": 0}
    geometry = Augmentation(**{**still, **NONE, "frame": frame})
    masks = _blobs(16, 80)
    images, moved = Augmenter(geometry, 64, CPU)(_as_pixels(masks), masks, seed)
    assert set(moved.unique().tolist()) == {0.0, 1.0}
    assert torch.equal((images[:, :1] >= 0.5).float(), moved)
    unmoved = torch.nn.functional.interpolate(masks[:, None].float(), 64)
    assert (unmoved != moved).flatten(1).any(1).all(), "an image was not changed"


def test_colour_leaves_masks_alone_and_stays_in_range() -> None:
    colour = Augmentation(flips="none", turns=False, rotation=0, zoom=1, stretch=1, shift=0, frame=0)
    pixels = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)
    images, masks = Augmenter(colour, 32, CPU)(pixels, _blobs(16, 32), 0)
    assert torch.equal(masks[:, 0].bool(), _blobs(16, 32))
    assert 0 <= images.min() < images.max() <= 1
    assert (images - pixels / 255).abs().flatten(1).amax(1).min() > 1e-3


@pytest.mark.parametrize("name", CHANCES)
def test_each_artefact_befalls_its_images_and_no_mask(name: str) -> None:
    pixels = (_photographs(32, 64) * 255).to(torch.uint8)
    masks = _blobs(32, 64)
    plain, _ = Augmenter(STILL, 64, CPU)(pixels, masks, 7)
    for chance, befallen in ((1.0, range(26, 33)), (0.5, range(8, 25))):  # a hair may lie outside
        images, got = Augmenter(STILL.model_copy(update={name: chance}), 64, CPU)(pixels, masks, 7)
        assert images.isfinite().all()
        assert 0 <= images.min() < images.max() <= 1
        changed = (images - plain).abs().flatten(1).amax(1) > 1e-3
        assert int(changed.sum()) in befallen or name in ("ink", "shadow", "cutout", "frame"), int(changed.sum())
        assert changed.any()
        if name != "frame":
            assert torch.equal(got[:, 0].bool(), masks)
        assert (got[:, 0].bool() <= masks).all()


def test_every_known_data_set_has_its_own_artefacts() -> None:
    assert set(AUGMENTATION) == {"isic2017", "isic2018", "ph2", "kvasir", "busi"}
    assert augmentation_for("ph2").hairs > 0 == augmentation_for("ph2").speckle
    assert augmentation_for("busi").speckle > 0 == augmentation_for("busi").hairs
    assert augmentation_for("kvasir").highlights > 0 == augmentation_for("kvasir").ruler
    assert {name for name in Augmentation.model_fields if name in CHANCES} == set(CHANCES)


def test_a_frame_is_black_outside_and_leaves_the_inside() -> None:
    ones = torch.ones(64, 4, 96, 96)
    framed = picture.frame(ones, _draws(3, 64))
    assert torch.equal(framed[:, 0], framed[:, 3])
    edges = ((framed > 0) & (framed < 1)).float().mean((1, 2, 3))
    assert edges.max() < 0.1, "the edge of a frame is a few pixels wide"
    assert (framed[:, 0, 48 - 10 : 48 + 10, 48 - 10 : 48 + 10] == 1).all()
    assert (framed[:, 0, 0, 0] == 0).float().mean() > 0.5


def test_hairs_and_ticks_are_thin_and_leave_the_rest() -> None:
    x = torch.full((64, 3, 128, 128), 0.7)
    for change, most in ((skin.hairs, 0.3), (skin.ruler, 0.06), (skin.ink, 0.25)):
        touched = (change(x, _draws(5, 64)) != x).any(1).float().mean((1, 2))
        assert 0.001 < touched.mean() < most
        assert touched.max() < 2 * most


def test_shadows_and_vignettes_only_darken_and_spots_only_brighten() -> None:
    x = _photographs(32, 64)
    for change, sign in ((ultrasound.shadow, -1), (skin.vignette, -1), (endoscopy.highlights, 1)):
        difference = (change(x, _draws(2, 32)) - x) * sign
        assert difference.min() > -1e-6
        assert difference.max() > 0.1


def test_motion_blurs_along_one_line_only() -> None:
    rows = torch.linspace(0, 1, 64)[None, None, :, None].expand(16, 3, 64, 64)  # a ramp stays one within
    blurred = picture.motion(rows, _draws(1, 16))
    torch.testing.assert_close(blurred[:, :, 8:-8], rows[:, :, 8:-8], atol=1e-4, rtol=0)
    spot = torch.zeros(16, 3, 65, 65)
    spot[:, :, 32, 32] = 1
    spread = picture.motion(spot, _draws(1, 16))[:, 0]
    at = torch.arange(65.0) - 32
    weights = spread / spread.sum((1, 2), keepdim=True)
    down, across = (weights * at[:, None] ** 2).sum((1, 2)), (weights * at**2).sum((1, 2))
    both = (weights * at[:, None] * at).sum((1, 2))
    narrow = (down + across) / 2 - (((down - across) / 2) ** 2 + both**2).sqrt()
    assert narrow.max() < 0.6, "the blur across the line is a pixel's own"
    assert (down + across).max() > 1


def test_blocks_are_those_of_a_real_jpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = (_photographs(1, 64)[0] * 255).round().to(torch.uint8)
    monkeypatch.setattr(Draws, "between", lambda self, *ranges: (torch.zeros(1, 1, 1, 1),))  # quality 50
    got = picture.jpeg(pixels[None] / 255, _draws(0, 1))[0] * 255
    file = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=50, subsampling=0)
    real = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float()
    loss, apart = (real - pixels).abs().mean(), (got - real).abs().mean()
    assert loss > 0.5
    assert apart < 0.5 * loss, "nearer to what Pillow's JPEG gives than that is to the picture"


def test_a_batchs_seed_fixes_the_draw() -> None:
    masks = _blobs(8, 40)
    first, again, other = (Augmenter(Augmentation(), 32, CPU)(_as_pixels(masks), masks, s)[0] for s in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_one_change_leaves_the_draws_of_the_others() -> None:
    pixels = (_photographs(8, 40) * 255).to(torch.uint8)
    with_hairs, without = (
        Augmenter(Augmentation(hairs=chance), 32, CPU)(pixels, _blobs(8, 40), 5)[1] for chance in (0.5, 0)
    )
    assert torch.equal(with_hairs, without)


class _Operations(TorchDispatchMode):
    """Counts what is launched, and refuses what would wait for a GPU or copy to it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = function.overloadpacket._qualified_op_name
        assert name not in ("aten::_local_scalar_dense", "aten::nonzero", "aten::lift_fresh"), name
        scalars = [one for one in args if isinstance(one, Tensor) and one.dim() == 0]
        assert name != "aten::where" or not scalars, "a GPU would be sent this number"
        self.count += not any(one.alias_info for one in function._schema.returns)  # views cost nothing
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("dataset", ["kvasir", "busi", "ph2"])
def test_a_batch_costs_few_operations_and_never_waits(dataset: str) -> None:
    pixels, masks = (_photographs(8, 40) * 255).to(torch.uint8), _blobs(8, 40)
    augmenter = Augmenter(augmentation_for(dataset), 32, CPU)
    for seed in range(40):
        augmenter(pixels, masks, seed)  # constants are made
    counts = []
    for seed in range(40):
        with _Operations() as operations:
            augmenter(pixels, masks, seed)
        counts.append(operations.count)
    assert np.mean(counts) < 220, "each costs a GPU some microseconds"
