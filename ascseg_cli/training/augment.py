"""Random changes to a batch of images, drawn afresh for each image, on the device where the batch lies.

Geometry moves image and mask by the same sampling grid; the mask is cut at one half afterwards, so it stays exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ascseg_cli.training.artefacts import endoscopy, picture, skin, ultrasound
from ascseg_cli.training.draws import Draws, plane
from ascseg_cli.training.settings import Augmentation

_Change = Callable[[Tensor, Draws], Tensor]

# By the name of their chance in the settings; the camera's own colours come between them.
SCENE: dict[str, _Change] = {
    "hairs": skin.hairs,
    "ink": skin.ink,
    "ruler": skin.ruler,
    "highlights": endoscopy.highlights,
    "speckle": ultrasound.speckle,
    "shadow": ultrasound.shadow,
    "gain": ultrasound.gain,
    "vignette": skin.vignette,
    "motion": picture.motion,
}
SCREEN: dict[str, _Change] = {
    "box": endoscopy.box,
    "coarse": picture.coarse,
    "jpeg": picture.jpeg,
    "cutout": picture.cutout,
}


class Augmenter:
    """Draws changes from its own generator, so that a batch's seed fixes them whatever else draws numbers.

    Nothing here waits for the device or copies to it: the next batch is made while a step runs.

    size  of the batches it returns, px
    """

    def __init__(self, limits: Augmentation, size: int, device: torch.device) -> None:
        self.limits = limits
        self.size = size
        self.generator = torch.Generator(device)
        self.device = device

    def __call__(
        self, images: Tensor, masks: Tensor, seed: int, whole: int = 0, own: range = range(0)
    ) -> tuple[Tensor, Tensor]:
        """One augmented batch.

        images   (b, 3, s, s) uint8
        masks    (b, s, s) bool
        seed     of this batch
        own      which images of a batch of `whole` these are, where they are only some of it
        returns  (b, 3, size, size) float32 in 0..1, (b, 1, size, size) float32, 0 or 1
        """
        draws = Draws(self.generator, seed, whole or len(images), own or range(len(images)))
        both = torch.cat([images.float() / 255, masks[:, None].float()], 1)
        both = self._move(self._flip(both, draws), draws.begin("move"))
        self._befall(SCENE, both[:, :3], draws)
        self._befall({"frame": picture.frame}, both, draws)
        shown = self._recolour(both[:, :3], draws.begin("colour"))
        self._befall(SCREEN, shown, draws)
        return shown, (both[:, 3:] >= 0.5).float()

    def _befall(self, changes: dict[str, _Change], x: Tensor, draws: Draws) -> None:
        """Let each change befall those images of x that it is drawn for, in place."""
        for name, change in changes.items():
            chosen = draws.chosen(name, getattr(self.limits, name))
            if chosen is not None:
                rows, numbers = chosen
                x[rows] = change(x[rows], numbers)

    def _flip(self, x: Tensor, draws: Draws) -> Tensor:
        """Flips and quarter turns, exact to the pixel."""
        across, down, turn = (draws.begin("flip").uniform(3, 1, 1, 1) < 0.5).unbind(1)
        if self.limits.flips != "none":
            x = torch.where(across, x.flip(3), x)
        if self.limits.flips == "both":
            x = torch.where(down, x.flip(2), x)
        if self.limits.turns:
            x = torch.where(turn, x.transpose(2, 3), x)
        return x

    def _move(self, x: Tensor, draws: Draws) -> Tensor:
        """Rotation, zoom, stretch and shift; black and empty where the image doesn't reach."""
        limits = self.limits
        most, far = math.radians(limits.rotation), 2 * limits.shift
        angle, right, down = draws.between((-most, most), (-far, far), (-far, far))
        zoom, stretch = draws.factors(limits.zoom, math.sqrt(limits.stretch))
        rows, columns = plane(self.size, self.size, self.device)
        rows, columns = rows * (zoom / stretch), columns * (zoom * stretch)
        cos, sin = angle.cos(), angle.sin()
        grid = torch.cat([columns * cos - rows * sin + right, columns * sin + rows * cos + down], 1)
        return F.grid_sample(x, grid.movedim(1, 3), align_corners=False)

    def _recolour(self, x: Tensor, draws: Draws) -> Tensor:
        """Gamma, contrast, brightness, tint, saturation, blur and noise, in this order; (b, 3, h, w), 0..1."""
        limits = self.limits
        gamma, contrast, saturation = draws.factors(limits.gamma, limits.contrast, limits.saturation)
        (tint,) = draws.factors(limits.tint, each=3)
        brightness, blur, noise = draws.between((-limits.brightness, limits.brightness), (-2, 1), (-2, 1))
        x = x.clamp(1e-4, 1) ** gamma
        middle = x.mean((1, 2, 3), keepdim=True)
        x = ((x - middle) * contrast + (middle + brightness)) * tint
        grey = x.mean(1, keepdim=True)
        x = grey + (x - grey) * saturation
        if limits.blur:  # a third of the images
            blurred = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
            x = torch.lerp(x, blurred, blur.clamp_min(0) * limits.blur)
        if limits.noise:
            x = x + draws.normal(*x.shape[1:]) * (noise.clamp_min(0) * limits.noise)
        return x.clamp(0, 1)
