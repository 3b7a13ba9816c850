"""How well copies are told from other pictures: the rates behind `fingerprint.NEAR` and `ALIKE`, in docs/data.md.

    PYTHONPATH=. python tests/long/copies.py [FOLDER]      ten minutes; FOLDER is ../shared/data by default

Misses: changed copies of about 60 images a set, by kind of change, that lie further than each limit of the
hash, or are less alike than ALIKE. Alarms: pairs of images within each limit, over all
images of a set; right where a judge that shares no code with both says so: the fine detail (without what a blur
keeps) of thumbnails of 128×128 px correlates by 0.4 or more somewhere in some crop, flip or turn. Last, ISIC
2018 against ISIC 2017, whose shared images are known by their names.
"""

from __future__ import annotations

import io
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ascseg_cli.data.decode import read_pixels
from ascseg_cli.data.fingerprint import ALIKE, NEAR, Fingerprint, Index, distances, fingerprint
from ascseg_cli.data.layouts import open_dataset
from ascseg_cli.data.overlap import overlaps
from ascseg_cli.data.sketch import coefficients

SETS = ("BUSI", "PH2", "Kvasir", "ISIC2017", "ISIC2018")
LIMITS = range(2, 9)
SAMPLE, SAME, SIDE = 60, 0.4, 128
CROPS = (1.0, 0.9, 0.82, 0.75, 0.667)

Print = tuple[Fingerprint, np.ndarray]  # of an image, with its thumbnail


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


