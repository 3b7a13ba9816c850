"""BUSI: `Dataset_BUSI_with_GT/{benign,malignant,normal}/NAME (N).png` with `NAME (N)_mask.png`, `…_mask_1.png`, ….

Breast ultrasound. Several mask files for one image are one mask; those of normal images are empty.
"""

from __future__ import annotations

import re
from pathlib import Path

from ascseg_cli.data.layouts.tree import Tree
from ascseg_cli.data.pairs import Pair, Unpaired
from ascseg_cli.data.split import SplitRule

NAME = "busi"
RULE = SplitRule()
DESCRIPTION = "Dataset_BUSI_with_GT/ with benign/, malignant/ and normal/"
LICENCE = "CC BY 4.0 (BUSI); weights for research use"
CITATION = "Al-Dhabyani et al., Dataset of breast ultrasound images, Data in Brief 28, 2020"
_CLASSES = ("benign", "malignant", "normal")
_IMAGE = re.compile(r"(benign|malignant|normal) \(\d+\)")
_MASK = re.compile(r"_mask(_\d+)?$")


def claims(tree: Tree) -> bool:
    """Whether some folder of a BUSI class holds a file named as BUSI names them."""
    return any(_IMAGE.match(file.name) for folder in tree.named(*_CLASSES) for file in tree.folders[folder])


def find(tree: Tree) -> tuple[list[Pair], list[Unpaired]]:
    """Each image with all its mask files."""
    pairs: list[Pair] = []
    unpaired: list[Unpaired] = []
    for folder in tree.named(*_CLASSES):
        masks: dict[str, list[Path]] = {}
        images = []
        for file in tree.folders[folder]:
            if _MASK.search(file.stem):
                masks.setdefault(_MASK.sub("", file.stem), []).append(file)
            else:
                images.append(file)
        for image in images:
            found = masks.pop(image.stem, [])
            if found:
                pairs.append(Pair(image, tuple(found)))
            else:
                unpaired.append(Unpaired(image, f"no {image.stem}_mask.png beside it"))
        unpaired += [Unpaired(m, "no image of this name beside it") for group in masks.values() for m in group]
    return pairs, unpaired
