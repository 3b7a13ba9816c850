"""One pair from its files to its figures; what can't be scored becomes a reason instead of an end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ascseg_cli.data.decode import MAX_PIXELS, foreground, read_samples
from ascseg_cli.data.mask_values import mask_kind
from ascseg_cli.errors import AscsegError, InputError
from ascseg_cli.evaluation import metrics, probabilities
from ascseg_cli.evaluation.mask_pairs import MaskPair
from ascseg_cli.evaluation.metrics import Counts, Ruler
from ascseg_cli.evaluation.probabilities import Reliability

Watch = Callable[[str, np.ndarray, np.ndarray], None]  # is shown each scored image: name, prediction, truth


@dataclass(frozen=True)
class Scored:
    """The figures of one image.

    size         height, width in pixels
    values       every metric by name; None where undefined; those of probabilities only where they were given
    remarks      one line for each mask file whose values are likely a mistake
    grey         mask files with harmless values besides 0 and full, cut at one half
    reliability  counts of the calibration curve, where probabilities were given
    """

    name: str
    size: tuple[int, int]
    counts: Counts
    values: dict[str, float | None]
    remarks: tuple[str, ...] = ()
    grey: int = 0
    reliability: Reliability | None = None


@dataclass(frozen=True)
class Unscored:
    """An image without figures, and why."""

    name: str
    reason: str


@dataclass
class _Read:
    remarks: list[str] = field(default_factory=list)
    grey: int = 0

    def union(self, files: Sequence[Path], max_pixels: int) -> np.ndarray:
        """The union of mask files, (h, w) bool. Raises InputError naming the file."""
        whole: np.ndarray | None = None
        for file in files:
            try:
                samples = read_samples(file, max_pixels=max_pixels)
                mask = foreground(samples)
            except InputError as error:
                raise InputError(f"{file}: {error.message}", error.hint) from error
            kind = mask_kind(samples)
            if kind.problem:
                self.remarks.append(f"{file}: {kind.problem}")
            self.grey += kind.name in ("grey halos", "other levels")
            if whole is not None and whole.shape != mask.shape:
                raise InputError(f"{file} is {_size(mask)}, {files[0]} {_size(whole)}: no union")
            whole = mask if whole is None else whole | mask
        assert whole is not None, "a pair has files on both sides"
        return whole


def score_files(
    pair: MaskPair, ruler: Ruler, max_pixels: int = MAX_PIXELS, watch: Watch | None = None
) -> Scored | Unscored:
    """Read both masks of a pair and compare them."""
    read = _Read()
    try:
        pred, truth = read.union(pair.pred, max_pixels), read.union(pair.truth, max_pixels)
        if pred.shape != truth.shape:
            raise InputError(
                f"the prediction is {_size(pred)}, the truth {_size(truth)}",
                "scores count the truth's own pixels: scale predictions back to its size first",
            )
        counts, values = metrics.score(pred, truth, ruler)
    except (AscsegError, MemoryError) as error:
        return unscored(pair.name, error)
    if watch:
        watch(pair.name, pred, truth)
    return Scored(pair.name, (truth.shape[0], truth.shape[1]), counts, values, tuple(read.remarks), read.grey)


def score_probability(
    name: str,
    probability: np.ndarray,
    pred: np.ndarray,
    truths: Sequence[Path],
    ruler: Ruler,
    watch: Watch | None = None,
) -> Scored | Unscored:
    """Compare a probability map (h, w) float32 and the mask (h, w) bool made of it with the truth in files."""
    read = _Read()
    try:
        truth = read.union(truths, MAX_PIXELS)
        if pred.shape != truth.shape:
            raise InputError(f"the image is {_size(pred)}, its truth {_size(truth)}")
        counts, values = metrics.score(pred, truth, ruler)
        reliability, more = probabilities.score(probability, truth)
    except (AscsegError, MemoryError) as error:
        return unscored(name, error)
    if watch:
        watch(name, pred, truth)
    size = (truth.shape[0], truth.shape[1])
    return Scored(name, size, counts, values | more, tuple(read.remarks), read.grey, reliability)


def unscored(name: str, error: Exception) -> Unscored:
    """The reason in one line."""
    if isinstance(error, AscsegError):
        return Unscored(name, "; ".join(filter(None, (error.message, error.hint))))
    return Unscored(name, "not enough memory for this image")


def _size(mask: np.ndarray) -> str:
    return f"{mask.shape[1]}×{mask.shape[0]} px"
