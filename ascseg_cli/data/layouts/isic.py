"""What the two ISIC layouts share: a folder of images beside a folder of `<image>_segmentation.png`."""

from __future__ import annotations

import re
from pathlib import Path

from ascseg_cli.data.layouts.tree import Tree
from ascseg_cli.data.pairs import Pair, Unpaired

_MASK = "_segmentation"
_NOT_IMAGES = re.compile(r"_superpixels$|_segmentation$")


def innermost(tree: Tree, pattern: re.Pattern[str]) -> list[tuple[Path, str]]:
    """Folders whose name matches and that hold images, with the match's first group in lower case.

    Archives unpack into a folder of their own name, so the same name may occur twice in a path.
    """
    found = ((folder, pattern.fullmatch(folder.name)) for folder, files in tree.folders.items() if files)
    return [(folder, match[1].lower()) for folder, match in found if match]


def pair(
    tree: Tree, images: list[tuple[Path, str]], truths: list[tuple[Path, str]], *, official: bool
) -> tuple[list[Pair], list[Unpaired]]:
    """Images with the masks of the same part; with `official` the part's name is kept as the official one."""
    masks = {
        (part, file.stem.removesuffix(_MASK)): file
        for folder, part in truths
        for file in tree.folders[folder]
        if file.stem.endswith(_MASK)
    }
    pairs, unpaired = [], []
    for folder, part in images:
        for image in tree.folders[folder]:
            if _NOT_IMAGES.search(image.stem):
                continue
            mask = masks.pop((part, image.stem), None)
            if mask is None:
                unpaired.append(Unpaired(image, f"no {image.stem}{_MASK}.png among the {part} masks"))
            else:
                name = {"training": "train"}.get(part, part)
                pairs.append(Pair(image, (mask,), part=name if official else None))
    return pairs, unpaired + [Unpaired(mask, "no image of this name in its part") for mask in masks.values()]
