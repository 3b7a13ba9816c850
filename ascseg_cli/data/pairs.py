"""An image with its masks, as a data set's folder gives it: what layouts find and splits divide."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pair:
    """One image and the mask files that belong to it; their union is its mask.

    part   the official part ("train", "validation", "test") where the set fixes one, else None
    group  what must stay together in one part (a patient); None: the image stands alone
    """

    image: Path
    masks: tuple[Path, ...]
    part: str | None = None
    group: str | None = None

    @property
    def stem(self) -> str:
        """The image's file name without its suffix: its identity in the split rule."""
        return self.image.stem


@dataclass(frozen=True)
class Unpaired:
    """A file of the folder that is no half of a pair, and why."""

    path: Path
    reason: str
