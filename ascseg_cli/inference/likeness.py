"""The warning that a run's images look unlike those its weights saw, from the first of them."""

from __future__ import annotations

import threading

import numpy as np

from ascseg_cli.data import appearance
from ascseg_cli.network.metadata import Metadata

SAMPLE = 32


class Likeness:
    """Looks at the first images of a run; safe to feed from several threads."""

    def __init__(self, metadata: Metadata, total: int) -> None:
        self._metadata = metadata
        self._wanted = min(SAMPLE, total)
        self._features: list[appearance.Features] = []
        self._lock = threading.Lock()

    def see(self, number: int, pixels: np.ndarray) -> None:
        """Take in image `number` of the run, (h, w, 3) uint8 RGB, if it is among the first."""
        if self._metadata.statistics and number < SAMPLE:
            self.take(number, appearance.describe(pixels))

    def take(self, number: int, features: appearance.Features) -> None:
        """Take in the figures of image `number` of the run, if it is among the first."""
        if self._metadata.statistics and number < SAMPLE:
            with self._lock:
                self._features.append(features)

    def warning(self, *, last: bool = False) -> str | None:
        """One line of warning, once, when enough images were seen, or `last`: after the last one."""
        with self._lock:
            features = self._features
            if not features or not (last or len(features) >= self._wanted):
                return None
            self._features, self._wanted = [], SAMPLE + 1
        seen = {name: feature.model_dump() for name, feature in self._metadata.statistics.items()}
        if not seen.keys() >= features[0].keys():  # weights of a release that looked at other features
            return None
        message = appearance.unlike(features, seen)
        known = self._metadata.dataset or self._metadata.name
        return message and f"{message}; are these the right weights ({known})?"
