"""Which file of one folder meets which of another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from ascseg_cli.errors import DataError
from ascseg_cli.evaluation.pairing import Pairing, pair_again, pair_folders


def paired(folder: Path, preds: Sequence[str], truths: Sequence[str]) -> Pairing:
    for side, names in (("pred", preds), ("truth", truths)):
        (folder / side).mkdir()
        for name in names:
            path = folder / side / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return pair_folders(folder / "pred", folder / "truth")


def names(pairing: Pairing) -> list[tuple[str, list[str], list[str]]]:
    return [(one.name, [p.name for p in one.pred], [t.name for t in one.truth]) for one in pairing.pairs]


@pytest.mark.parametrize("ending", ["", "_mask", "_segmentation", "_lesion", "_Mask"])
def test_common_endings(tmp_path: Path, ending: str) -> None:
    pairing = paired(tmp_path, ["sub/a.png"], [f"sub/a{ending}.bmp"])
    assert names(pairing) == [("sub/a", ["a.png"], [f"a{ending}.bmp"])]
    assert (pairing.lone_pred, pairing.lone_truth, pairing.left_out) == ((), (), 0)


def test_both_sides_may_have_endings_and_the_name_is_the_predictions(tmp_path: Path) -> None:
    pairing = paired(tmp_path, ["a_pred.png", "b_mask.png"], ["a_segmentation.png", "b_segmentation.png"])
    assert [one.name for one in pairing.pairs] == ["a_pred", "b_mask"]


def test_several_masks_of_an_image_are_one(tmp_path: Path) -> None:
    truths = ["benign (1)_mask.png", "benign (1)_mask_1.png", "benign (10)_mask.png"]
    pairing = paired(tmp_path, ["benign (1).png", "benign (10).png"], truths)
    assert names(pairing)[0] == ("benign (1)", ["benign (1).png"], truths[:2])
    assert names(pairing)[1] == ("benign (10)", ["benign (10).png"], truths[2:])


def test_several_masks_meet_a_prediction_that_is_named_like_the_first(tmp_path: Path) -> None:
    pairing = paired(tmp_path, ["a_mask.png"], ["a_mask.png", "a_mask_1.png", "a_mask_2.png"])
    assert names(pairing) == [("a_mask", ["a_mask.png"], ["a_mask.png", "a_mask_1.png", "a_mask_2.png"])]


def test_images_beside_their_masks_are_left_out(tmp_path: Path) -> None:
    pairing = paired(tmp_path, ["a.png"], ["a.png", "a_mask.png"])
    assert names(pairing) == [("a", ["a.png"], ["a_mask.png"])]
    assert pairing.left_out == 1


def test_an_own_name_that_ends_like_a_mask_keeps_its_partner(tmp_path: Path) -> None:
    pairing = paired(tmp_path, ["a.png", "a_mask.png"], ["a.png", "a_mask.png"])
    assert names(pairing) == [("a", ["a.png"], ["a.png"]), ("a_mask", ["a_mask.png"], ["a_mask.png"])]


COMPOSED, DECOMPOSED = "\u00e9", "e\u0301"  # one letter, as Linux and macOS store it


@pytest.mark.parametrize("ours", [COMPOSED, DECOMPOSED])
def test_a_name_has_one_meaning_however_its_letters_are_stored(tmp_path: Path, ours: str) -> None:
    theirs = DECOMPOSED if ours == COMPOSED else COMPOSED
    pairing = paired(tmp_path, [f"{ours}/{ours}.png"], [f"{theirs}/{theirs}_mask.png"])
    (pair,) = pairing.pairs
    assert [*pair.pred, *pair.truth] == [
        tmp_path / "pred" / ours / f"{ours}.png",
        tmp_path / "truth" / theirs / f"{theirs}_mask.png",
    ]
    (again,) = pair_again(tmp_path / "truth", pairing.pairs)
    assert (again.name, again.pred) == (pair.name, pair.truth)


def test_what_found_no_partner_is_listed(tmp_path: Path) -> None:
    pairing = paired(tmp_path, ["a.png", "x.png", "sub/b.png"], ["a.png", "b.png", "y_mask.tif"])
    assert pairing.lone_pred == ("sub/b.png", "x.png")
    assert pairing.lone_truth == ("b.png", "y_mask.tif")


def test_the_masks_of_a_run_of_ours(tmp_path: Path) -> None:
    preds = ["masks/a.png", "overlays/a.png", "results.csv"]
    assert names(paired(tmp_path, preds, ["a.png"])) == [("a", ["a.png"], ["a.png"])]


@pytest.mark.parametrize(
    ("preds", "truths", "words"),
    [
        ([], ["a.png"], "pred holds no mask"),
        (["a.png"], ["notes.txt"], "truth holds no mask"),
        (["a.png"], ["b.png"], "no file of .* has the name of one of .*a.png against b.png"),
        (["a.png", "a.bmp"], ["a.png"], "a.bmp and a.png have one name"),
        (["a.png"], ["a_mask.png", "a_mask.bmp"], "a_mask.bmp and a_mask.png have one name"),
    ],
)
def test_refusals(tmp_path: Path, preds: list[str], truths: list[str], words: str) -> None:
    with pytest.raises(DataError, match=words):
        paired(tmp_path, preds, truths)


def test_another_set_of_predictions_takes_the_names_of_the_first(tmp_path: Path) -> None:
    first = paired(tmp_path, ["a_pred.png", "b.png"], ["a_mask.png", "b_mask.png"])
    other = tmp_path / "other"
    other.mkdir()
    (other / "a_mask.png").touch()
    again = pair_again(other, first.pairs)
    assert [(one.name, one.pred[0].name, one.truth) for one in again] == [
        ("a_pred", "a_mask.png", first.pairs[0].truth)
    ]
