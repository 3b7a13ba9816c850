"""Batches by number: which images a step sees and how they are changed follows from its place in the run alone.

No random stream runs on from one batch to the next, so a run continues at any step as if it had never stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ascseg_cli.network.metadata import Preprocessing
from ascseg_cli.training.augment import Augmenter
from ascseg_cli.training.images import Images
from ascseg_cli.training.settings import Settings, Stage
from ascseg_cli.training.team import ALONE, Team

Soften = Callable[[Tensor, Tensor], Tensor]

_NO_STAGE = -1  # of batches that nothing is trained on


@dataclass(frozen=True)
class Place:
    """Where a run stands, between two steps.

    step    steps done
    stage   the stage's number; epoch counts the passes over the images that this stage has finished
    offset  images of the pass that are used up
    drawn   images in all the steps so far
    """

    step: int = 0
    stage: int = 0
    epoch: int = 0
    offset: int = 0
    drawn: int = 0

    def after(self, batch: int) -> Place:
        """The place one step of `batch` images later."""
        return replace(self, step=self.step + 1, offset=self.offset + batch, drawn=self.drawn + batch)


class Batches:
    """Augmented batches at one stage's size: each epoch in an order of its own, an incomplete last batch dropped.

    images are kept a little larger than the batches (settings.drawn_size to settings.size), shrunk with antialias
    where the batches are smaller still.

    soften  makes targets of augmented images (b, 3, s, s) in 0..1 and their masks; without it the masks are they
    """

    def __init__(
        self,
        images: Images,
        stage: Stage,
        settings: Settings,
        rule: Preprocessing,
        device: torch.device,
        team: Team = ALONE,
        soften: Soften | None = None,
    ) -> None:
        self.team, self.soften = team, soften
        side = round(settings.drawn_size * stage.size / settings.size)
        self.pixels = _shrink(torch.from_numpy(images.pixels).to(device), side)
        masks = torch.from_numpy(images.masks).to(device, torch.uint8)[:, None] * 255
        self.masks = _shrink(masks, side)[:, 0] >= 128
        self.stage, self.device, self.seed = stage, device, settings.seed
        self.mean, self.std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (rule.mean, rule.std))
        self.augment = Augmenter(settings.augmentation, stage.size, device)

    def begin(self, place: Place) -> Place:
        """The place from which the next batch is taken: the next epoch's start where too few images are left."""
        if len(self.pixels) - place.offset < self.stage.batch:
            return replace(place, epoch=place.epoch + 1, offset=0)
        return place

    def at(self, place: Place) -> tuple[Tensor, Tensor]:
        """Network input (b, 3, s, s) and targets (b, 1, s, s), both float32, at a place that `begin` gave.

        Of a team, each process gets its share.
        """
        images, masks = self._augmented(place)
        targets = masks if self.soften is None else self.soften(images, masks)
        return (images - self.mean) / self.std, targets

    def typical(self, count: int) -> Iterator[Tensor]:
        """Network input of `count` augmented batches, the same ones at each call."""
        for place in self._untrained(count):
            yield (self._augmented(place)[0] - self.mean) / self.std

    def plain(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The images and targets of those batches, not augmented, as the finished weights will see such images."""
        for place in self._untrained(count):
            chosen = self._chosen(place)
            images, masks = self.pixels[chosen], self.masks[chosen, None].to(torch.uint8) * 255
            small, targets = (_shrink(one, self.stage.size) for one in (images, masks))
            yield (small / 255 - self.mean) / self.std, (targets >= 128).to(self.mean.dtype)

    def _augmented(self, place: Place) -> tuple[Tensor, Tensor]:
        """Images (b, 3, s, s) in 0..1 and masks (b, 1, s, s) at a place."""
        chosen = self._chosen(place)
        seed = _seed("change", self.seed, place.stage, place.step)
        whole = self.stage.batch
        return self.augment(self.pixels[chosen], self.masks[chosen], seed, whole, self.team.share(whole))

    def _chosen(self, place: Place) -> Tensor:
        """Which images of the batch at a place are this process's."""
        own = self.team.share(self.stage.batch)
        batch = indices(place, len(self.pixels), self.stage.batch, self.seed)
        return batch[own.start : own.stop].to(self.device)

    def _untrained(self, count: int) -> Iterator[Place]:
        place = Place(stage=_NO_STAGE)
        for _ in range(count):
            place = self.begin(place)
            yield place
            place = place.after(self.stage.batch)


def indices(place: Place, images: int, batch: int, seed: int) -> Tensor:
    """Which of the images make the batch at a place, (b,) int64: every epoch has an order of its own."""
    order = torch.Generator().manual_seed(_seed("order", seed, place.stage, place.epoch))
    return torch.randperm(images, generator=order)[place.offset : place.offset + batch]


def _seed(*parts: object) -> int:
    """A number of 63 bits from words and numbers: neighbouring steps get unrelated streams."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little") >> 1


def _shrink(pixels: Tensor, side: int) -> Tensor:
    """(n, c, s, s) uint8 -> (n, c, side, side) uint8, antialiased, in pieces to save memory."""
    if pixels.shape[-1] == side:
        return pixels
    pieces = (
        F.interpolate(piece.float(), [side, side], mode="bilinear", antialias=True) for piece in pixels.split(64)
    )
    return torch.cat([piece.round().clamp(0, 255).to(torch.uint8) for piece in pieces])
