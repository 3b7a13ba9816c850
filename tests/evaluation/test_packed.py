"""What is kept in little memory comes back as it was given."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from ascseg_cli.evaluation.mask_pairs import MaskPair, MaskPairs
from ascseg_cli.evaluation.metrics import Ruler, score
from ascseg_cli.evaluation.packed import Texts
from ascseg_cli.evaluation.pairing import pair_folders
from ascseg_cli.evaluation.scoring import Scored
from ascseg_cli.evaluation.table import Table

GIVEN = ["a/b", "", "läsion 1", "病変", os.fsdecode(b"latin-1 \xe4"), "\U0001f642", "a/b"]


def test_texts_come_back_in_their_order_whatever_they_hold() -> None:
    texts = Texts(GIVEN)
    assert list(texts) == GIVEN
    assert [texts[place] for place in range(len(texts))] == GIVEN
    with pytest.raises(IndexError):
        texts[len(GIVEN)]
    assert list(Texts()) == []


def test_a_text_takes_little_more_than_its_letters() -> None:
    tracemalloc.start()
    texts = Texts(f"folder/image_{i:06}" for i in range(20_000))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(texts) == 20_000
    assert taken < 20_000 * 1.25 * (len("folder/image_000000") + 8)


def test_a_pair_keeps_its_names_and_figures_alone(tmp_path: Path) -> None:
    """What 2,000 pairs leave behind, by Python's own count: five names, 17 numbers of 8 bytes."""
    for side in ("pred", "truth"):
        (tmp_path / side).mkdir()
        for i in range(2000):
            (tmp_path / side / f"image_{i:06}.png").touch()
    one = np.eye(9, dtype=bool)
    counts, values = score(one, one, Ruler())
    tracemalloc.start()
    pairing = pair_folders(tmp_path / "pred", tmp_path / "truth")
    table = Table()
    for pair in pairing.pairs:
        table.add(Scored(pair.name, one.shape, counts, values))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(pairing.pairs), len(table)) == (2000, 2000)
    assert kept < 2000 * 350


def test_pairs_come_back_with_their_folders() -> None:
    pairs = MaskPairs("pred", "some/truth")
    pairs.append("x/a_pred", "x/a", ["x/a_pred.png"], ["x/a_mask.png", "x/a_mask_1.png"])
    pairs.append("b", "b", ["b.bmp", "b_mask_2.bmp"], ["b.tif"])
    truths = os.path.join("some/truth", "x/a_mask.png"), os.path.join("some/truth", "x/a_mask_1.png")
    first = MaskPair("x/a_pred", "x/a", (os.path.join("pred", "x/a_pred.png"),), truths)
    assert (len(pairs), pairs[0], list(pairs)) == (2, first, [first, pairs[1]])
    assert pairs[1].pred == (Path("pred/b.bmp"), Path("pred/b_mask_2.bmp"))
    assert pairs[1].truth == (Path("some/truth/b.tif"),)


def test_whole_paths_need_no_folder(tmp_path: Path) -> None:
    pairs = MaskPairs("", "")
    pairs.append("a", "a", [str(tmp_path / "a.png")], [str(tmp_path / "b.png")])
    assert (pairs[0].pred, pairs[0].truth) == ((tmp_path / "a.png",), (tmp_path / "b.png",))
