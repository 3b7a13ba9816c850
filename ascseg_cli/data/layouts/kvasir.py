"""Kvasir-SEG: `Kvasir-SEG/{images,masks}`, JPEG for both; polyps in colonoscopy.

Copies whose files are all called `train_*`, `validation_*` or `test_*` carry their split in these names.
"""

from __future__ import annotations

import re
from dataclasses import replace

from ascseg_cli.data.layouts import plain
from ascseg_cli.data.layouts.tree import Tree
from ascseg_cli.data.pairs import Pair, Unpaired
from ascseg_cli.data.split import SplitRule

NAME = "kvasir"
RULE = SplitRule(test=0.10, validation=0.20)
DESCRIPTION = "Kvasir-SEG/ with images/ and masks/"
LICENCE = "research and education only (Kvasir-SEG terms); weights for research use"
CITATION = "Jha et al., Kvasir-SEG: A Segmented Polyp Dataset, MMM 2020"
_PREFIX = re.compile(r"(train|validation|test)_")


def claims(tree: Tree) -> bool:
    """Whether a couple of images/ and masks/ lies in a folder named after Kvasir."""
    return tree.says("kvasir") and plain.claims(tree)


def find(tree: Tree) -> tuple[list[Pair], list[Unpaired]]:
    """Pairs as in any images/ and masks/; the part by the prefix if every image has one."""
    pairs, unpaired = plain.find(tree)
    prefixes = [_PREFIX.match(pair.stem) for pair in pairs]
    if all(prefixes):
        pairs = [replace(pair, part=match[1]) for pair, match in zip(pairs, prefixes) if match]
    return pairs, unpaired
