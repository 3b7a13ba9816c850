"""Small pictures for a page that must stay small: how large they may be follows from how many there are."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass

import cv2
import numpy as np

from ascseg_cli.errors import OutputError

_ALL = 4_600_000  # bytes of all pictures before base64 makes four of three
_LEAST = 300  # bytes: below that a picture shows nothing
_BYTES_A_PIXEL = 0.11  # of photographs as WebP at this quality: a first guess
_QUALITY, _LOSSLESS = 55, 101  # OpenCV's number for WebP that keeps every value
_SMALLEST, _LARGEST = 32, 480  # px along the longer side
_MANY = 2000
LARGE = 480  # px, of the few cases that are shown large

BOTH, ONLY_TRUTH, ONLY_PRED = 120, 205, 60  # greys of masks without a picture, on black


@dataclass(frozen=True)
class Budget:
    """How large the picture of each of `count` images may be.

    most  bytes
    grid  units along the longer side for outlines
    """

    most: int
    grid: int

    @classmethod
    def of(cls, count: int) -> Budget:
        """For a page with so many images."""
        return cls(_ALL // max(1, count), 512 if count <= _MANY else 256)

    @property
    def any(self) -> bool:
        """Whether each image gets a picture; with tens of thousands only the cases shown large do."""
        return self.most >= _LEAST

    def side(self, shape: tuple[int, ...]) -> int:
        """Pixels along the longer side with which to begin."""
        short, long = sorted(shape[:2])
        wanted = math.sqrt(self.most / _BYTES_A_PIXEL * long / short)
        return min(_LARGEST, max(_SMALLEST, int(wanted)), long)


def photograph(pixels: np.ndarray, side: int, most: int | None = None) -> str:
    """Pixels (h, w, 3) uint8 RGB as a data URI; made smaller until it has at most `most` bytes."""
    while True:
        small = cv2.cvtColor(_shrunk(pixels, side, cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
        content = _webp(small, _QUALITY)
        if most is None or len(content) <= most or side <= _SMALLEST:
            return _uri(content)
        side = max(_SMALLEST, min(side - 4, int(side * math.sqrt(most / len(content)))))


def masks_alone(pred: np.ndarray, truth: np.ndarray, side: int) -> str:
    """Two masks (h, w) bool in greys on black, as a data URI: where no photograph is at hand."""
    values = np.zeros(pred.shape, np.uint8)
    values[pred & truth], values[truth & ~pred], values[pred & ~truth] = BOTH, ONLY_TRUTH, ONLY_PRED
    small = cv2.cvtColor(_shrunk(values, side, cv2.INTER_NEAREST), cv2.COLOR_GRAY2BGR)
    return _uri(_webp(small, _LOSSLESS))


def _shrunk(values: np.ndarray, side: int, how: int) -> np.ndarray:
    height, width = values.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return values
    return cv2.resize(values, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=how)


def _webp(values: np.ndarray, quality: int) -> bytes:
    done, content = cv2.imencode(".webp", values, [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not done:
        raise OutputError("a picture of the report can't be encoded as WebP")
    return content.tobytes()


def _uri(content: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(content).decode('ascii')}"
