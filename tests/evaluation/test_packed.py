"""What is kept in little memory comes back as it was given."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from ascseg_cli.evaluation.mask_pairs import MaskPair, MaskPairs
from ascseg_cli.evaluation.packed import Texts

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
