"""Draws every image under examples/, so that the project ships no patient's picture.

    python examples/draw.py            writes examples/{polyps,ultrasound,skin,practice}/
    python examples/draw.py FOLDER     writes them under FOLDER

Each picture is a small simulation rather than a texture: colonoscopy as a lit height field, ultrasound as
scatterers seen through a blurring pulse and log compression, skin as pigment that absorbs light. The random
stream is NumPy's frozen `RandomState`, so that one seed gives one picture on every release.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

Drawing = Callable[[], np.ndarray]


# ---------------------------------------------------------------- shared by all three


def smooth_noise(random: np.random.RandomState, shape: tuple[int, int], cells: float) -> np.ndarray:
    """Smooth noise of mean 0 and standard deviation 1 with about `cells` bumps along the longer side."""
    sigma = max(shape) / cells / 2.5
    coarse = max(1, int(sigma / 3))  # wide bumps are blurred on a coarser grid
    margin = int(3 * sigma / coarse) + 2
    white = random.standard_normal([size // coarse + 1 + 2 * margin for size in shape])
    field = cv2.GaussianBlur(white, (0, 0), sigma / coarse)[margin:-margin, margin:-margin]
    if coarse > 1:
        field = cv2.resize(field, None, fx=coarse, fy=coarse, interpolation=cv2.INTER_CUBIC)
    field = field[: shape[0], : shape[1]]
    return (field - field.mean()) / field.std()


def layered_noise(
    random: np.random.RandomState, shape: tuple[int, int], cells: float, layers: int = 4
) -> np.ndarray:
    """Smooth noise of several scales, each finer one weaker by half."""
    return sum(smooth_noise(random, shape, cells * 2**i) * 0.5**i for i in range(layers))


def grid(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns in units of half the shorter side, (0, 0) at the centre."""
    half = min(shape) / 2
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    return (y + 0.5 - shape[0] / 2) / half, (x + 0.5 - shape[1] / 2) / half


