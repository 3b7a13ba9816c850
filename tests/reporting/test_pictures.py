"""Outlines and small pictures: an outline filled again is its mask, and a page's pictures keep to their budget."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import asdict

import numpy as np
import pytest
from drawn_reports import disc
from PIL import Image, ImageDraw

from ascseg_cli.reporting.album import Album
from ascseg_cli.reporting.contours import frame, outline
from ascseg_cli.reporting.pictures import Budget, masks_alone, photograph


def filled(path: str, size: tuple[int, int]) -> np.ndarray:
    """What an SVG path encloses by the even-odd rule, drawn by Pillow at `size` (width, height)."""
    inside = np.zeros(size[::-1], bool)
    for start, steps in re.findall(r"M(\d+ \d+)l([^z]*)z", path):
        points = [np.array(start.split(), int)]
        for step in np.array(re.findall(r"-?\d+", steps), int).reshape(-1, 2):
            points.append(points[-1] + step)
        picture = Image.new("1", size)
        ImageDraw.Draw(picture).polygon([tuple(point) for point in points], fill=1)
        inside ^= np.asarray(picture)
    return inside


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("size", [(40, 70), (300, 500), (2000, 1500)])
def test_an_outline_filled_again_is_its_mask(size) -> None:
    ring = disc(size, (size[0] * 0.5, size[1] * 0.45), min(size) * 0.35)
    ring &= ~disc(size, (size[0] * 0.5, size[1] * 0.5), min(size) * 0.15)
    ring |= disc(size, (0, size[1]), min(size) * 0.2)  # in a corner: it ends at the image's edge
    box = frame(size, 512)
    wanted = np.asarray(Image.fromarray(ring).resize(box, Image.Resampling.NEAREST))
    assert iou(filled(outline(ring, 512), box), wanted) > 0.97
    assert len(outline(ring, 512)) < 1200


def test_the_smallest_and_the_emptiest_mask() -> None:
    mask = np.zeros((400, 400), bool)
    assert outline(mask, 256) == ""
    mask[100, 300] = True
    x, y = map(int, re.match(r"M(\d+) (\d+)", outline(mask, 256)).groups())
    assert abs(x - 300.5 * 0.64) < 1
    assert abs(y - 100.5 * 0.64) < 1


def test_noise_stays_small() -> None:
    assert len(outline(np.random.default_rng(0).random((500, 500)) < 0.3, 512)) < 10_000


@pytest.mark.parametrize("count", [1, 100, 1000, 10_000])
def test_pictures_keep_to_the_budget_even_of_noise(count) -> None:
    """Noise is what a picture format can least make small; at 32 px even it may stay larger than a tiny budget."""
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    budget = Budget.of(count)
    content = base64.b64decode(photograph(noise, budget.side(noise.shape), budget.most).partition(",")[2])
    picture = Image.open(io.BytesIO(content))
    assert len(content) <= max(budget.most, 900)
    assert picture.format == "WEBP"
    assert abs(picture.width / picture.height - 4 / 3) < 0.05


def test_a_thousand_of_the_worst_images_fit_in_ten_megabytes(tmp_path) -> None:
    """Noise below specks, in truth and prediction."""
    random = np.random.default_rng(1)
    with Album(1000) as album:
        for i in range(5):
            Image.fromarray(random.integers(0, 256, (500, 600, 3), np.uint8)).save(tmp_path / "noise.png")
            pred, truth = (random.random((500, 600)) < 0.2 for _ in range(2))
            album.add(f"m{i}", pred, truth, tmp_path / "noise.png")
        sizes = [len(json.dumps(asdict(album.get(f"m{i}")))) for i in range(5)]
    assert 3_000 < np.mean(sizes) < 9_500


def test_masks_without_a_photograph_show_four_greys() -> None:
    pred, truth = disc((60, 80), (30, 30), 20), disc((60, 80), (30, 50), 20)
    content = base64.b64decode(masks_alone(pred, truth, 480).partition(",")[2])
    shown = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
    greys = [set(shown[part].tolist()) for part in (pred & truth, truth & ~pred, pred & ~truth, ~pred & ~truth)]
    assert [len(grey) for grey in greys] == [1, 1, 1, 1]
    assert len(set.union(*greys)) == 4


def test_an_album_keeps_nothing_in_memory_but_names(tmp_path) -> None:
    mask = disc((300, 300), (150, 150), 90)
    with Album(50) as album:
        for i in range(50):
            album.add(f"m{i}", mask, np.roll(mask, i, axis=0), None)
        held = [value for value in vars(album).values() if isinstance(value, (dict, list))]
        assert held == [album._places]
        assert all(isinstance(place, int) for place in album._places.values())
        drawing = album.get("m7")
        assert drawing is not None
        assert drawing.truth == outline(np.roll(mask, 7, axis=0), album.budget.grid)
        assert album.get("other") is None
