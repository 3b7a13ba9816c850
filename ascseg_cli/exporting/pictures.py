"""The pictures that an exported file is tried on: the user's own, else the examples that come with the package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ascseg_cli.data.decode import read_pixels
from ascseg_cli.data.discover import discover
from ascseg_cli.errors import InputError, UsageError

MOST = 16  # of a larger folder so many are taken, spread evenly
_PACKAGE = Path(__file__).resolve().parents[1]
_EXAMPLES = ("polyps", "skin", "ultrasound")


@dataclass(frozen=True)
class Picture:
    """Its name as the user knows it, and its pixels (h, w, 3) uint8."""

    name: str
    pixels: np.ndarray


def pictures(folder: Path | None, note: Callable[[str], None]) -> list[Picture]:
    """Up to MOST pictures; what can't be read is noted and passed over. Raises UsageError where none is left."""
    named = [folder] if folder else shipped()
    if folder and not folder.exists():
        raise UsageError(f"{folder}: no such image or folder")
    items = discover(named, output=Path("nowhere")).items if named else ()
    if len(items) > MOST:
        note(f"{MOST} of {len(items):,} images in {folder} are compared")
    chosen = [items[len(items) * i // MOST] for i in range(MOST)] if len(items) > MOST else items
    found = []
    for item in chosen:
        try:
            found.append(Picture(item.name, read_pixels(item.path)))
        except InputError as error:
            note(f"{item.name} is left out: {error.message}")
    if not found:
        where = f"{folder} holds no readable image" if folder else "the examples aren't on this machine"
        raise UsageError(f"{where}; the file can't be compared with predict", "name images: --images DIR")
    return found


def shipped() -> list[Path]:
    """The folders of the examples, in an installed package or in a checkout."""
    places = (_PACKAGE / "examples", _PACKAGE.parent / "examples")
    return [place / name for place in places for name in _EXAMPLES if (place / name).is_dir()][: len(_EXAMPLES)]
