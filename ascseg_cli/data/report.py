"""A data set looked through before any training: the facts behind `ascseg check`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ascseg_cli.data.fingerprint import copies_within
from ascseg_cli.data.inspection import PairFacts, Remark, inspect
from ascseg_cli.data.layouts import Dataset
from ascseg_cli.data.pairs import Pair
from ascseg_cli.data.split import PARTS, Split


@dataclass(frozen=True)
class Copies:
    """Two images that show the same picture, each with its part; "" where the split names none.

    distance  bits between them; `exact` where their pixels are the same
    likeness  of one and the best part of the other; None where it is low
    how       in words, how alike they are
    """

    images: tuple[Path, Path]
    parts: tuple[str, str]
    distance: int
    exact: bool
    likeness: float | None
    how: str

    @property
    def across(self) -> bool:
        """Whether they lie in different parts, which is a leak if both are used."""
        return self.parts[0] != self.parts[1] and "" not in self.parts


@dataclass(frozen=True)
class Report:
    """Everything that is known of a data set's folder once each file was read."""

    dataset: Dataset
    split: Split
    facts: tuple[PairFacts, ...]
    copies: tuple[Copies, ...]

    @cached_property
    def usable(self) -> tuple[PairFacts, ...]:
        """The pairs that training can use as they are."""
        return tuple(one for one in self.facts if one.usable)

    @cached_property
    def remarks(self) -> tuple[Remark, ...]:
        """What is to be said of single files, problems first; files without a partner are problems."""
        alone = [Remark(one.path, one.reason) for one in self.dataset.unpaired]
        every = [*alone, *(remark for one in self.facts for remark in one.remarks)]
        return tuple(sorted(every, key=lambda remark: not remark.problem))

    @property
    def problems(self) -> tuple[Remark, ...]:
        """The remarks that keep files from being used."""
        return tuple(remark for remark in self.remarks if remark.problem)

    def sizes(self) -> Counter[tuple[int, int]]:
        """How many images have each width and height."""
        return Counter(one.size for one in self.facts if one.size)

    def kinds(self) -> Counter[str]:
        """How many mask files are of each kind."""
        return Counter(kind for one in self.facts for kind in one.kinds)

    def formats(self) -> Counter[str]:
        """How many images are of each format."""
        return Counter(one.format for one in self.facts if one.format)

    def shares(self) -> np.ndarray:
        """The foreground's share of each usable image that has any, sorted."""
        return np.sort([one.foreground for one in self.usable if one.foreground])

    def without_foreground(self) -> int:
        """Usable images whose mask is empty."""
        return sum(one.foreground == 0 for one in self.usable)

    def name(self, path: Path) -> str:
        """A file's path below the data set's folder."""
        return path.relative_to(self.dataset.root).as_posix()

    def facts_json(self) -> dict[str, Any]:
        """The report as one JSON object; docs/data.md explains its fields."""
        shares = self.shares()
        return {
            "folder": str(self.dataset.root),
            "layout": self.dataset.layout,
            "pairs": len(self.facts),
            "usable": len(self.usable),
            "several_masks": sum(len(one.pair.masks) > 1 for one in self.facts),
            "sizes": [{"width": w, "height": h, "images": n} for (w, h), n in self.sizes().most_common()],
            "formats": dict(self.formats().most_common()),
            "mask_kinds": dict(self.kinds().most_common()),
            "foreground": {
                "images_with": len(shares),
                "images_without": self.without_foreground(),
                "share": {f"p{q}": round(float(np.percentile(shares, q)), 5) for q in (5, 50, 95)}
                if len(shares)
                else None,
            },
            "split": {"rule": self.split.rule, **self.split.counts(), "sha256": self.split.sha256()},
            "copies": [
                {
                    "images": [self.name(image) for image in pair.images],
                    "parts": list(pair.parts),
                    "distance": pair.distance,
                    "exact": pair.exact,
                    "likeness": pair.likeness and round(pair.likeness, 4),
                    "across_parts": pair.across,
                }
                for pair in self.copies
            ],
            "remarks": [
                {"file": self.name(remark.path), "words": remark.words, "problem": remark.problem}
                for remark in self.remarks
            ],
        }


def look_through(
    dataset: Dataset, split: Split, threads: int, done: Callable[[PairFacts], None] = lambda _: None
) -> Report:
    """Read every file of a data set, in threads, and report. `done` is called with each pair's facts."""

    def look(pair: Pair) -> PairFacts:
        facts = inspect(pair)
        done(facts)
        return facts

    with ThreadPoolExecutor(threads) as pool:
        facts = tuple(pool.map(look, dataset.pairs))
    return Report(dataset, split, facts, _copies(facts, split))


def _copies(facts: tuple[PairFacts, ...], split: Split) -> tuple[Copies, ...]:
    """Pairs of copies, those across parts first, then the same pixels, then the nearest."""
    parts = {pair.image: part for part in PARTS for pair in getattr(split, part)}
    images = [(one.pair.image, one.fingerprint) for one in facts if one.fingerprint]
    found = []
    for match in copies_within([mark for _, mark in images]):
        both = images[match.query][0], images[match.stored][0]
        homes = parts.get(both[0], ""), parts.get(both[1], "")
        found.append(Copies(both, homes, match.distance, match.exact, match.likeness, str(match)))
    return tuple(sorted(found, key=lambda one: (not one.across, not one.exact, one.distance, one.images)))
