"""Pairs of mask files: 100,000 of them in the memory that their names need."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ascseg_cli.evaluation.packed import Texts

_BETWEEN = "\0"  # no file's name holds it


@dataclass(frozen=True, slots=True)
class MaskPair:
    """The files of one prediction and of its truth; several are one mask, their union.

    name  the prediction's path relative to its folder, posix, without suffix
    key   the name under which both sides met
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


class MaskPairs:
    """Pairs in the order in which they came, each made anew when it is asked for.

    pred_root, truth_root  the folders in which the files lie; "" where their names are whole paths
    """

    def __init__(self, pred_root: str, truth_root: str) -> None:
        self.pred_root, self.truth_root = pred_root, truth_root
        self._packed = Texts()

    def append(self, name: str, key: str, preds: Iterable[str], truths: Iterable[str]) -> None:
        """The next one; preds, truths: names of files relative to the folders, posix, at least one each."""
        self._packed.append(_BETWEEN.join((name, key, *preds, "", *truths)))

    def __len__(self) -> int:
        return len(self._packed)

    def __getitem__(self, place: int) -> MaskPair:
        return self._unpacked(self._packed[place])

    def __iter__(self) -> Iterator[MaskPair]:
        return map(self._unpacked, self._packed)

    def _unpacked(self, packed: str) -> MaskPair:
        name, key, *files = packed.split(_BETWEEN)
        middle = files.index("")
        preds = tuple(os.path.join(self.pred_root, file) for file in files[:middle])
        truths = tuple(os.path.join(self.truth_root, file) for file in files[middle + 1 :])
        return MaskPair(name, key, preds, truths)
