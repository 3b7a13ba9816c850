"""The three sizes of the network, and what its channel counts must satisfy."""

from __future__ import annotations

from collections.abc import Sequence

from ascseg_cli.errors import ShapeError

Channels = tuple[int, int, int, int]

VARIANTS: dict[str, Channels] = {
    "tiny": (8, 16, 24, 32),
    "small": (16, 32, 48, 64),
    "base": (32, 64, 96, 128),
}
MOST_CHANNELS = 1024  # no variant comes near; a damaged file may


def check_channels(channels: Sequence[int]) -> Channels:
    """The four channel counts, each a multiple of 4. Raises ShapeError."""
    if len(channels) != 4 or any(c < 4 or c % 4 or c > MOST_CHANNELS for c in channels):
        raise ShapeError(
            f"channels are {list(channels)}; they must be four multiples of 4, at most {MOST_CHANNELS}"
        )
    first, second, third, fourth = channels
    return first, second, third, fourth


def variant_of(channels: Sequence[int]) -> str:
    """The variant's name, or "custom" for channel counts of no variant."""
    return next((name for name, known in VARIANTS.items() if known == tuple(channels)), "custom")