def rise(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """A smooth step: 0 up to `low`, 1 from `high`."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def blob(
    random: np.random.RandomState,
    shape: tuple[int, int],
    centre: tuple[float, float],
    radii: tuple[float, float],
    turn: float,
    roughness: float,
) -> np.ndarray:
    """Distance from a centre in units of an irregular outline: below 1 inside, above 1 outside."""
    y, x = grid(shape)
    y, x = y - centre[0], x - centre[1]
    along, across = x * np.cos(turn) + y * np.sin(turn), -x * np.sin(turn) + y * np.cos(turn)
    angle = np.arctan2(across / radii[0], along / radii[1])
    outline = np.ones(shape)
    for k in range(2, 9):
        outline += roughness / k * random.standard_normal() * np.cos(k * angle + random.uniform(0, 2 * np.pi))
    return np.hypot(along / radii[1], across / radii[0]) / outline


def to_bytes(colours: np.ndarray) -> np.ndarray:
    """Values 0..1 -> uint8."""
    return np.clip(np.rint(colours * 255), 0, 255).astype(np.uint8)


# ---------------------------------------------------------------- colonoscopy


def polyp(
    seed: int, lumen: tuple[float, float], centre: tuple[float, float], radii: tuple[float, float], turn: float
) -> np.ndarray:
    """A colonoscopy frame, (432, 512, 3): folds around a dark lumen, vessels, wet highlights, one polyp."""
    random, shape = np.random.RandomState(seed), (432, 512)
    inside = blob(random, shape, centre, radii, turn, 0.05)
    body = rise(-inside, -1.03, -0.97)
    wall_light, wall_colour = _mucosa(random, shape, lumen)
    shadow = cv2.GaussianBlur(np.roll(body, (6, 3), axis=(0, 1)), (0, 0), 9)
    wall_light *= 1 - 0.6 * shadow * (1 - body)
    dome = np.clip(1 - np.minimum(inside, 1) ** 2.2, 0, 1) ** 0.8 * min(radii)
    texture = layered_noise(random, shape, 36, 3)
    body_light = 0.3 + 0.78 * _headlight(dome + 0.0016 * texture)
    body_colour = np.array([0.90, 0.50, 0.42]) * (1 + 0.05 * texture[..., None] * [0.5, 1.0, 1.0])
    body_colour *= 1 - 0.18 * _vessels(random, shape, 9)[..., None] * [0.3, 1.0, 0.9]
    light = wall_light * (1 - body) + body_light * body
    colour = wall_colour * (1 - body[..., None]) + body_colour * body[..., None]
    shine = _highlights(random, shape, light, body, dome)
    picture = colour * light[..., None] * (1 - shine[..., None]) + shine[..., None]
    return to_bytes(_through_lens(random, picture))


def _mucosa(
    random: np.random.RandomState, shape: tuple[int, int], lumen: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    y, x = grid(shape)
    bend = 0.10 * smooth_noise(random, shape, 3), 0.10 * smooth_noise(random, shape, 3)
    y, x = y - lumen[0] + bend[0], x - lumen[1] + bend[1]
    radius, angle = np.hypot(y * 1.15, x) + 0.03, np.arctan2(y, x)
    depth = (
        1.3 * np.log(1 / radius)
        + 0.10 * np.cos(3 * angle + random.uniform(0, 6))
        + 0.05 * layered_noise(random, shape, 4)
    )
    step = np.mod(depth, 1)
    fold = 0.72 + 0.42 * step - 0.55 * rise(step, 0.93, 1.0)  # each fold hides the foot of the next
    strength = 0.65 + 0.35 * np.cos(angle * 2 + random.uniform(0, 6))
    light = (1 + strength * (fold - 1)) * (0.10 + 0.90 * rise(radius, 0.03, 0.95))
    vessels = np.maximum(_vessels(random, shape, 5), 0.7 * _vessels(random, shape, 10))
    mottle = layered_noise(random, shape, 8)
    colour = np.array([0.84, 0.45, 0.36]) * (1 + 0.04 * mottle[..., None] * [0.5, 1.0, 1.1])
    return light, colour * (1 - 0.22 * vessels[..., None] * [0.45, 1.0, 0.9])


def _vessels(random: np.random.RandomState, shape: tuple[int, int], cells: float) -> np.ndarray:
    """Thin winding lines, 0..1, that come and go: the zero crossings of noise."""
    crossing = layered_noise(random, shape, cells, 4)
    slope = np.hypot(*np.gradient(crossing)) + 1e-6
    width = 0.8 + 0.5 * smooth_noise(random, shape, 6)
    return np.exp(-((crossing / slope / np.clip(width, 0.3, 2)) ** 2)) * rise(
        smooth_noise(random, shape, 4), -0.8, 0.6
    )


def _headlight(height: np.ndarray) -> np.ndarray:
    """Brightness of a surface lit from the camera, a little from above."""
    slope_y, slope_x = np.gradient(cv2.GaussianBlur(height, (0, 0), 2) * height.shape[0] / 2)
    return np.clip((1 - 0.25 * slope_y) / np.sqrt(1 + slope_x**2 + slope_y**2), 0.12, 1.25)


def _highlights(
    random: np.random.RandomState, shape: tuple[int, int], light: np.ndarray, body: np.ndarray, dome: np.ndarray
) -> np.ndarray:
    wet = layered_noise(random, shape, 44, 2) + 1.1 * smooth_noise(random, shape, 7)
    facing = rise(light, 0.55, 0.95)
    spots = rise(wet, 3.0, 3.3) * facing * (1 - body)
    crown = rise(dome / dome.max(), 0.55, 0.85) * rise(layered_noise(random, shape, 34, 2), 1.75, 2.1) * body
    return cv2.GaussianBlur(np.clip(spots + crown, 0, 1) * 0.95, (0, 0), 0.8)


def _through_lens(random: np.random.RandomState, picture: np.ndarray) -> np.ndarray:
    """The octagonal frame, the fall of light towards its edge, and the sensor's noise."""
    y, x = grid(picture.shape[:2])
    octagon = np.maximum(np.maximum(np.abs(x) / 1.12, np.abs(y) / 0.97), (np.abs(x) + np.abs(y)) / 1.55)
    frame = rise(-octagon, -1.0, -0.985) * (1 - 0.35 * rise(np.hypot(x, y), 0.55, 1.4))
    noise = cv2.GaussianBlur(random.standard_normal(picture.shape), (0, 0), 0.7) * 0.012
    return (picture + noise) * frame[..., None] + 0.01


# ---------------------------------------------------------------- breast ultrasound


def ultrasound(
    seed: int,
    centre: tuple[float, float],
    radii: tuple[float, float],
    turn: float,
    roughness: float,
    behind: float,
) -> np.ndarray:
    """A breast ultrasound frame, (340, 420): skin, fat, gland, muscle, one dark lesion.

    behind  brightness of the tissue under the lesion, in decibels: above 0 a fluid, below 0 a solid that shadows
    """
    random, shape = np.random.RandomState(seed), (340, 420)
    inside = blob(random, shape, centre, radii, turn, roughness)
    decibels = _tissue(random, shape)
    lesion = rise(-inside, -1.06, -0.94)
    hollow = -29 + 2.5 * layered_noise(random, shape, 7)
    decibels = decibels * (1 - lesion) + hollow * lesion
    decibels += 5 * np.exp(-(((inside - 1.08) / 0.07) ** 2)) * (1 - lesion)  # its bright rim
    decibels += behind * _under(lesion)
    envelope = np.mean([_echo(random, decibels) for _ in range(5)], axis=0)  # five looks, compounded
    return to_bytes((20 * np.log10(envelope / 0.35 + 3e-3) + 36) / 46)


def _echo(random: np.random.RandomState, decibels: np.ndarray) -> np.ndarray:
    """Amplitude of what scatterers of this mean brightness send back through the pulse's blur: speckle."""
    scatterers = (10 ** (decibels / 20) * random.standard_normal(decibels.shape) for _ in range(2))
    return np.hypot(*(cv2.GaussianBlur(part, (0, 0), sigmaX=1.9, sigmaY=0.9) for part in scatterers))


def _tissue(random: np.random.RandomState, shape: tuple[int, int]) -> np.ndarray:
    """Mean brightness of the layers from the skin down, in decibels."""
    y, _ = grid(shape)
    depth = (y - y.min()) / (y.max() - y.min()) + 0.025 * smooth_noise(random, shape, 3) * rise(y, -0.9, -0.5)
    strands = cv2.GaussianBlur(random.standard_normal(shape), (0, 0), sigmaX=16, sigmaY=1.7)
    strands = cv2.remap(
        (strands / strands.std()).astype(np.float32),
        np.float32(np.broadcast_to(np.arange(shape[1]), shape)),
        np.float32(np.arange(shape[0])[:, None] + 9 * smooth_noise(random, shape, 4)),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )
    fat = -18 + 5 * strands + 2 * smooth_noise(random, shape, 6)
    gland = -10 + 3 * strands + 3 * layered_noise(random, shape, 6)
    muscle = -21 + 5 * strands
    decibels = 1 - 9 * rise(depth, 0.03, 0.07)
    for layer, top in ((fat, 0.06), (gland, 0.22), (muscle, 0.72)):
        share = rise(depth, top - 0.02, top + 0.03)
        decibels = decibels * (1 - share) + layer * share
    fascia = np.exp(-(((depth - 0.72) / 0.008) ** 2)) + 0.7 * np.exp(-(((depth - 0.79) / 0.006) ** 2))
    return decibels + 9 * fascia - 10 * rise(depth, 0.45, 1.15)


def _under(lesion: np.ndarray) -> np.ndarray:
    """1 below the lesion, fading with depth and to the sides."""
    shade = np.maximum.accumulate(lesion, axis=0) * (1 - lesion)
    share = np.minimum(lesion.sum(axis=0) / max(lesion.sum(axis=0).max(), 1), 1)
    return cv2.GaussianBlur(shade * np.sqrt(share), (0, 0), sigmaX=6, sigmaY=3)


# ---------------------------------------------------------------- dermoscopy


def skin(
    seed: int,
    centre: tuple[float, float],
    radii: tuple[float, float],
    turn: float,
    hairs: int,
    tone: tuple[float, ...],
) -> np.ndarray:
    """A dermoscopic picture, (400, 400, 3): skin, one pigmented lesion with a network, a few hairs."""
    random, shape = np.random.RandomState(seed), (400, 400)
    inside = blob(random, shape, centre, radii, turn, 0.22) + 0.06 * layered_noise(random, shape, 9)
    pigment = rise(-inside, -1.12, -0.72) * (0.85 + 0.22 * layered_noise(random, shape, 5))
    network = 1 - np.exp(-((np.abs(smooth_noise(random, shape, 60)) / 0.45) ** 2))
    pigment *= 1 - 0.25 * network * rise(inside, 0.25, 0.7)
    globules = rise(smooth_noise(random, shape, 34), 1.5, 2.0) * rise(-inside, -0.85, -0.4)
    pigment = np.clip(pigment, 0, None) + 0.5 * globules
    furrows = layered_noise(random, shape, 24, 3)
    colour = np.array(tone) * (1 + 0.012 * furrows[..., None])
    colour = colour * np.exp(-pigment[..., None] * np.array([0.62, 1.15, 1.45]))  # melanin absorbs blue most
    for _ in range(hairs):
        colour = _with_hair(random, colour)
    y, x = grid(shape)
    light = 1 - 0.30 * rise(np.hypot(y, x), 0.6, 1.5)
    noise = cv2.GaussianBlur(random.standard_normal(colour.shape), (0, 0), 0.8) * 0.012
    return to_bytes(colour * light[..., None] + noise)


def _with_hair(random: np.random.RandomState, colour: np.ndarray) -> np.ndarray:
    """The picture under one more hair: a thin curve from edge to edge."""
    size = colour.shape[0]
    start, end = random.uniform(-0.1, 1.1, 2) * size, random.uniform(-0.1, 1.1, 2) * size
    middle = (start + end) / 2 + random.standard_normal(2) * 0.15 * size
    t = np.linspace(0, 1, 60)[:, None]
    curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
    drawn = np.zeros(colour.shape[:2], np.uint8)
    cv2.polylines(drawn, [np.rint(curve * 16).astype(np.int32)], False, 255, 1, cv2.LINE_AA, shift=4)
    share = cv2.GaussianBlur(drawn.astype(np.float64) / 255, (0, 0), 0.6)[..., None]
    return colour * (1 - 0.8 * share) + np.array([0.16, 0.12, 0.10]) * 0.8 * share


# ---------------------------------------------------------------- a small data set, with masks


def practice(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A patch of skin with one dark spot, (96, 128, 3), and the spot's mask, (96, 128)."""
    random, shape = np.random.RandomState(seed), (96, 128)
    centre, radii = random.uniform(-0.4, 0.4, 2), random.uniform(0.25, 0.55, 2)
    inside = blob(random, shape, tuple(centre), tuple(radii), random.uniform(0, np.pi), 0.12)
    tone = np.array([0.86, 0.68, 0.60]) + random.uniform(-0.06, 0.06, 3)
    colour = tone * (1 + 0.05 * layered_noise(random, shape, 6, 3)[..., None])
    dark = rise(-inside, -1.05, -0.90) * random.uniform(0.7, 1.0)
    colour = colour * np.exp(-dark[..., None] * np.array([0.6, 1.1, 1.4]))
    return to_bytes(colour), np.where(inside < 1, 255, 0).astype(np.uint8)


# ---------------------------------------------------------------- the files

PICTURES: dict[str, Drawing] = {
    "polyps/polyp_1.jpg": lambda: polyp(1, (-0.25, -0.35), (0.18, 0.38), (0.26, 0.34), 0.3),
    "polyps/polyp_2.jpg": lambda: polyp(12, (0.10, 0.45), (0.05, -0.42), (0.36, 0.30), 0.0),
    "polyps/polyp_3.jpg": lambda: polyp(23, (-0.45, 0.10), (0.42, -0.12), (0.22, 0.24), 0.8),
    "ultrasound/oval_1.png": lambda: ultrasound(4, (-0.12, -0.18), (0.22, 0.40), 0.06, 0.05, 8.0),
    "ultrasound/irregular_1.png": lambda: ultrasound(6, (-0.10, 0.15), (0.34, 0.36), -0.4, 0.2, -16.0),
    "skin/lesion_1.jpg": lambda: skin(7, (0.02, -0.04), (0.42, 0.52), 0.5, 4, (0.88, 0.68, 0.62)),
    "skin/lesion_2.jpg": lambda: skin(8, (-0.05, 0.10), (0.30, 0.34), 1.1, 9, (0.86, 0.72, 0.60)),
    **{f"practice/images/spot_{i}.jpg": lambda i=i: practice(i)[0] for i in range(1, 13)},
    **{f"practice/masks/spot_{i}.png": lambda i=i: practice(i)[1] for i in range(1, 13)},
}


def write(folder: Path) -> None:
    """Draw every picture under `folder`."""
    for name, draw in PICTURES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {"quality": 88, "subsampling": 2} if path.suffix == ".jpg" else {"optimize": True}
        Image.fromarray(draw()).save(path, **options)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent)