def narrowed(pixels: np.ndarray, share: float) -> np.ndarray:
    return pixels[:, round(pixels.shape[1] * share) : -round(pixels.shape[1] * share)]


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
    yield "cropped by 10 % on each side", cropped(pixels, 0.1)
    yield "cropped by 16 % on each side", cropped(pixels, 0.16)
    yield "cropped to three quarters of the columns", np.ascontiguousarray(narrowed(pixels, 0.125))
    yield "cropped by 10 % on one side", np.ascontiguousarray(pixels[len(pixels) // 10 :])
    yield "cropped by 7 %, turned, flipped, JPEG 60", jpeg(np.rot90(cropped(pixels, 0.07)[:, ::-1]), 60)


def turns(thumbnail: np.ndarray) -> Iterator[np.ndarray]:
    for one in (thumbnail, thumbnail.T):
        yield from (one, one[::-1], one[:, ::-1], one[::-1, ::-1])


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)


def detail(thumbnail: np.ndarray) -> np.ndarray:
    fine = thumbnail - cv2.GaussianBlur(thumbnail, (0, 0), 4)
    return np.clip(fine, *np.percentile(fine, (2, 98))).astype(np.float32)


def agrees(part: np.ndarray, whole: np.ndarray) -> bool:
    """Whether the fine detail of one thumbnail meets that of the other, at the best place of some crop."""
    there = detail(whole)
    for rows, columns in product(CROPS, CROPS):
        for turned in turns(part):
            size = round(SIDE * columns), round(SIDE * rows)
            here = detail(cv2.resize(np.ascontiguousarray(turned), size, interpolation=cv2.INTER_AREA))
            if cv2.matchTemplate(there, here, cv2.TM_CCOEFF_NORMED).max() >= SAME:
                return True
    return False


def right(one: Print, other: Print) -> bool:
    return agrees(one[1], other[1]) or agrees(other[1], one[1])


def likenesses(ones: list[Fingerprint], others: list[Fingerprint], least: float) -> dict[tuple[int, int], float]:
    """Of every pair that reaches `least`, either way round."""
    here, there = (coefficients([one.sketch for one in prints]) for prints in (ones, others))
    found: dict[tuple[int, int], float] = defaultdict(float)
    for parts, wholes, swapped in ((here, there, False), (there, here, True)):
        pairs = overlaps(parts, wholes, least)
        for part, whole, likeness in zip(pairs.part.tolist(), pairs.whole.tolist(), pairs.likeness.tolist()):
            pair = (whole, part) if swapped else (part, whole)
            found[pair] = max(found[pair], likeness)
    return found


def changed(images: list[Path], missed: dict[str, list[tuple[int, bool]]]) -> None:
    """The distance of each changed copy and its image, and whether they are alike."""
    for pixels in map(read_pixels, images):
        own = fingerprint(pixels)
        for kind, copy in copies(pixels):
            other = fingerprint(copy)
            alike = bool(likenesses([other], [own], ALIKE))
            missed[kind].append((int(distances([other], [own])[0, 0]), alike))


def row(words: str, values: dict[str, list[bool]]) -> None:
    """Right and false pairs by limit."""
    counts = (f"{limit}: {sum(found)}+{len(found) - sum(found)}" for limit, found in values.items())
    print(f"  {words:10}", "  ".join(counts), flush=True)


def alarms(name: str, prints: list[Print]) -> None:
    """Pairs of one set."""
    own = [mark for mark, _ in prints]
    apart = distances(own, own)
    judged: dict[tuple[int, int], bool] = {}

    def judge(pairs: list[tuple[int, int]]) -> list[bool]:
        for i, j in pairs:
            judged.setdefault((i, j), right(prints[i], prints[j]))
        return [judged[pair] for pair in pairs]

    print(f"{name}: {len(own):,} images, {len(own) * (len(own) - 1) // 2:,} pairs; right + false", flush=True)
    by_hash = [(int(i), int(j)) for i, j in zip(*np.nonzero(apart <= NEAR)) if i < j]
    row("bits", {str(k): judge([pair for pair in by_hash if apart[pair] <= k]) for k in range(2, NEAR + 1)})
    by_sketch = {k: [pair for pair in likenesses(own, own, k) if pair[0] < pair[1]] for k in (0.95, ALIKE)}
    row("likeness", {str(k): judge(pairs) for k, pairs in by_sketch.items()})
    row("either", {"": judge(sorted({*by_hash, *by_sketch[ALIKE]}))})


def across(prints: dict[str, list[Print]], names: dict[str, list[str]]) -> None:
    """ISIC 2018 against ISIC 2017: shared images found, and other pairs."""
    queries, stored = names["ISIC2018"], names["ISIC2017"]
    shared = set(queries) & set(stored)
    found = Index([mark for mark, _ in prints["ISIC2017"]]).matches([mark for mark, _ in prints["ISIC2018"]])
    by_name = {queries[match.query] for match in found if queries[match.query] == stored[match.stored]}
    by_bits = {
        queries[m.query] for m in found if queries[m.query] == stored[m.stored] and (m.exact or m.distance <= NEAR)
    }
    print(
        f"ISIC 2018 in ISIC 2017: {len(shared):,} shared by name, {len(by_name):,} found, {len(by_bits):,} by bits"
    )
    others = [match for match in found if queries[match.query] != stored[match.stored]]
    judged = [right(prints["ISIC2018"][m.query], prints["ISIC2017"][m.stored]) for m in others]
    pairs = len(queries) * len(stored) - len(shared)
    print(f"  of {pairs:,} pairs of other names: {sum(judged)}+{len(judged) - sum(judged)}")
    alone = {m.query for m in found if queries[m.query] not in shared}
    print(f"  of {len(queries) - len(shared):,} images whose name isn't in ISIC 2017: {len(alone)} found")


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data")
    cv2.setNumThreads(1)
    missed: dict[str, list[tuple[int, bool]]] = defaultdict(list)
    prints, names = {}, {}
    for name in SETS:
        paths = [pair.image for pair in open_dataset(folder / name).pairs]
        with ThreadPoolExecutor(2) as pool:
            prints[name] = list(pool.map(_print, paths))
        names[name] = [path.stem for path in paths]
        alarms(name, prints[name])
    across(prints, names)
    for name in SETS:
        paths = [pair.image for pair in open_dataset(folder / name).pairs]
        every = max(1, len(paths) // SAMPLE)
        changed([path for path in paths if zlib.crc32(path.stem.encode()) % every == 0], missed)
    print("\nmissed copies, %: bits", *(f"{k:5}" for k in LIMITS), "likeness", "either")
    for kind, found in missed.items():
        bits, alike = (np.array(one) for one in zip(*found))
        shares = [*(bits > k for k in LIMITS), ~alike, (bits > NEAR) & ~alike]
        print(f"{kind:46}", *(f"{100 * one.mean():6.1f}" for one in shares), " of", len(found))


def _print(path: Path) -> Print:
    pixels = read_pixels(path)
    return fingerprint(pixels), thumbnail(pixels)


if __name__ == "__main__":
    main()
