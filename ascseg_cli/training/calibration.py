"""The temperature at which probabilities mean what they say: sigmoid(logit(p) / T), fitted on validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

_RANGE = (-2.5, 2.5)  # of log2 T: a network that is off by more than a factor of six needs training, not scaling
_EDGE = 1e-6


def fit_temperature(probabilities: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> dict[str, float]:
    """The temperature of the least mean cross-entropy over all pixels, and that entropy without and with it.

    probabilities  maps (h, w) float32, 0..1
    truths         masks (h, w) bool of the same shapes
    returns        temperature, cross_entropy_before, cross_entropy_after (nats a pixel)
    """
    p = np.concatenate([one.ravel() for one in probabilities]).astype(np.float64).clip(_EDGE, 1 - _EDGE)
    truth = np.concatenate([one.ravel() for one in truths])
    signed = np.where(truth, 1.0, -1.0) * np.log(p / (1 - p))  # the logit, towards the truth

    def entropy(log_temperature: float) -> float:
        return float(np.logaddexp(0, -signed / 2**log_temperature).mean())

    best = _least(entropy, *_RANGE)
    return {
        "temperature": round(2**best, 4),
        "cross_entropy_before": round(entropy(0), 6),
        "cross_entropy_after": round(entropy(best), 6),
    }


def _least(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one valley is least, by golden sections, to 1e-3."""
    ratio = (5**0.5 - 1) / 2
    while high - low > 1e-3:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if function(left) < function(right) else (left, high)
    return (low + high) / 2
