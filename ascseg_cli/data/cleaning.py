"""A clean copy of a data set: what training needs and nothing that could mislead it. The originals stay untouched.

The copy is the plain layout: `images/`, `masks/` with one 0/255 PNG an image, and `split.csv`. An image's file is
copied as it is, unless EXIF turns it: then it is written upright, as PNG. The folder appears whole or not at all.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ascseg_cli.data import png_writer
from ascseg_cli.data.decode import foreground, read_pixels, read_samples, upright
from ascseg_cli.data.inspection import PairFacts, Remark
from ascseg_cli.data.pairs import Pair
from ascseg_cli.data.report import Report
from ascseg_cli.data.split import PARTS, Split
from ascseg_cli.errors import AscsegError, DataError, OutputError, UsageError

SPLIT = "split.csv"
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*\ud800-\udfff]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_LONGEST = 120  # characters: 255 bytes on most file systems, four bytes a character at worst, and a suffix


@dataclass(frozen=True)
class Cleaned:
    """What the copy holds and what it lacks.

    written   pairs in the copy
    turned    images written upright; `turned_masks` those whose masks had to be turned too
    united    masks made of several files
    renamed   images whose name was unsafe or taken
    left_out  pairs that can't be mended, each with its reason
    alone     files without a partner, which no copy holds
    """

    written: tuple[Pair, ...]
    turned: int
    turned_masks: int
    united: int
    renamed: int
    left_out: tuple[Remark, ...]
    alone: int


def check_output(output: Path, root: Path) -> None:
    """Raises UsageError where a clean copy of `root` may not be written to `output`: it isn't empty, or inside."""
    if output.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"{output} lies inside the data, {root}", "give a folder beside it")
    if os.path.lexists(output) and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} isn't an empty folder; a clean copy overwrites nothing", "give another folder")


def clean(report: Report, output: Path, threads: int, done: Callable[[], None] = lambda: None) -> Cleaned:
    """Write the clean copy of every pair that can be used, or mended by turning its masks as its image is turned.

    Raises UsageError as `check_output`; DataError where no pair is left; OutputError where it can't be written.
    """
    check_output(output, report.dataset.root)
    good = [one for one in report.facts if _mendable(one)]
    left_out = tuple(next(r for r in one.remarks if r.problem) for one in report.facts if not _mendable(one))
    if not good:
        raise DataError(
            f"no pair can be used or mended, so {output} isn't written; {left_out[0].path}: {left_out[0].words}",
            "look at what ascseg check says without --fix",
        )
    stems = safe_stems([one.pair for one in good])
    temporary = output.parent / f".ascseg-{secrets.token_hex(6)}.tmp"
    try:
        written = _write_all(list(zip(good, stems)), temporary, threads, done)
        (temporary / SPLIT).write_text(_split_of(report.split, written).csv(), "utf-8", newline="\n")
        if output.is_dir():
            output.rmdir()  # it is empty, but Windows renames over no folder
        os.replace(temporary, output)
    except OSError as error:
        raise OutputError(f"{output} can't be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Cleaned(
        written=tuple(written.values()),
        turned=sum(one.orientation != 1 for one in good),
        turned_masks=sum(one.turn_masks for one in good),
        united=sum(len(one.pair.masks) > 1 for one in good),
        renamed=sum(one.pair.stem != stem for one, stem in zip(good, stems)),
        left_out=left_out,
        alone=len(report.dataset.unpaired),
    )


def safe_stems(pairs: Sequence[Pair]) -> list[str]:
    """A file stem for each pair that every system can hold: its own where it can be, else the nearest free one.

    Names that differ in case or Unicode's normal form only count as one. Where two share a stem, both get their
    folder's name before it, and a number if that doesn't part them.
    """
    plain = [_safe(pair.stem) for pair in pairs]
    keys = [stem.lower() for stem in plain]
    often = {key for key in keys if keys.count(key) > 1} if len(set(keys)) < len(keys) else set()
    taken, stems = set(keys) - often, []
    for pair, stem in zip(pairs, plain):
        if stem.lower() in often:
            stem = first = _safe(f"{pair.image.parent.name}_{stem}")
            number = 1
            while stem.lower() in taken:
                number += 1
                stem = f"{first}_{number}"
            taken.add(stem.lower())
        stems.append(stem)
    return stems


def _safe(name: str) -> str:
    stem = _UNSAFE.sub("_", unicodedata.normalize("NFC", name))[:_LONGEST].strip(" .")
    return f"_{stem}" if not stem or _RESERVED.fullmatch(stem) else stem


def _mendable(one: PairFacts) -> bool:
    return one.usable or (one.turn_masks and sum(remark.problem for remark in one.remarks) == 1)


def _write_all(
    todo: Sequence[tuple[PairFacts, str]], folder: Path, threads: int, done: Callable[[], None]
) -> dict[Pair, Pair]:
    """Each pair of the original and what it became."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)

    def write(item: tuple[PairFacts, str]) -> tuple[Pair, Pair]:
        written = _write(*item, folder)
        done()
        return item[0].pair, written

    with ThreadPoolExecutor(threads) as pool:
        return dict(pool.map(write, todo))


def _write(one: PairFacts, stem: str, folder: Path) -> Pair:
    try:
        turn = one.orientation if one.turn_masks else 1
        masks = [upright(foreground(read_samples(path)), turn) for path in one.pair.masks]
        if one.orientation == 1:
            image = folder / "images" / f"{stem}{one.pair.image.suffix.lower()}"
            shutil.copyfile(one.pair.image, image)
        else:
            image = folder / "images" / f"{stem}.png"
            image.write_bytes(png_writer.encode(read_pixels(one.pair.image)))
        mask = folder / "masks" / f"{stem}.png"
        mask.write_bytes(png_writer.encode(np.logical_or.reduce(masks).astype(np.uint8) * 255))
    except AscsegError as error:  # it was read a moment ago
        raise OutputError(f"{one.pair.image} changed meanwhile: {error.message}") from error
    return Pair(image, (mask,))


def _split_of(split: Split, written: dict[Pair, Pair]) -> Split:
    """The same parts for the copy, whose names the rule by name might place elsewhere."""
    by_image = {pair.image: copy for pair, copy in written.items()}
    parts = (tuple(by_image[p.image] for p in getattr(split, part) if p.image in by_image) for part in PARTS)
    return Split(split.rule, *parts)
