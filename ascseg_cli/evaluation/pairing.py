"""Two folders of masks as pairs: by relative name without suffix, then without the words that tools add to names.

A name that matches as it stands goes first, so that an image whose own name ends in `_mask` keeps its partner.
Several files of one name with such a word (`a_mask.png`, `a_mask_1.png`) are one mask, their union; a file
without it beside them is taken for the image and left out.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ascseg_cli.data.tree import Tree
from ascseg_cli.errors import DataError

WORDS = ("mask", "segmentation", "lesion", "seg", "gt", "label", "pred", "prediction")
_ENDING = re.compile(rf"(_({'|'.join(WORDS)}))(_\d+)?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class MaskPair:
    """The files of one prediction and of its truth; several are one mask, their union.

    name  the prediction's path relative to its folder, posix, without suffix
    key   the name under which both sides met

    A Path takes several times the memory of its text, which counts with 100,000 pairs.
    """

    name: str
    key: str
    pred_files: tuple[str, ...]
    truth_files: tuple[str, ...]

    @property
    def pred(self) -> tuple[Path, ...]:
        """The prediction's files."""
        return tuple(map(Path, self.pred_files))

    @property
    def truth(self) -> tuple[Path, ...]:
        """The truth's files."""
        return tuple(map(Path, self.truth_files))


@dataclass(frozen=True)
class Pairing:
    """What two folders came to.

    lone_pred, lone_truth  relative names, with suffix, of files without a partner
    left_out               images that lie beside their masks
    """

    pairs: tuple[MaskPair, ...]
    lone_pred: tuple[str, ...]
    lone_truth: tuple[str, ...]
    left_out: int = 0


Named = list[tuple[str, str]]  # relative posix name with suffix, path


def pair_folders(pred: Path, truth: Path) -> Pairing:
    """Pair all image files below two folders. Raises DataError where one holds none, or nothing matches."""
    preds, truths = _files(pred), _files(truth)
    pred_keys, truth_keys = ({_stem(name) for name, _ in files} for files in (preds, truths))
    ours, left_pred = _grouped(preds, truth_keys)
    theirs, left_truth = _grouped(truths, pred_keys)
    names = [name for name in ours if name in theirs]
    if not names:
        raise DataError(
            f"no file of {pred} has the name of one of {truth}: {preds[0][0]} against {truths[0][0]}",
            "are the predictions of another set? Names match without suffix and without _mask, _segmentation, …",
        )
    pairs = [MaskPair(_stem(ours[n][0][0]), n, _paths(ours[n]), _paths(theirs[n])) for n in names]
    return Pairing(
        tuple(sorted(pairs, key=lambda pair: pair.name)),
        _lone(ours, theirs),
        _lone(theirs, ours),
        left_pred + left_truth,
    )


def pair_again(pred: Path, pairs: Iterable[MaskPair]) -> list[MaskPair]:
    """Another folder of predictions with the truths of `pairs`, under their names. Raises DataError as above."""
    wanted = {pair.key: pair for pair in pairs}
    files = _files(pred)
    groups, _ = _grouped(files, set(wanted))
    found = [
        MaskPair(pair.name, key, _paths(groups[key]), pair.truth_files)
        for key, pair in wanted.items()
        if key in groups
    ]
    if not found:
        raise DataError(f"no file of {pred} has the name of an image here, {next(iter(wanted))} for one")
    return found


def pair_images(folder: Path, pairs: Iterable[MaskPair]) -> dict[str, Path]:
    """The photographs of pairs by the pairs' names, as far as the folder has them. Raises DataError for none."""
    files = {_stem(name): path for name, path in reversed(_files(folder))}
    found = {}
    for pair in pairs:
        forms = (_ENDING.sub("", pair.key), pair.key, pair.name)
        if (form := next((form for form in forms if form in files), None)) is not None:
            found[pair.name] = Path(files[form])
    if not found:
        raise DataError(f"no file of {folder} has the name of a mask: {next(iter(files))} for one")
    return found


def _files(folder: Path) -> Named:
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder", "name a folder of masks")
    tree = Tree(Path(os.devnull))
    written_by_us = folder / "masks"
    if written_by_us.is_dir() and (folder / "results.csv").is_file():
        folder = written_by_us
    files = [(name, path) for path, name in tree.walk(os.fspath(folder))]
    if not files:
        raise DataError(f"{folder} holds no mask", "PNG, JPEG, BMP, TIFF, WebP and DICOM are read")
    return sorted(files)


def _grouped(files: Named, partners: set[str]) -> tuple[dict[str, Named], int]:
    """Files by the name that pairs them, and how many are images beside their masks."""
    groups: dict[str, Named] = defaultdict(list)
    for name, path in files:
        stem = _stem(name)
        forms = (stem, _ENDING.sub(r"\1", stem), _ENDING.sub("", stem))  # a_mask_1, a_mask, a
        groups[next((form for form in forms if form in partners), forms[-1])].append((name, path))
    left_out = 0
    for key, members in groups.items():
        _check_distinct(members)
        masks = [member for member in members if _ENDING.search(_stem(member[0]))]
        if masks:
            left_out += len(members) - len(masks)
            groups[key] = masks
    return groups, left_out


def _check_distinct(members: Named) -> None:
    seen: dict[str, str] = {}
    for name, _ in members:
        if (other := seen.setdefault(_stem(name), name)) != name:
            raise DataError(f"{other} and {name} have one name without suffix", "keep one of them")


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _paths(files: Named) -> tuple[str, ...]:
    return tuple(path for _, path in files)


def _lone(groups: dict[str, Named], partners: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(name for key in set(groups) - set(partners) for name, _ in groups[key]))
