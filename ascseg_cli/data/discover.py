"""From what the user named to the images to segment, each with the name of its output.

Nothing is read here: a file that turns out damaged is still one item, so that it becomes one row. All of it
is settled before the first image, so that two inputs which would share an output are refused in time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".dcm"})


@dataclass(frozen=True)
class Item:
    """One image to segment.

    path         where it is read
    name         posix path, relative as the user knows it, with suffix; always encodable as UTF-8
    output_stem  posix path of its outputs under `masks/` and so on, without the final `.png`; may hold
                 surrogates where the file's name isn't UTF-8 (the output then has the same bytes)
    """

    path: Path
    name: str
    output_stem: str


@dataclass(frozen=True)
class Missing:
    """An argument, or a folder inside one, that gave nothing: one failed row with a reason."""

    name: str
    reason: str
    hint: str = ""


@dataclass(frozen=True)
class Found:
    """What the arguments came to.

    items            in the arguments' order, sorted within a folder or pattern
    missing          what gave nothing (no such path, an empty folder or pattern, no right to read)
    ignored          files in folders that aren't images, by suffix in lower case ("" without one)
    hidden           files and folders in folders whose name begins with a dot, not entered
    earlier_outputs  folders in folders that hold an earlier run's results, not entered
    """

    items: tuple[Item, ...]
    missing: tuple[Missing, ...] = ()
    ignored: Counter[str] = None  # type: ignore[assignment]
    hidden: int = 0
    earlier_outputs: tuple[str, ...] = ()


def discover(
    inputs: Sequence[str | Path], *, output: Path, listed: Sequence[str | Path] = ()
) -> Found:
    """The images that `inputs` name, each once.

    inputs  files, folders (recursive), or patterns with * ? [ ] ** that match no file as they stand
    output  the folder of the results, which need not exist; never scanned
    listed  further files and folders, taken literally (from `--files-from`)
    Raises UsageError where two inputs would share an output (both are named), where an input lies in `output`.
    """
    raise NotImplementedError


def default_output(first: str | Path) -> Path:
    """`<first input without suffix>_ascseg`, beside the first input (beside a pattern's fixed part)."""
    raise NotImplementedError
