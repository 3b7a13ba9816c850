"""What one image and its masks are like, and what of it keeps them from being trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from ascseg_cli.data.decode import MAX_PIXELS, foreground, read_pixels, read_samples
from ascseg_cli.data.fingerprint import Fingerprint, fingerprint
from ascseg_cli.data.formats import read_header
from ascseg_cli.data.mask_values import mask_kind
from ascseg_cli.data.pairs import Pair
from ascseg_cli.data.source import file_bytes
from ascseg_cli.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Remark:
    """Something about one file; a problem keeps its pair from being used as it is."""

    path: Path
    words: str
    problem: bool = True


@dataclass(frozen=True)
class PairFacts:
    """What is known of a pair after every pixel of it was read.

    size         width, height of the upright image in pixels; None where it can't be read
    format       "PNG" …; "" where it can't be read
    orientation  1 to 8, as EXIF counts
    kinds        of the mask files that can be read, see data.mask_values
    foreground   share of the pixels in the united mask; None where there is a problem
    turn_masks   the masks have the size of the image as it is stored, before EXIF turns it
    """

    pair: Pair
    size: tuple[int, int] | None
    format: str
    orientation: int
    kinds: tuple[str, ...]
    foreground: float | None
    fingerprint: Fingerprint | None
    turn_masks: bool
    remarks: tuple[Remark, ...]

    @property
    def usable(self) -> bool:
        """Whether image and masks can be used as they are."""
        return not any(remark.problem for remark in self.remarks)


@dataclass(frozen=True)
class _Image:
    size: tuple[int, int]
    format: str
    orientation: int
    fingerprint: Fingerprint


_NO_IMAGE = _Image((0, 0), "", 1, Fingerprint(b"", 0))


@dataclass(frozen=True)
class _Mask:
    path: Path
    size: tuple[int, int]
    kind: str
    problem: str
    values: np.ndarray | None


def inspect(pair: Pair) -> PairFacts:
    """Read a pair's files and say what they are like; a file that can't be read becomes a remark, no error."""
    remarks: list[Remark] = []
    image = _attempt(pair.image, _image, remarks)
    read = [_attempt(path, partial(_mask, path), remarks) for path in pair.masks]
    masks = [mask for mask in read if mask is not None]
    remarks += [Remark(mask.path, mask.problem) for mask in masks if mask.problem]
    turn_masks = False
    if image is not None:
        turn_masks, about_sizes = _compare(pair, image, masks)
        remarks += about_sizes
    known = image or _NO_IMAGE
    return PairFacts(
        pair=pair,
        size=known.size if image else None,
        format=known.format,
        orientation=known.orientation,
        kinds=tuple(mask.kind for mask in masks),
        foreground=None if any(remark.problem for remark in remarks) else _share(masks),
        fingerprint=known.fingerprint if image else None,
        turn_masks=turn_masks,
        remarks=tuple(remarks),
    )


def _attempt(path: Path, read: Callable[[bytes], T], remarks: list[Remark]) -> T | None:
    try:
        return read(file_bytes(path, MAX_PIXELS))
    except InputError as error:
        remarks.append(Remark(path, error.message))
        return None


def _image(data: bytes) -> _Image:
    pixels, header = read_pixels(data), read_header(data)
    kind, orientation = (header.format, header.orientation) if header else ("DICOM", 1)
    return _Image((pixels.shape[1], pixels.shape[0]), kind, orientation, fingerprint(pixels))


def _mask(path: Path, data: bytes) -> _Mask:
    samples = read_samples(data)
    kind = mask_kind(samples)
    size = (samples.values.shape[1], samples.values.shape[0])
    return _Mask(path, size, kind.name, kind.problem, None if kind.problem else foreground(samples))


def _compare(pair: Pair, image: _Image, masks: list[_Mask]) -> tuple[bool, list[Remark]]:
    """Whether all masks fit the stored image and not the upright one, and what is to be said of it."""
    width, height = image.size
    others = [mask for mask in masks if mask.size != image.size]
    stored = (height, width) if image.orientation >= 5 else image.size
    if others and len(others) == len(masks) and all(mask.size == stored for mask in masks):
        words = f"EXIF turns the image (orientation {image.orientation}), but its mask isn't turned"
        return True, [Remark(pair.image, words)]
    remarks = [
        Remark(mask.path, f"{mask.size[0]}×{mask.size[1]} px, its image {width}×{height}") for mask in others
    ]
    if image.orientation != 1 and not others:
        words = f"EXIF turns the image (orientation {image.orientation}); look whether its mask fits it so"
        remarks.append(Remark(pair.image, words, problem=False))
    return False, remarks


def _share(masks: list[_Mask]) -> float:
    values = [mask.values for mask in masks if mask.values is not None]
    return float(np.logical_or.reduce(values).mean())
