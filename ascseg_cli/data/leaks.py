"""Copies of an image in two parts of a split: no image is moved for it, the training one is left out of training.

A score on images that were trained on, in whatever size or turn, tells nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from ascseg_cli.data.decode import read_pixels
from ascseg_cli.data.fingerprint import Fingerprint, Index, fingerprint
from ascseg_cli.data.split import Split
from ascseg_cli.errors import InputError


@dataclass(frozen=True)
class LeftOut:
    """A training image that isn't trained on, and the nearest image for whose sake.

    image, partner  files; `part` is the partner's, "validation" or "test"
    distance        bits between them; `exact` where their pixels are the same
    how             in words, how alike they are
    """

    image: Path
    partner: Path
    part: str
    distance: int
    exact: bool
    how: str

    def __str__(self) -> str:
        how = "the same pixels as" if self.exact else f"a near copy ({self.how}) of"
        return f"{self.image.name} is {how} {self.partner.name} of the {self.part} part"


def fingerprints_of(
    images: Iterable[Path], threads: int, done: Callable[[], None] = lambda: None
) -> tuple[dict[Path, Fingerprint], dict[Path, InputError]]:
    """The fingerprint of every image, and why those that can't be read have none. `done` is called after each."""
    known: dict[Path, Fingerprint] = {}
    failed: dict[Path, InputError] = {}

    def read(path: Path) -> None:
        try:
            known[path] = fingerprint(read_pixels(path))
        except InputError as error:
            failed[path] = error
        done()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, images))
    return known, failed


def without_leaks(split: Split, known: Mapping[Path, Fingerprint]) -> tuple[Split, tuple[LeftOut, ...]]:
    """The split less every training image that is a copy of a validation or test image, and what was left out.

    known  fingerprints by `Pair.image`; an image without one is taken for nobody's copy
    """
    held = [(p.image, part) for part in ("validation", "test") for p in getattr(split, part) if p.image in known]
    train = [pair.image for pair in split.train if pair.image in known]
    left: dict[Path, LeftOut] = {}
    for match in Index([known[image] for image, _ in held]).matches([known[image] for image in train]):
        image, (partner, part) = train[match.query], held[match.stored]
        left.setdefault(image, LeftOut(image, partner, part, match.distance, match.exact, str(match)))
    if not left:
        return split, ()
    words = f"{split.rule}; {len(left)} training images that are copies of validation or test images left out"
    kept = tuple(pair for pair in split.train if pair.image not in left)
    return replace(split, rule=words, train=kept), tuple(left.values())
