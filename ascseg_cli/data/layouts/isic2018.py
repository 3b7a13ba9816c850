"""ISIC 2018, task 1: `ISIC2018_Task1-2_Training_Input` and `ISIC2018_Task1_Training_GroundTruth`; dermoscopy.

The split is by name: the official validation and test folders, where present, are divided like the rest.
"""

from __future__ import annotations

import re

from ascseg_cli.data.layouts import isic
from ascseg_cli.data.layouts.tree import Tree
from ascseg_cli.data.pairs import Pair, Unpaired
from ascseg_cli.data.split import SplitRule

NAME = "isic2018"
RULE = SplitRule()
DESCRIPTION = "ISIC2018_Task1-2_Training_Input/ with ISIC2018_Task1_Training_GroundTruth/"
LICENCE = "CC BY-NC 4.0 (ISIC 2018); weights for research use"
CITATION = (
    "Codella et al., Skin Lesion Analysis Toward Melanoma Detection 2018, arXiv:1902.03368, 2019; "
    "Tschandl et al., The HAM10000 dataset, Scientific Data 5, 2018"
)
_IMAGES = re.compile(r"ISIC2018_Task1-2_(Training|Validation|Test)_Input", re.IGNORECASE)
_TRUTH = re.compile(r"ISIC2018_Task1_(Training|Validation|Test)_GroundTruth", re.IGNORECASE)


def claims(tree: Tree) -> bool:
    """Whether a folder of ISIC 2018 images is there."""
    return bool(isic.innermost(tree, _IMAGES))


def find(tree: Tree) -> tuple[list[Pair], list[Unpaired]]:
    """Each image with its mask."""
    return isic.pair(tree, isic.innermost(tree, _IMAGES), isic.innermost(tree, _TRUTH), official=False)
