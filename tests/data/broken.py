"""Data sets' folders drawn with every mistake that `ascseg check` must find."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image


def picture(seed: int, h: int = 60, w: int = 80) -> np.ndarray:
    """(h, w, 3) uint8, smooth and without symmetry, another for each seed."""
    noise = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(h, w, 3)), (0, 0), 6)
    return np.rint(cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX)).astype(np.uint8)


def blot(h: int = 60, w: int = 80) -> np.ndarray:
    """(h, w) bool: a rectangle off the centre."""
    mask = np.zeros((h, w), bool)
    mask[h // 6 : h // 2, w // 4 : w // 2] = True
    return mask


def save(path: Path, values: np.ndarray | Image.Image, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = values if isinstance(values, Image.Image) else Image.fromarray(values)
    picture.save(path, **options)  # type: ignore[arg-type]


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[274] = orientation
    return tags.tobytes()


def palette(indices: np.ndarray) -> Image.Image:
    made = Image.fromarray(indices.astype(np.uint8)).convert("P")
    made.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0] + [9] * 759)
    made.frombytes(indices.astype(np.uint8).tobytes())
    return made


def halos(mask: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(file, "JPEG", quality=75)
    return file.getvalue()


def draw_broken(root: Path) -> Path:
    """Fifteen images, some of which can be used: the names say what is done to them."""
    images, masks, mask = root / "images", root / "masks", blot()
    grey = mask.astype(np.uint8) * 255
    good = {"fine": grey, "ones": mask.astype(np.uint8), "empty": grey * 0, "palette": palette(mask)}
    bad = {"classes": mask * np.uint8(2), "colours": None, "grey": picture(90)[:, :, 0], "small": grey[:30]}
    for seed, name in enumerate([*good, *bad, "halo", "two", "cut", "turned", "alone"]):
        save(images / f"{name}.png", picture(seed))
    for name, values in {**good, **bad}.items():
        if values is not None:
            save(masks / f"{name}.png", values)
    coloured = np.zeros((60, 80, 3), np.uint8)
    coloured[mask, 0], coloured[40:50, 10:30, 1] = 255, 255
    save(masks / "colours.png", coloured)
    (masks / "halo.jpg").write_bytes(halos(mask))
    save(masks / "two_mask.png", grey)
    save(masks / "two_mask_1.png", np.roll(grey, 12, axis=0))
    save(masks / "cut.png", grey)
    whole = (images / "cut.png").read_bytes()
    (images / "cut.png").write_bytes(whole[: len(whole) // 2])
    (images / "turned.png").unlink()
    save(images / "turned.jpg", picture(11), exif=exif(6), quality=95)
    save(masks / "turned.png", grey)
    save(masks / "stray.png", grey)
    save(images / "copy.jpg", picture(0)[:, ::-1].copy(), quality=80)
    save(masks / "copy.png", grey[:, ::-1].copy())
    return root
