"""ISIC 2017, part 1: `ISIC-2017_{Training,Validation,Test_v2}_Data` and `…_Part1_GroundTruth`; dermoscopy.

Its official split is the default. `*_superpixels.png` beside the images are no images to segment.
"""

from __future__ import annotations

import re

from ascseg_cli.data.layouts import isic
from ascseg_cli.data.layouts.tree import Tree
from ascseg_cli.data.pairs import Pair, Unpaired
from ascseg_cli.data.split import SplitRule

NAME = "isic2017"
RULE = SplitRule()
DESCRIPTION = (
    "ISIC-2017_Training_Data/ with ISIC-2017_Training_Part1_GroundTruth/, likewise Validation and Test_v2"
)
LICENCE = "CC0 (ISIC 2017); weights for research use"
CITATION = "Codella et al., Skin Lesion Analysis Toward Melanoma Detection: A Challenge at ISBI 2017, ISBI 2018"
_IMAGES = re.compile(r"ISIC-2017_(Training|Validation|Test)(?:_v2)?_Data", re.IGNORECASE)
_TRUTH = re.compile(r"ISIC-2017_(Training|Validation|Test)(?:_v2)?_Part1_GroundTruth", re.IGNORECASE)


def claims(tree: Tree) -> bool:
    """Whether a folder of ISIC 2017 images is there."""
    return bool(isic.innermost(tree, _IMAGES))


def find(tree: Tree) -> tuple[list[Pair], list[Unpaired]]:
    """Each image with its mask and its official part."""
    return isic.pair(tree, isic.innermost(tree, _IMAGES), isic.innermost(tree, _TRUTH), official=True)
