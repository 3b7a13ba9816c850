"""How close an exported file's results are to predict's own, in figures, and how close they must be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ascseg_cli.errors import ExportError


@dataclass(frozen=True)
class Limits:
    """What is let through: the largest difference of probabilities, and the share of mask pixels that change."""

    difference: float
    changed: float


LIMITS = {"float32": Limits(1e-4, 1e-4), "float16": Limits(0.1, 5e-3)}


@dataclass(frozen=True)
class Compared:
    """One batch of images of one size.

    changed  mask pixels that differ, of `pixels`
    overlap  pixels that both masks hold; `held` is the sum of what each holds
    """

    what: str
    batch: int
    height: int
    width: int
    largest: float
    mean: float
    changed: int
    pixels: int
    overlap: int
    held: int

    @property
    def dice(self) -> float:
        """Between the masks; 1 where both are empty."""
        return 2 * self.overlap / self.held if self.held else 1.0

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "images": self.what,
            "batch": self.batch,
            "size": [self.height, self.width],
            "max_difference": self.largest,
            "mean_difference": self.mean,
            "changed_pixels": self.changed,
            "pixels": self.pixels,
            "dice": self.dice,
        }


def compared(what: str, expected: np.ndarray, threshold: float, got: np.ndarray, mask: np.ndarray) -> Compared:
    """Probabilities (b, h, w) that predict gives beside the probability and mask that the file gives.

    Raises ExportError where the file's results have another form than promised.
    """
    if got.shape != expected.shape or got.dtype != np.float32:
        raise ExportError(f"the file gives {got.dtype} {got.shape} for {what}, not float32 {expected.shape}")
    if mask.shape != expected.shape or mask.dtype != np.uint8 or mask.max(initial=0) > 1:
        raise ExportError(f"the file's mask for {what} is {mask.dtype} {mask.shape}, not 0 and 1 in uint8")
    if not np.isfinite(got).all():
        raise ExportError(f"the file's probabilities for {what} aren't numbers")
    batch, height, width = expected.shape
    right, found = expected >= np.float32(threshold), mask > 0
    off = np.abs(expected.astype(np.float64) - got)
    return Compared(
        what, batch, height, width, float(off.max()), float(off.mean()),
        int((right != found).sum()), mask.size, int((right & found).sum()), int(right.sum() + found.sum()),
    )  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """All that was compared, and the limits that held for it."""

    runtime: str
    limits: Limits
    batches: Sequence[Compared]

    @property
    def total(self) -> Compared:
        """All batches as one; their size is that of none."""
        mean = sum(b.mean * b.pixels for b in self.batches) / sum(b.pixels for b in self.batches)
        sums = (sum(getattr(b, name) for b in self.batches) for name in ("changed", "pixels", "overlap", "held"))
        images = sum(b.batch for b in self.batches)
        changed, pixels, overlap, held = sums
        largest = max(b.largest for b in self.batches)
        return Compared("all", images, 0, 0, largest, mean, changed, pixels, overlap, held)

    def check(self) -> None:
        """Raise ExportError where a limit is broken."""
        total = self.total
        share = total.changed / total.pixels
        if total.largest > self.limits.difference or share > self.limits.changed:
            worst = max(self.batches, key=lambda b: b.largest)
            raise ExportError(
                f"the exported file differs from predict by up to {total.largest:.2g} ({worst.what}) and in "
                f"{share:.3%} of the mask pixels; allowed are {self.limits.difference:g} and "
                f"{self.limits.changed:.2%}; no file was written"
            )

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        total = self.total.facts()
        del total["size"]
        return {
            "runtime": self.runtime,
            "max_difference_allowed": self.limits.difference,
            "changed_share_allowed": self.limits.changed,
            "total": total | {"changed_share": self.total.changed / self.total.pixels},
            "compared": [batch.facts() for batch in self.batches],
        }

    def table(self) -> Iterator[tuple[str, ...]]:
        """Rows of text: a head, one for each batch, all of them together."""
        yield ("images", "size", "max difference", "mean", "mask pixels changed", "Dice")
        for b in (*self.batches, self.total):
            size = f"{b.batch}×{b.height}×{b.width}" if b.height else f"{b.batch} images"
            figures = f"{b.largest:.1e}", f"{b.mean:.1e}", f"{b.changed} of {b.pixels:,}", f"{b.dice:.6f}"
            yield (b.what, size, *figures)
