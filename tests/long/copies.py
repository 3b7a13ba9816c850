"""How well copies are told from other pictures: the rates behind `fingerprint.NEAR`, stated in docs/data.md.

    PYTHONPATH=. python tests/long/copies.py [FOLDER]      a few minutes; FOLDER is ../shared/data by default

Misses: changed copies of about 150 images a set, by kind of change, that lie further than each limit. Alarms:
pairs of images within each limit, over all images of a set; right where grey thumbnails of 64×64 px correlate by
0.92 or more in one of the eight flips and turns (a judge that shares no code with the hash), else false.
"""

from __future__ import annotations

import io
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ascseg_cli.data.decode import read_pixels
from ascseg_cli.data.fingerprint import Fingerprint, distances, fingerprint
from ascseg_cli.data.layouts import open_dataset

SETS = ("BUSI", "PH2", "Kvasir", "ISIC2017", "ISIC2018")
LIMITS = range(9)
SAMPLE, SAME = 150, 0.92


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def scaled(pixels: np.ndarray, factor: float, how: int = cv2.INTER_AREA) -> np.ndarray:
    height, width = (max(1, round(length * factor)) for length in pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=how)


def cropped(pixels: np.ndarray, share: float) -> np.ndarray:
    rows, columns = (max(1, round(length * share)) for length in pixels.shape[:2])
    return np.ascontiguousarray(pixels[rows:-rows, columns:-columns])


def brightened(pixels: np.ndarray, factor: float, shift: float) -> np.ndarray:
    return np.clip(pixels * float(factor) + shift, 0, 255).astype(np.uint8)


def copies(pixels: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    for quality in (30, 60, 95):
        yield f"JPEG, quality {quality}", jpeg(pixels, quality)
    yield "half the size", scaled(pixels, 0.5)
    yield "0.37 of the size, bilinear without antialias", scaled(pixels, 0.37, cv2.INTER_LINEAR)
    yield "twice the size", scaled(pixels, 2, cv2.INTER_CUBIC)
    yield "squeezed to 256×256", cv2.resize(pixels, (256, 256), interpolation=cv2.INTER_AREA)
    yield "turned by 90°", np.ascontiguousarray(np.rot90(pixels))
    yield "flipped, halved, JPEG 60", jpeg(np.ascontiguousarray(scaled(pixels, 0.5)[:, ::-1]), 60)
    yield "brightness +20", brightened(pixels, 1, 20)
    yield "brightness +40", brightened(pixels, 1, 40)
    yield "brightness -40", brightened(pixels, 1, -40)
    yield "contrast 0.7", brightened(pixels, 0.7, 38)
    yield "contrast 1.3", brightened(pixels, 1.3, -38)
    yield "cropped by 1 % on each side", cropped(pixels, 0.01)
    yield "cropped by 2 % on each side", cropped(pixels, 0.02)
    yield "cropped by 4 % on each side", cropped(pixels, 0.04)


def turns(thumbnail: np.ndarray) -> Iterator[np.ndarray]:
    for one in (thumbnail, thumbnail.T):
        yield from (one, one[::-1], one[:, ::-1], one[::-1, ::-1])


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    return max(float(np.corrcoef(turned.ravel(), other.ravel())[0, 1]) for turned in turns(one))


def measure(root: Path, missed: dict[str, list[int]]) -> None:
    pairs = open_dataset(root).pairs
    every = max(1, len(pairs) // SAMPLE)

    def read(path: Path) -> tuple[Fingerprint, np.ndarray, dict[str, int]]:
        pixels = read_pixels(path)
        own = fingerprint(pixels)
        grey = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (64, 64), interpolation=cv2.INTER_AREA)
        chosen = zlib.crc32(path.stem.encode()) % every == 0
        far = {k: int(distances([fingerprint(c)], [own])[0, 0]) for k, c in copies(pixels)} if chosen else {}
        return own, grey, far

    with ThreadPoolExecutor(2) as pool:
        known = list(pool.map(read, [pair.image for pair in pairs]))
    for _, _, far in known:
        for kind, distance in far.items():
            missed[kind].append(distance)
    own = [mark for mark, _, _ in known]
    apart = distances(own, own)
    near = [(i, j) for i, j in zip(*np.nonzero(apart <= max(LIMITS))) if i < j]
    same = {(i, j): likeness(known[i][1], known[j][1]) >= SAME for i, j in near}
    print(
        f"{root.name}: {len(pairs):,} images, {len(pairs) * (len(pairs) - 1) // 2:,} pairs; right/false within",
        end="",
    )
    for limit in LIMITS:
        within = [right for pair, right in same.items() if apart[pair] <= limit]
        print(f"  {limit}: {sum(within)}/{len(within) - sum(within)}", end="")
    print(flush=True)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data")
    missed: dict[str, list[int]] = defaultdict(list)
    for name in SETS:
        measure(folder / name, missed)
    print("\nmissed copies, %, within", *(f"{limit:6}" for limit in LIMITS))
    for kind, found in missed.items():
        shares = (100 * np.mean(np.array(found) > limit) for limit in LIMITS)
        print(f"{kind:46}", *(f"{share:6.1f}" for share in shares), f"  of {len(found)}")


if __name__ == "__main__":
    main()
