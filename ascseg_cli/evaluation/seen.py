"""Which images of a folder the weights were trained on: a score on those says nothing about others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ascseg_cli.data import fingerprint
from ascseg_cli.data.decode import read_pixels
from ascseg_cli.data.fingerprint import Fingerprint, Index
from ascseg_cli.errors import InputError
from ascseg_cli.evaluation.ordered import in_order


@dataclass(frozen=True)
class Seen:
    """What was found.

    kinds    of each image: "exact" (the same pixels), "near" (rescaled, recompressed, turned, cropped …) or ""
    checked  images that could be read
    """

    kinds: tuple[str, ...]
    checked: int

    @property
    def exact(self) -> int:
        """Images with the very pixels of a training image."""
        return self.kinds.count("exact")

    @property
    def near(self) -> int:
        """Images that nearly are one."""
        return self.kinds.count("near")


def look_up(images: Sequence[Path], training_images: str, threads: int) -> Seen:
    """Compare image files with a weights file's hashes (metadata `training_images`). Raises WeightsError."""
    index = Index(fingerprint.decode(training_images))
    prints = list(in_order(_print, images, threads))
    readable = [(place, one) for place, one in enumerate(prints) if one is not None]
    kinds = [""] * len(images)
    for match in index.matches([one for _, one in readable]):
        place = readable[match.query][0]
        kinds[place] = "exact" if match.exact else kinds[place] or "near"
    return Seen(tuple(kinds), len(readable))


def _print(image: Path) -> Fingerprint | None:
    try:
        return fingerprint.fingerprint(read_pixels(image))
    except InputError:  # becomes a reason when the image is scored
        return None
