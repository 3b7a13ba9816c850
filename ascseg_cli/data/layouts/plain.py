"""`images/` beside `masks/`, paired by name: the layout of one's own data, and of many small sets.

A mask has its image's stem, or that with `_mask`, `_segmentation`, `_lesion`, `_seg`, `_gt` or `_label` after it;
several (`_mask_1`, …) are one mask. Folders below `images/` are mirrored below `masks/`. Names are compared in
Unicode's composed form (NFC): macOS stores some decomposed, and they look the same.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from pathlib import Path

from ascseg_cli.data.layouts.tree import Tree
from ascseg_cli.data.pairs import Pair, Unpaired
from ascseg_cli.data.split import SplitRule

NAME = "plain"
RULE = SplitRule()
DESCRIPTION = "images/ beside masks/"
LICENCE = ""
CITATION = ""
_SUFFIX = re.compile(r"_(mask|segmentation|lesion|seg|gt|label)(_\d+)?$", re.IGNORECASE)


def claims(tree: Tree) -> bool:
    """Whether some folder `images` lies beside a folder `masks`."""
    return bool(_couples(tree))


def find(tree: Tree) -> tuple[list[Pair], list[Unpaired]]:
    """Pairs of all `images`/`masks` couples below the root, and the files without a partner."""
    pairs: list[Pair] = []
    unpaired: list[Unpaired] = []
    for images, masks in _couples(tree):
        couple_pairs, couple_unpaired = _pair(_by_key(tree, images), images, _below(tree, masks), masks)
        pairs += couple_pairs
        unpaired += couple_unpaired
    return pairs, unpaired


def _pair(
    images: dict[Path, list[Path]], images_folder: Path, masks: list[Path], masks_folder: Path
) -> tuple[list[Pair], list[Unpaired]]:
    found: dict[Path, list[Path]] = defaultdict(list)
    unpaired = []
    for mask in masks:
        key = _key(mask, masks_folder)
        if key not in images:  # an exact name first: an image's own name may end in `_mask`
            key = key.with_name(_SUFFIX.sub("", key.name))
        if key in images:
            found[key].append(mask)
        else:
            unpaired.append(Unpaired(mask, f"no image of this name in {images_folder.name}/"))
    pairs = []
    for key, files in images.items():
        if len(files) > 1:
            unpaired += [Unpaired(file, "several images share this name") for file in files]
        elif key not in found:
            unpaired.append(Unpaired(files[0], f"no mask of this name in {masks_folder.name}/"))
        else:
            pairs.append(Pair(files[0], tuple(found[key])))
    return pairs, unpaired


def _couples(tree: Tree) -> list[tuple[Path, Path]]:
    by_name = {(folder.parent, folder.name.lower()): folder for folder in tree.folders}
    return [
        (folder, by_name[parent, "masks"])
        for (parent, name), folder in by_name.items()
        if name == "images" and (parent, "masks") in by_name
    ]


def _below(tree: Tree, top: Path) -> list[Path]:
    return [file for folder, files in tree.folders.items() if folder.is_relative_to(top) for file in files]


def _by_key(tree: Tree, top: Path) -> dict[Path, list[Path]]:
    """Files below a folder under their path in it, less the suffix."""
    grouped: dict[Path, list[Path]] = defaultdict(list)
    for file in _below(tree, top):
        grouped[_key(file, top)].append(file)
    return grouped


def _key(file: Path, top: Path) -> Path:
    return Path(unicodedata.normalize("NFC", str(file.relative_to(top).with_suffix(""))))
