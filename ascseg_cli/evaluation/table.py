"""The figures of all images: 8 bytes each beside their names, so that 100,000 images fit anywhere."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np

from ascseg_cli.evaluation.metrics import MASK_METRICS, METRICS, Counts, case_of
from ascseg_cli.evaluation.packed import Texts
from ascseg_cli.evaluation.probabilities import Reliability
from ascseg_cli.evaluation.scoring import Scored, Unscored

_PIXELS = ("height", "width", "tp", "fp", "fn", "tn")


class Table:
    """Grows by one image at a time.

    names        of the scored images, in order
    unscored     images without figures
    grey         mask files with harmless values besides 0 and full
    reliability  of all images with probabilities
    """

    def __init__(self, *, with_probabilities: bool = False) -> None:
        self.metrics = tuple(METRICS) if with_probabilities else MASK_METRICS
        self.names = Texts()
        self.unscored: list[Unscored] = []
        self.grey = 0
        self.reliability = Reliability.empty() if with_probabilities else None
        self._numbers = array("d")
        self._width = len(_PIXELS) + len(self.metrics)

    def add(self, outcome: Scored | Unscored) -> None:
        """The next image."""
        if isinstance(outcome, Unscored):
            self.unscored.append(outcome)
            return
        self.names.append(outcome.name)
        counts = outcome.counts
        self._numbers.extend((*outcome.size, counts.tp, counts.fp, counts.fn, counts.tn))
        values = (outcome.values[name] for name in self.metrics)
        self._numbers.extend(math.nan if value is None else value for value in values)
        self.grey += outcome.grey
        if self.reliability is not None and outcome.reliability is not None:
            self.reliability.add(outcome.reliability)

    def __len__(self) -> int:
        return len(self.names)

    def only(self, kept: np.ndarray) -> Table:
        """The table of some of the images, kept (n,) bool. Its calibration counts can't be parted and are gone."""
        some = Table(with_probabilities=self.reliability is not None)
        some.reliability = None
        for place in np.flatnonzero(kept).tolist():
            some.names.append(self.names[place])
            some._numbers.extend(self._row(place))
        return some

    def column(self, name: str) -> np.ndarray:
        """(n,) float64 of a metric, NaN where undefined, or of one of height, width, tp, fp, fn, tn."""
        place = (*_PIXELS, *self.metrics).index(name)
        return np.array(memoryview(self._numbers)[place :: self._width])

    def filled(self, name: str, scale: float) -> np.ndarray:
        """The column as it goes into means: where one mask is empty, distances are the image's diagonal.

        scale  the unit's length of a pixel
        An area error without a truth is 1, as that of a miss. NaN stays where nothing is defined (probability).
        """
        values = self.column(name)
        kind = METRICS[name].kind
        if kind == "distance":
            diagonal = np.hypot(self.column("height"), self.column("width")) * scale
            return np.where(np.isnan(values), diagonal, values)
        return np.where(np.isnan(values), 1.0, values) if kind == "error" else values

    def rows(self) -> Iterator[dict[str, Any]]:
        """One object an image, as in `--json`: the name, every metric (None where undefined), counts and case."""
        for place, name in enumerate(self.names):
            row = self._row(place)
            height, width, *pixels = map(int, row[: len(_PIXELS)])
            values = (None if math.isnan(value) else value for value in row[len(_PIXELS) :])
            counts = Counts(*pixels)
            yield {
                "name": name,
                **dict(zip(self.metrics, values)),
                "case": case_of(counts),
                "height": height,
                "width": width,
                "tp": counts.tp,
                "fp": counts.fp,
                "fn": counts.fn,
                "tn": counts.tn,
            }

    def _row(self, place: int) -> array[float]:
        return self._numbers[place * self._width : (place + 1) * self._width]
