"""The warning tells the data sets apart, and keeps quiet on images like those that were seen."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ascseg_cli.data.appearance import Features, describe, distance, summarise, unlike
from ascseg_cli.data.layouts import open_dataset

SETS = {"Kvasir": "polyp", "BUSI": "ultrasound", "PH2": "skin", "ISIC2017": "skin", "ISIC2018": "skin"}
SAMPLE = 100  # training images a set, evenly spaced: enough for the ranges, quick enough for every test run


def _drawn(colour: tuple[int, int, int], n: int = 40, side: int = 96) -> list[Features]:
    rng = np.random.default_rng(sum(colour))
    canvases = []
    for _ in range(n):
        canvas = np.empty((side, side, 3), np.int64)
        canvas[:] = np.array(colour) + rng.integers(-12, 12, 3)
        canvas[side // 4 : side // 2] -= rng.integers(10, 40)
        canvases.append((canvas + rng.integers(-4, 4, canvas.shape)).clip(0, 255).astype(np.uint8))
    return [describe(canvas) for canvas in canvases]


@cache
def _features(root: Path, name: str, part: str) -> list[Features]:
    pairs = getattr(open_dataset(root / name).split(), part)
    chosen = pairs[:: max(1, len(pairs) // SAMPLE)]
    return [describe(np.asarray(Image.open(p.image).convert("RGB"))) for p in chosen]


@pytest.mark.parametrize("seen", SETS)
def test_validation_images_pass_and_other_modalities_warn(shared_data: Path, seen: str) -> None:
    statistics = summarise(_features(shared_data, seen, "train"))
    for name, modality in SETS.items():
        features = _features(shared_data, name, "validation")
        alarms = sum(unlike([f], statistics) is not None for f in features) / len(features)
        if name == seen:
            assert alarms <= 0.05
            assert unlike(features, statistics) is None
        elif modality != SETS[seen]:
            assert alarms >= 0.75, f"{name} passes for {seen}"
            assert unlike(features[:20], statistics) is not None


def test_one_line_says_in_which_way() -> None:
    message = unlike(_drawn((120, 120, 120)), summarise(_drawn((200, 90, 80))))
    assert message is not None
    assert message.startswith("these images look unlike those the weights were trained on: ")
    assert "less colourful" in message
    assert "\n" not in message


def test_a_few_odd_images_among_many_are_no_alarm() -> None:
    seen = _drawn((200, 90, 80))
    statistics = summarise(seen)
    assert unlike(seen[:8] + _drawn((60, 60, 60), 3), statistics) is None
    assert unlike(seen[:3] + _drawn((60, 60, 60), 8), statistics) is not None


def test_figures_hardly_depend_on_resolution() -> None:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (64, 64, 3), np.uint8)
    large = small.repeat(7, axis=0).repeat(9, axis=1)
    got, want = describe(large), describe(small)
    assert {k: v for k, v in got.items() if k not in ("width", "height")} == pytest.approx(
        {k: v for k, v in want.items() if k not in ("width", "height")}, abs=1e-3
    )
    assert (got["width"], got["height"]) == (576, 448)


def test_thumbnails_of_familiar_images_are_named_by_size() -> None:
    statistics = summarise(_drawn((200, 90, 80), side=256))
    tiny = [dict(f, width=30.0, height=40.0) for f in _drawn((200, 90, 80), side=256)[:5]]
    assert unlike(tiny, statistics) == (
        "these images are only 30 px, those the weights were trained on at least 256 px"
    )


def test_odd_pictures_and_absent_statistics_do_no_harm() -> None:
    statistics = summarise(_drawn((200, 90, 80)))
    for pixels in (np.zeros((1, 1, 3), np.uint8), np.full((3, 2000, 3), 255, np.uint8)):
        assert np.isfinite(distance(describe(pixels), statistics))
    assert unlike([], statistics) is None
    assert unlike(_drawn((0, 0, 0), 1), {}) is None


def test_shadow_and_highlight_are_numpys_quantiles() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)  # 64 px: nothing is scaled
    grey = (pixels.astype(np.float32) / 255) @ np.array([0.299, 0.587, 0.114], np.float32)
    figures = describe(pixels)
    assert figures["shadow"] == pytest.approx(np.quantile(grey, 0.05), abs=1e-7)
    assert figures["highlight"] == pytest.approx(np.quantile(grey, 0.95), abs=1e-7)


@pytest.mark.parametrize("images", [[20, 30], [20, 30, 200], [20]])
def test_the_median_image_decides(images: list[int]) -> None:
    seen = _drawn((120, 90, 80))
    statistics = summarise(seen)
    strange = describe(np.full((96, 96, 3), 250, np.uint8))
    several = [seen[0]] * images.count(20) + [strange] * (len(images) - images.count(20))
    median = np.median([distance(f, statistics) for f in several])
    assert (unlike(several, statistics) is not None) == (median > statistics["distance"]["high"])
