"""Every setting of a run in one checked place, and which of them change its results."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from ascseg_cli.data.decode import MAX_PIXELS
from ascseg_cli.errors import UsageError
from ascseg_cli.inference.engine import ONNXRUNTIME
from ascseg_cli.inference.postprocess import Cleaning

KINDS = ("masks", "overlays", "probabilities", "polygons")
MOST_BATCH = 4096  # images; filled up, such a batch of 256×256 takes 3 GB of this machine's memory
RESULTS = 1  # raised when a release gives other pictures for the same settings


@dataclass(frozen=True)
class Settings:
    """What the user chose; raises UsageError for what can't be.

    threshold   of the probability, 0..1
    tta         mean of the image as it is and of its three mirror images
    cleaning    what is done to a mask after the threshold
    save        which of KINDS are written
    max_pixels  an image of more is refused
    batch_size  images in one pass of the network; None: chosen by the device
    precision   one of engine.PRECISIONS
    """

    threshold: float
    tta: bool = False
    cleaning: Cleaning = field(default_factory=Cleaning)
    save: tuple[str, ...] = ("masks", "overlays")
    max_pixels: int = MAX_PIXELS
    batch_size: int | None = None
    precision: str = "float32"

    def __post_init__(self) -> None:
        _check(0 <= self.threshold <= 1, f"--threshold is {self.threshold}; it must lie between 0 and 1")
        _check(self.cleaning.min_area >= 0, f"--min-area is {self.cleaning.min_area}; it must be 0 or more pixels")
        _check(self.max_pixels >= 1, f"--max-pixels is {self.max_pixels}; it must be at least 1")
        _check(
            self.batch_size is None or 1 <= self.batch_size <= MOST_BATCH,
            f"--batch-size is {self.batch_size}; it must be at least 1 and at most {MOST_BATCH:,}",
        )

    def of_results(self) -> dict[str, Any]:
        """The settings on which pictures and figures depend, by the names of their options."""
        return {
            "threshold": self.threshold,
            "tta": self.tta,
            "fill_holes": self.cleaning.fill_holes,
            "min_area": self.cleaning.min_area,
            "keep_largest": self.cleaning.keep_largest,
            "precision": self.precision,
        }

    def fingerprint(self, weights_sha256: str, backend: str) -> str:
        """The same for two runs whose results can stand in one folder, another for any others.

        All of torch's backends are one here; onnxruntime computes from weights that were folded beforehand.
        """
        runtime = ONNXRUNTIME if backend == ONNXRUNTIME else "torch"
        text = json.dumps([RESULTS, weights_sha256, runtime, self.of_results()], sort_keys=True)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def parse_save(text: str) -> tuple[str, ...]:
    """The value of --save, "masks,overlays", as kinds in the order of KINDS. Raises UsageError."""
    wanted = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in wanted if word not in KINDS]
    _check(not unknown, f"--save has no {', '.join(map(repr, unknown))}", f"choose among {','.join(KINDS)}")
    _check(bool(wanted), "--save names nothing to write", f"choose among {','.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in wanted)


def parse_batch_size(text: str) -> int | None:
    """The value of --batch-size: None for "auto", else a whole number. Raises UsageError."""
    if text == "auto":
        return None
    _check(
        text.isascii() and text.isdecimal(),
        f"--batch-size is {text!r}; it must be auto or a whole number from 1 up",
    )
    return int(text)


def _check(right: bool, message: str, hint: str = "") -> None:
    if not right:
        raise UsageError(message, hint)
