"""PH²: `PH2 Dataset images/IMD*/IMD*_Dermoscopic_Image/IMD*.bmp` and `IMD*_lesion/IMD*_lesion.bmp`; dermoscopy.

`IMD*_roi` folders hold colour regions, no lesion masks, and are passed over.
"""

from __future__ import annotations

from ascseg_cli.data.layouts.tree import Tree
from ascseg_cli.data.pairs import Pair, Unpaired
from ascseg_cli.data.split import SplitRule

NAME = "ph2"
RULE = SplitRule(test=0.10, validation=0.20)
DESCRIPTION = "PH2Dataset/ with PH2 Dataset images/IMD*/"
LICENCE = "research and education only (PH2 terms); weights for research use"
CITATION = "Mendonça et al., PH2: A dermoscopic image database for research and benchmarking, EMBC 2013"
_IMAGE, _LESION = "_dermoscopic_image", "_lesion"


def claims(tree: Tree) -> bool:
    """Whether a folder of one dermoscopic image is there."""
    return any(True for _ in tree.named(_IMAGE))


def find(tree: Tree) -> tuple[list[Pair], list[Unpaired]]:
    """Each image with its lesion mask."""
    masks = {f.stem.lower(): f for folder in tree.named(_LESION) for f in tree.folders[folder]}
    pairs, unpaired = [], []
    for folder in tree.named(_IMAGE):
        for image in tree.folders[folder]:
            mask = masks.pop(image.stem.lower() + _LESION, None)
            if mask is None:
                unpaired.append(Unpaired(image, f"no {image.stem}_lesion beside it"))
            else:
                pairs.append(Pair(image, (mask,)))
    return pairs, unpaired + [Unpaired(mask, "no image of this name beside it") for mask in masks.values()]
