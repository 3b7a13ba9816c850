"""What a picture's file says of itself before decoding, and the refusals that follow from it."""

from __future__ import annotations

from dataclasses import dataclass

from ascseg_cli.errors import InputError

AGAIN = "copy or download the file again"


@dataclass(frozen=True)
class Header:
    """What is known before decoding.

    format         "PNG", "JPEG", "BMP", "TIFF", "WebP"
    width, height  pixels, as stored (before turning)
    bits           a sample's
    frames         pictures in the file; previews don't count
    orientation    1 to 8, as EXIF counts
    data           the file as the decoder shall see it: nothing left in it that turns, animates or inflates
    white_is_zero  TIFF only
    stored_bytes   PNG only: what its data must come to, inflated
    interlaced     PNG only
    """

    format: str
    width: int
    height: int
    bits: int
    data: bytes
    frames: int = 1
    orientation: int = 1
    white_is_zero: bool = False
    stored_bytes: int = 0
    interlaced: bool = False


def truncated(name: str) -> InputError:
    return InputError(f"truncated {name}: the file ends before the picture does", AGAIN)


def damaged(name: str, what: str) -> InputError:
    return InputError(f"damaged {name}: {what}", AGAIN)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raises InputError for no pixels, and for more than `max_pixels`."""
    if width <= 0 or height <= 0:
        raise damaged("picture", f"its header says {width}×{height} px")
    if width * height > max_pixels:
        raise InputError(
            f"{width}×{height} px are {width * height:,} pixels, more than the limit of {max_pixels:,}",
            "if it is trusted and memory suffices, raise --max-pixels",
        )
