"""Settings: what is refused, and which of them make two runs different."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ascseg_cli.errors import UsageError
from ascseg_cli.inference.postprocess import Cleaning
from ascseg_cli.inference.settings import KINDS, Settings, parse_batch_size, parse_save

BASE = Settings(threshold=0.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"threshold": -0.1}, "--threshold is -0.1"),
        ({"threshold": float("nan")}, "--threshold"),
        ({"cleaning": Cleaning(min_area=-1)}, "--min-area"),
        ({"max_pixels": 0}, "--max-pixels"),
        ({"batch_size": 0}, "--batch-size"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        replace(BASE, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"threshold": 0.51},
        {"tta": True},
        {"precision": "tf32"},
        {"cleaning": Cleaning(fill_holes=True)},
        {"cleaning": Cleaning(min_area=2)},
        {"cleaning": Cleaning(keep_largest=True)},
    ],
)
def test_what_changes_results_changes_the_fingerprint(changes: dict[str, Any]) -> None:
    assert replace(BASE, **changes).fingerprint("a", "cpu") != BASE.fingerprint("a", "cpu")


def test_what_changes_no_result_does_not() -> None:
    other = replace(BASE, save=KINDS, max_pixels=10, batch_size=7)
    assert other.fingerprint("a", "cpu") == BASE.fingerprint("a", "cpu")
    assert BASE.fingerprint("b", "cpu") != BASE.fingerprint("a", "cpu")


def test_torchs_backends_share_a_folder_and_onnxruntime_has_its_own() -> None:
    assert BASE.fingerprint("a", "gpu") == BASE.fingerprint("a", "cpu") != BASE.fingerprint("a", "onnxruntime")


def test_parsing() -> None:
    assert parse_save("polygons, masks") == ("masks", "polygons")
    assert parse_batch_size("auto") is None
    assert parse_batch_size("12") == 12
    for text in ("x", "-1", "1.5", "", "²"):
        with pytest.raises(UsageError, match="--batch-size"):
            parse_batch_size(text)
