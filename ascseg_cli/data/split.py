"""Which part an image belongs to: by its name alone, so that it never moves when others come or go.

x = first 8 hex digits of SHA-256(name) / 2³²; test if x < t, validation if x < v, else training. The name is
the image's file stem, or its group's name, in UTF-8 after NFC (macOS stores names decomposed).
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ascseg_cli.data.pairs import Pair
from ascseg_cli.errors import DataError

PARTS = ("train", "validation", "test")


def position(name: str) -> float:
    """Where a name falls in [0, 1), evenly spread and the same on every machine."""
    text = unicodedata.normalize("NFC", name).encode("utf-8", "surrogateescape")
    return int(hashlib.sha256(text).hexdigest()[:8], 16) / 2**32


@dataclass(frozen=True)
class SplitRule:
    """Shares of the split: test below `test`, validation below `validation`, training above."""

    test: float = 0.20
    validation: float = 0.30

    def part(self, name: str) -> str:
        """The part of an image (by stem) or of a group (by name)."""
        x = position(name)
        return "test" if x < self.test else "validation" if x < self.validation else "train"

    def words(self, named: str = "stem") -> str:
        """The rule for people, and what is named by it."""
        return f"sha256 of the {named}: test < {self.test:.2f}, validation < {self.validation:.2f}"


@dataclass(frozen=True)
class Split:
    """Every pair in its part, in the order of the names; `rule` says in words how it was made."""

    rule: str
    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    test: tuple[Pair, ...]

    def counts(self) -> dict[str, int]:
        """Images in each part."""
        return {part: len(getattr(self, part)) for part in PARTS}

    def csv(self) -> str:
        """The split as a CSV text, `image,part`, sorted, so that equal splits are equal texts.

        An image is its file's name, after as many of its folders as it takes to tell all images apart.
        """
        pairs = [(pair, part) for part in PARTS for pair in getattr(self, part)]
        labels = _labels([pair.image for pair, _ in pairs])
        rows = sorted(f"{_quoted(label)},{part}" for label, (_, part) in zip(labels, pairs))
        return "\n".join(["image,part", *rows]) + "\n"

    def sha256(self) -> str:
        """SHA-256 of `csv()`: names the split in the weights that were trained with it."""
        return hashlib.sha256(self.csv().encode("utf-8", "surrogateescape")).hexdigest()


def split(pairs: Iterable[Pair], rule: SplitRule) -> Split:
    """Divide pairs: by their official parts if every one has one, else all by the rule.

    Raises DataError where only some have an official part: the two ways can't be mixed without a leak.
    """
    ordered = sorted(pairs, key=lambda pair: (pair.stem, str(pair.image)))
    official = [pair for pair in ordered if pair.part is not None]
    if official and len(official) < len(ordered):
        stray = next(pair for pair in ordered if pair.part is None)
        raise DataError(
            f"{len(official)} of {len(ordered)} images have an official part, {stray.image.name} has none",
            "keep images without an official part in a folder of their own",
        )
    parts: dict[str, list[Pair]] = {part: [] for part in PARTS}
    for pair in ordered:
        parts[pair.part or rule.part(pair.group or pair.stem)].append(pair)
    grouped = any(pair.group is not None for pair in ordered)
    words = (
        "the parts that folders or file names state" if official else rule.words("group" if grouped else "stem")
    )
    return Split(words, *(tuple(parts[part]) for part in PARTS))


def _labels(images: list[Path]) -> list[str]:
    deepest = max((len(image.parts) for image in images), default=1)
    for depth in range(1, deepest + 1):
        labels = ["/".join(image.parts[-depth:]) for image in images]
        if len(set(labels)) == len(labels):
            break
    return labels


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if any(c in name for c in ',"\r\n') else name
