"""The data sets' official folder layouts, recognised by themselves; one small file a layout.

A layout module has NAME, RULE (its split), DESCRIPTION (for messages), LICENCE and CITATION (as far as known;
empty: the user's own data), `claims(tree)` (is this folder mine?) and `find(tree)` (pairs, and files without a
partner). To add one, write the file and list it in LAYOUTS.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from ascseg_cli.data.grouping import group
from ascseg_cli.data.layouts import busi, isic2017, isic2018, kvasir, ph2, plain
from ascseg_cli.data.layouts.tree import Tree
from ascseg_cli.data.pairs import Pair, Unpaired
from ascseg_cli.data.split import Split, split
from ascseg_cli.data.split_file import read_split
from ascseg_cli.errors import DataError, UsageError

LAYOUTS: tuple[ModuleType, ...] = (isic2017, isic2018, ph2, kvasir, busi, plain)  # the special before the plain


@dataclass(frozen=True)
class Dataset:
    """A recognised folder: its layout's name, every pair, and what found no partner."""

    root: Path
    layout: str
    pairs: tuple[Pair, ...]
    unpaired: tuple[Unpaired, ...]

    def split(self, *, split_file: Path | None = None, group_by: str | None = None) -> Split:
        """Every pair in its part. By default: official parts where the layout has them, else its rule by name.

        split_file  a CSV `image,part` that says each image's part, see data.split_file
        group_by    what must stay in one part, `FILE.csv:COLUMN` or a regular expression, see data.grouping; the
                    layout's rule divides the groups, and official parts don't count
        Raises UsageError, DataError.
        """
        if split_file is not None and group_by is not None:
            raise UsageError("a split is by file or by group, not both", "give --split-file or --group-by")
        if split_file is not None:
            return read_split(split_file, self.pairs)
        rule = next(module.RULE for module in LAYOUTS if module.NAME == self.layout)
        return split(self.pairs if group_by is None else group(self.pairs, group_by, self.root), rule)


def open_dataset(root: Path) -> Dataset:
    """The data set in a folder, which may also lie some folders deeper (unpacked archives repeat their name).

    Raises DataError where no layout is recognised, two are, or no image has a mask.
    """
    tree = Tree(root)
    claiming = [module for module in LAYOUTS[:-1] if module.claims(tree)] or [
        m for m in (plain,) if m.claims(tree)
    ]
    if not claiming:
        known = "; ".join(module.DESCRIPTION for module in LAYOUTS)
        raise DataError(
            f"{root} holds no layout of images and masks that is known here; {_what_is_there(tree)}",
            f"put your own into images/ and masks/, each mask named as its image; known: {known}",
        )
    if len(claiming) > 1:
        names = " and ".join(module.NAME for module in claiming)
        raise DataError(f"{root} holds several data sets ({names})", "name the folder of one of them")
    pairs, unpaired = claiming[0].find(tree)
    if not pairs:
        why = f"; {unpaired[0].path.name}: {unpaired[0].reason}" if unpaired else ""
        raise DataError(f"{root} looks like {claiming[0].NAME}, but no image in it has a mask{why}")
    return Dataset(root, claiming[0].NAME, tuple(pairs), tuple(unpaired))


def _what_is_there(tree: Tree) -> str:
    """The folders with most images, so that a folder of another name is seen at once."""
    counts = sorted(((len(files), folder) for folder, files in tree.folders.items() if files), reverse=True)
    if not counts:
        return "no file in it is an image"
    folders = [f"{folder.relative_to(tree.root).as_posix()}/ ({count:,})" for count, folder in counts[:4]]
    return f"images lie in {', '.join(folders)}" + (f" and {len(counts) - 4:,} more" if len(counts) > 4 else "")
