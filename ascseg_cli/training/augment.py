"""Random changes to a batch of images, drawn afresh for each image, on the device where the batch lies.

Geometry moves image and mask by the same sampling grid; the mask is cut at one half afterwards, so it stays exact.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ascseg_cli.training.settings import Augmentation


class Augmenter:
    """Draws changes from its own generator, so that a batch's seed fixes them whatever else draws numbers.

    size  of the batches it returns, px
    """

    def __init__(self, limits: Augmentation, size: int, device: torch.device) -> None:
        self.limits = limits
        self.size = size
        self.generator = torch.Generator(device)
        self.device = device

    def __call__(self, images: Tensor, masks: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """One augmented batch.

        images   (b, 3, s, s) uint8
        masks    (b, s, s) bool
        seed     of this batch
        returns  (b, 3, size, size) float32 in 0..1, (b, 1, size, size) float32, 0 or 1
        """
        self.generator.manual_seed(seed)
        both = torch.cat([images / 255, masks[:, None].float()], 1)
        moved = self._move(self._flip(both))
        return self._recolour(moved[:, :3]), (moved[:, 3:] >= 0.5).float()

    def _flip(self, x: Tensor) -> Tensor:
        """Flips and quarter turns, exact to the pixel."""
        b = x.shape[0]
        if self.limits.flips != "none":
            x = torch.where(self._coin(b), x.flip(3), x)
        if self.limits.flips == "both":
            x = torch.where(self._coin(b), x.flip(2), x)
        if self.limits.turns:
            x = torch.where(self._coin(b), x.transpose(2, 3), x)
        return x

    def _move(self, x: Tensor) -> Tensor:
        """Rotation, zoom, stretch and shift; black and empty where the image doesn't reach."""
        b, limits = x.shape[0], self.limits
        angle = self._spread(b, math.radians(limits.rotation))
        zoom = self._factor(b, limits.zoom)
        stretch = self._factor(b, limits.stretch).sqrt()
        shift = self._spread(2 * b, 2 * limits.shift).view(b, 2)
        cos, sin = angle.cos(), angle.sin()
        rows = [
            cos * zoom * stretch,
            -sin * zoom / stretch,
            shift[:, 0],
            sin * zoom * stretch,
            cos * zoom / stretch,
        ]
        theta = torch.stack([*rows, shift[:, 1]], 1).view(b, 2, 3)
        grid = F.affine_grid(theta, [b, x.shape[1], self.size, self.size], align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)

    def _recolour(self, x: Tensor) -> Tensor:
        """Gamma, contrast, brightness, tint, saturation, blur and noise, in this order; (b, 3, h, w), 0..1."""
        b, limits = x.shape[0], self.limits
        each = (b, 1, 1, 1)
        x = x.clamp(1e-4, 1) ** self._factor(b, limits.gamma).view(each)
        middle = x.mean((1, 2, 3), keepdim=True)
        x = (x - middle) * self._factor(b, limits.contrast).view(each) + middle
        x = x + self._spread(b, limits.brightness).view(each)
        x = x * self._factor(3 * b, limits.tint).view(b, 3, 1, 1)
        grey = x.mean(1, keepdim=True)
        x = grey + (x - grey) * self._factor(b, limits.saturation).view(each)
        blurred = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        x = torch.lerp(x, blurred, self._seldom(b, limits.blur).view(each))
        noise = torch.randn(x.shape, generator=self.generator, device=self.device)
        return (x + noise * self._seldom(b, limits.noise).view(each)).clamp(0, 1)

    def _uniform(self, n: int) -> Tensor:
        return torch.rand(n, generator=self.generator, device=self.device)

    def _coin(self, b: int) -> Tensor:
        return (self._uniform(b) < 0.5).view(b, 1, 1, 1)

    def _spread(self, n: int, most: float) -> Tensor:
        return (self._uniform(n) * 2 - 1) * most

    def _factor(self, n: int, most: float) -> Tensor:
        """Between 1/most and most, as often below 1 as above."""
        return torch.exp(self._spread(n, math.log(most)))

    def _seldom(self, n: int, most: float) -> Tensor:
        """Between 0 and `most` for a third of the images, 0 for the rest."""
        return (self._uniform(n) * 3 - 2).clamp_min(0) * most
