"""The training loop: batches drawn and augmented on the device, steps by a schedule, checks on validation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ascseg_cli.errors import DataError
from ascseg_cli.network.asc_seg import ASCSeg
from ascseg_cli.network.metadata import Preprocessing
from ascseg_cli.network.variants import VARIANTS
from ascseg_cli.training.augment import Augmenter
from ascseg_cli.training.averaging import AveragedWeights, recompute_statistics
from ascseg_cli.training.images import Images
from ascseg_cli.training.settings import Settings, Stage
from ascseg_cli.training.step import Optimiser, TrainingStep

_LOWEST_RATE = 0.01  # of the largest, at the end of the cosine


@dataclass(frozen=True)
class Check:
    """Where a run stands."""

    step: int
    epoch: float
    seconds: float
    loss: float
    norm: float
    images_per_second: float

    def __str__(self) -> str:
        return (
            f"step {self.step}, epoch {self.epoch:.1f}, {self.seconds:.0f} s: loss {self.loss:.4f}, "
            f"gradient {self.norm:.2f}, {self.images_per_second:.0f} images/s"
        )


class Clock:
    """How much of a run is done, by steps or by the clock; how long it has taken, how many images it has drawn."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.started = time.monotonic()
        self.images = 0  # drawn so far

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def progress(self, step: int) -> float:
        """From 0 to 1; 1 or more: stop."""
        if self.settings.steps is not None:
            return step / self.settings.steps
        return self.seconds() / (60 * (self.settings.minutes or 1))


class Batches:
    """Endless augmented batches at one size: every epoch in a new order, an incomplete last batch dropped.

    images are kept a little larger than the batches (settings.drawn_size to settings.size), shrunk with antialias
    where the batches are smaller still.
    """

    def __init__(
        self, images: Images, stage: Stage, settings: Settings, rule: Preprocessing, device: torch.device
    ):
        if len(images.pixels) < stage.batch:
            raise DataError(
                f"{len(images.pixels)} training images, a batch holds {stage.batch}",
                "lower the batch size (two or more), or add images",
            )
        side = round(settings.drawn_size * stage.size / settings.size)
        self.pixels = _shrink(torch.from_numpy(images.pixels).to(device), side)
        masks = torch.from_numpy(images.masks).to(device, torch.uint8)[:, None] * 255
        self.masks = _shrink(masks, side)[:, 0] >= 128
        self.stage, self.device, self.seed = stage, device, settings.seed + stage.number
        self.mean, self.std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (rule.mean, rule.std))
        self.augment = Augmenter(settings.augmentation, stage.size, device, self.seed)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.Generator().manual_seed(self.seed)
        while True:
            shuffled = torch.randperm(len(self.pixels), generator=order).to(self.device)
            for chosen in shuffled.split(self.stage.batch):
                if len(chosen) == self.stage.batch:
                    images, masks = self.augment(self.pixels[chosen], self.masks[chosen])
                    yield (images - self.mean) / self.std, masks

    def unchanged(self) -> Iterator[Tensor]:
        """Every image once, not augmented, as the finished weights will see such images."""
        shuffled = torch.randperm(len(self.pixels), generator=torch.Generator().manual_seed(0)).to(self.device)
        for chosen in shuffled.split(self.stage.batch):
            if len(chosen) == self.stage.batch:
                yield (_shrink(self.pixels[chosen], self.stage.size) / 255 - self.mean) / self.std


def fit(
    images: Images,
    settings: Settings,
    rule: Preprocessing,
    device: torch.device,
    on_check: Callable[[Check, nn.Module], None],
) -> nn.Module:
    """Train from scratch and return the averaged model, in evaluation mode, its batch-norm values recomputed.

    on_check  called `settings.checks` times with where the run stands and the averaged model so far
    Raises DataError where a batch can't be filled, or where the loss is no longer finite.
    """
    torch.manual_seed(settings.seed)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # few shapes, many batches
    model = ASCSeg(VARIANTS[settings.variant]).to(device)
    averaged = AveragedWeights(model, settings.averaging)
    optimiser, clock, step, checked = Optimiser(model, settings), Clock(settings), 0, 0
    for stage in settings.stages():
        batches = Batches(images, stage, settings, rule, device)
        train_step = TrainingStep(model, optimiser, stage)
        for pictures, targets in batches:
            done = clock.progress(step)
            if done >= stage.end:
                break
            train_step(pictures, targets, rate_at(done, settings))
            averaged.update(step)
            step += 1
            clock.images += stage.batch
            if done * settings.checks >= checked + 1:
                checked += 1
                on_check(_check(train_step, step, clock, len(images.pixels)), averaged.model)
    recompute_statistics(averaged.model, batches.unchanged())
    on_check(_check(train_step, step, clock, len(images.pixels)), averaged.model)
    return averaged.model


def rate_at(progress: float, settings: Settings) -> float:
    """Learning rate: a straight rise, then half a cosine down to a hundredth."""
    if progress < settings.warmup:
        return settings.rate * max(progress / settings.warmup, _LOWEST_RATE)
    wave = 0.5 * (1 + math.cos(math.pi * (progress - settings.warmup) / (1 - settings.warmup)))
    return settings.rate * (_LOWEST_RATE + (1 - _LOWEST_RATE) * wave)


def _shrink(pixels: Tensor, side: int) -> Tensor:
    """(n, c, s, s) uint8 -> (n, c, side, side) uint8, antialiased, in pieces to save memory."""
    if pixels.shape[-1] == side:
        return pixels
    pieces = (
        F.interpolate(piece.float(), [side, side], mode="bilinear", antialias=True) for piece in pixels.split(64)
    )
    return torch.cat([piece.round().clamp(0, 255).to(torch.uint8) for piece in pieces])


def _check(train_step: TrainingStep, step: int, clock: Clock, images: int) -> Check:
    loss, norm = float(train_step.loss), float(train_step.norm)
    if not math.isfinite(loss):
        raise DataError(f"the loss is {loss} at step {step}", "lower the learning rate")
    seconds = clock.seconds()
    return Check(step, clock.images / images, seconds, loss, norm, clock.images / seconds)
