"""Axes with round numbers, a curve that lies where its figures say, and a temperature that undoes a known one."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from ascseg_cli.training import curves, seeds
from ascseg_cli.training.calibration import fit_temperature
from ascseg_cli.training.log import Row


def row(step: int, iou: float, dice: float) -> Row:
    return Row(step, 0, 0, 1.0 / step, iou, dice, 0.5, 1e-3, 1)


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0, 3000, [0, 500, 1000, 1500]), (0.71, 0.74, [0.71, 0.72, 0.73, 0.74])],
)
def test_ticks_are_round_and_enclose(low: float, high: float, want: list[float]) -> None:
    got = curves.ticks(low, high)
    assert got[: len(want)] == want
    assert got[0] <= low
    assert got[-1] >= high
    assert len(got) <= 8


def test_a_single_row_and_equal_figures_can_be_drawn() -> None:
    for rows in ([row(3, 0.5, 0.5)], [row(3, 0.0, 0.0), row(6, 0.0, 0.0)]):
        assert Image.open(io.BytesIO(curves.png(rows))).size == (1120, 400)


def test_a_rising_curve_rises_in_the_picture() -> None:
    picture = Image.open(io.BytesIO(curves.png([row(step, step / 10, 0.0) for step in range(1, 11)])))
    pixels = np.asarray(picture)[60:340, 640:].astype(int)
    blue = np.abs(pixels - (0, 114, 178)).sum(2) < 30
    heights = [np.flatnonzero(column).mean() for column in blue.T if column.any()]
    assert heights[0] - heights[-1] > 180
    assert np.corrcoef(np.arange(len(heights)), heights)[0, 1] < -0.99


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.5])
def test_a_known_temperature_is_found(temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (200, 500))
    truth = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    sharpened = 1 / (1 + np.exp(-logits * temperature))
    got = fit_temperature([sharpened.astype(np.float32)], [truth])
    assert got["temperature"] == pytest.approx(temperature, rel=0.03)
    assert got["cross_entropy_after"] <= got["cross_entropy_before"]


def test_seeds_spread_is_the_sample_standard_deviation() -> None:
    last = {3: row(1, 0.7, 0.8), 4: row(1, 0.72, 0.8), 5: row(1, 0.74, 0.8)}
    assert seeds.summary(last)[0] == "validation pooled IoU 0.7200 ± 0.0200 over 3 seeds (0.7000, 0.7200, 0.7400)"
    lines = seeds.to_csv(last).splitlines()
    assert lines[0] == "seed,validation_iou,validation_dice"
    assert lines[1] == "3,0.700000,0.800000"
    assert lines[-2:] == ["mean,0.720000,0.800000", "standard deviation,0.020000,0.000000"]
