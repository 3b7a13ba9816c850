"""Two folders of masks as pairs: by relative name without suffix, then without the words that tools add to names.

Names are compared in Unicode's composed form (NFC): macOS stores some decomposed, and they look the same.
A name that matches as it stands goes first, so that an image whose own name ends in `_mask` keeps its partner.
Several files of one name with such a word (`a_mask.png`, `a_mask_1.png`) are one mask, their union; a file
without it beside them is taken for the image and left out.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ascseg_cli.data.tree import Tree
from ascseg_cli.errors import DataError
from ascseg_cli.evaluation.mask_pairs import MaskPair, MaskPairs

WORDS = ("mask", "segmentation", "lesion", "seg", "gt", "label", "pred", "prediction")
_ENDING = re.compile(rf"(_({'|'.join(WORDS)}))(_\d+)?$", re.IGNORECASE)


@dataclass(frozen=True)
class Pairing:
    """What two folders came to.

    lone_pred, lone_truth  relative names, with suffix, of files without a partner
    left_out               images that lie beside their masks
    """

    pairs: MaskPairs
    lone_pred: tuple[str, ...]
    lone_truth: tuple[str, ...]
    left_out: int = 0


@dataclass(frozen=True)
class _Side:
    """The image files of one folder: their names relative to `root`, posix, with suffix, sorted."""

    root: str
    names: list[str]


def pair_folders(pred: Path, truth: Path) -> Pairing:
    """Pair all image files below two folders. Raises DataError where one holds none, or nothing matches."""
    preds, truths = _side(pred), _side(truth)
    ours = _Groups(preds, {_stem(name) for name in truths.names})
    theirs = _Groups(truths, {_stem(name) for name in preds.names})
    keys = sorted((key for key in ours if key in theirs), key=lambda key: _stem(ours[key][0]))
    if not keys:
        raise DataError(
            f"no file of {pred} has the name of one of {truth}: {preds.names[0]} against {truths.names[0]}",
            "are the predictions of another set? Names match without suffix and without _mask, _segmentation, …",
        )
    pairs = MaskPairs(preds.root, truths.root)
    for key in keys:
        pairs.append(_stem(ours[key][0]), key, ours[key], theirs[key])
    return Pairing(pairs, _lone(ours, theirs), _lone(theirs, ours), ours.left_out + theirs.left_out)


def pair_again(pred: Path, pairs: MaskPairs) -> MaskPairs:
    """Another folder of predictions with the truths of `pairs`, under their names. Raises DataError as above."""
    side = _side(pred)
    groups = _Groups(side, {_composed(pair.key) for pair in pairs})
    found = MaskPairs(side.root, "")
    for pair in pairs:
        if (key := _composed(pair.key)) in groups:
            found.append(pair.name, pair.key, groups[key], pair.truth_files)
    if not len(found):
        raise DataError(f"no file of {pred} has the name of an image here, {pairs[0].key} for one")
    return found


def pair_images(folder: Path, pairs: Iterable[MaskPair]) -> dict[str, Path]:
    """The photographs of pairs by the pairs' names, as far as the folder has them. Raises DataError for none."""
    side = _side(folder)
    files = {_stem(name): name for name in reversed(side.names)}
    found = {}
    for pair in pairs:
        forms = (_ENDING.sub("", pair.key), pair.key, pair.name)
        if (form := next((form for form in forms if form in files), None)) is not None:
            found[pair.name] = Path(side.root, files[form])
    if not found:
        raise DataError(f"no file of {folder} has the name of a mask: {next(iter(files))} for one")
    return found


def _side(folder: Path) -> _Side:
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder", "name a folder of masks")
    tree = Tree(Path(os.devnull))
    written_by_us = folder / "masks"
    if written_by_us.is_dir() and (folder / "results.csv").is_file():
        folder = written_by_us
    root = os.fspath(folder)
    names = sorted(name for _, name in tree.walk(root))
    if not names:
        raise DataError(f"{folder} holds no mask", "PNG, JPEG, BMP, TIFF, WebP and DICOM are read")
    return _Side(root, names)


class _Groups:
    """The files of a side by the key that pairs them. Most keys have one file, so only the others need a list.

    left_out  files that are images beside their masks
    """

    def __init__(self, side: _Side, partners: Container[str]) -> None:
        self._first: dict[str, str] = {}
        self._others: defaultdict[str, list[str]] = defaultdict(list)
        self.left_out = 0
        for name in side.names:
            key = _key(_stem(name), partners)
            if self._first.setdefault(key, name) is not name:
                self._others[key].append(name)
        for key in self._others:
            self._leave_image_out(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._first)

    def __contains__(self, key: str) -> bool:
        return key in self._first

    def __getitem__(self, key: str) -> list[str]:
        return [self._first[key], *self._others.get(key, ())]

    def _leave_image_out(self, key: str) -> None:
        members = self[key]
        _check_distinct(members)
        masks = [name for name in members if _ENDING.search(_stem(name))]
        if masks:
            self.left_out += len(members) - len(masks)
            self._first[key], self._others[key] = masks[0], masks[1:]


def _key(stem: str, partners: Container[str]) -> str:
    """The first form of a name that the other side has: `a_mask_1`, `a_mask`, `a`; else the last."""
    if stem in partners:
        return stem
    without_number = _ENDING.sub(r"\1", stem)
    return without_number if without_number in partners else _ENDING.sub("", stem)


def _check_distinct(members: list[str]) -> None:
    seen: dict[str, str] = {}
    for name in members:
        if (other := seen.setdefault(_stem(name), name)) != name:
            raise DataError(f"{other} and {name} have one name without suffix", "keep one of them")


def _stem(name: str) -> str:
    return _composed(os.path.splitext(name)[0])


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _lone(groups: _Groups, partners: _Groups) -> tuple[str, ...]:
    return tuple(sorted(name for key in groups if key not in partners for name in groups[key]))
