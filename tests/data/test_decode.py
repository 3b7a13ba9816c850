"""Every kind of picture, written by Pillow, OpenCV or plain bytes, against the array that was written."""

from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pictures import by_opencv, by_pillow, chunk, drawn, eight_bit, exif, png, rgb, samples, tiff, turned
from PIL import Image

from ascseg_cli.data.decode import read_mask, read_pixels

EIGHT, DEEP = drawn(), drawn(dtype=np.uint16)
GREY, DEEP_GREY = EIGHT[:, :, 1], DEEP[:, :, 1]
INDEXED = Image.fromarray(EIGHT).quantize(16)


def assert_reads(data: bytes, want: np.ndarray) -> None:
    got = read_pixels(data)
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous
    assert np.array_equal(got, want if want.ndim == 3 else rgb(want))


def by_pillows_decoder(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


KINDS = [
    (format, mode)
    for format in ("PNG", "BMP", "TIFF")
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA")
    if (format, mode) != ("BMP", "LA")  # which BMP doesn't know
]


@pytest.mark.parametrize(("format", "mode"), KINDS)
def test_eight_bit_kinds(format: str, mode: str) -> None:
    picture = Image.fromarray(EIGHT).convert(mode)
    assert_reads(by_pillow(picture, format), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "CMYK"])
def test_compressed_tiff(mode: str, compression: str) -> None:
    picture = Image.fromarray(EIGHT).convert(mode)
    assert_reads(by_pillow(picture, "TIFF", compression=compression), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("order", ["<", ">"])
def test_plain_tiff(order: str) -> None:
    assert_reads(tiff(EIGHT, order), EIGHT)
    assert_reads(tiff(EIGHT, order, planar=2), EIGHT)
    assert_reads(tiff(255 - GREY, order, photometric=0), GREY)
    assert_reads(tiff(np.dstack([EIGHT, GREY]), order, extra=2), EIGHT)
    indices = np.asarray(INDEXED)
    palette = np.zeros((256, 3), np.uint8)
    colours = np.array(INDEXED.getpalette("RGB"), np.uint8).reshape(-1, 3)
    palette[: len(colours)] = colours
    assert_reads(tiff(indices, order, photometric=3, palette=palette), palette[indices])


def test_one_and_two_and_four_bit_png() -> None:
    for bits in (1, 2, 4):
        picture = Image.fromarray(EIGHT).quantize(2**bits)
        assert_reads(by_pillow(picture, "PNG", bits=bits), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_tiff_is_rounded_by_257(order: str) -> None:
    alpha = np.dstack([DEEP, DEEP_GREY[::-1]])
    assert_reads(tiff(DEEP, order), eight_bit(DEEP))
    assert_reads(tiff(alpha, order, extra=2), eight_bit(DEEP))
    assert_reads(tiff(DEEP_GREY, order), eight_bit(DEEP_GREY))
    assert_reads(tiff(65535 - DEEP_GREY, order, photometric=0), eight_bit(DEEP_GREY))
    assert_reads(by_opencv(DEEP, ".tiff"), eight_bit(DEEP))  # LZW with a predictor


def test_sixteen_bit_png_is_rounded_by_257() -> None:
    alpha = np.dstack([DEEP, DEEP_GREY[::-1]])
    for data in (png(DEEP, 2, 16), by_opencv(DEEP, ".png"), png(alpha, 6, 16), by_opencv(alpha, ".png")):
        assert_reads(data, eight_bit(DEEP))
    grey_alpha = np.dstack([DEEP_GREY, DEEP_GREY[::-1]])
    for data in (png(DEEP_GREY, 0, 16), png(grey_alpha, 4, 16), by_pillow(DEEP_GREY, "PNG")):
        assert_reads(data, eight_bit(DEEP_GREY))


def test_every_value_of_sixteen_bit() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    exact = np.array([int(v / 257 + 0.5) for v in range(65536)], np.uint8).reshape(256, 256)
    assert_reads(png(values, 0, 16), exact)
    assert (exact != values >> 8).any()  # what Pillow gives for 16 bit colour


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"keep_rgb": True}])
def test_jpeg_equals_pillow(options: dict[str, object]) -> None:
    for values in (EIGHT, GREY):
        data = by_pillow(values, "JPEG", quality=88, **({} if values.ndim == 2 else options))
        assert_reads(data, by_pillows_decoder(data))


def test_cmyk_jpeg_is_inverted_with_and_without_adobes_mark() -> None:
    data = by_pillow(Image.fromarray(EIGHT).convert("CMYK"), "JPEG", quality=98)
    start = data.index(b"\xff\xee")
    (length,) = struct.unpack_from(">H", data, start + 2)
    unmarked = data[:start] + data[start + 2 + length :]
    for variant in (data, unmarked):
        assert_reads(variant, by_pillows_decoder(variant))
        assert np.abs(read_pixels(variant).astype(int) - EIGHT).mean() < 4  # not a negative


def test_webp() -> None:
    alpha = np.dstack([EIGHT, GREY])
    assert_reads(by_pillow(EIGHT, "WEBP", lossless=True), EIGHT)
    assert_reads(by_pillow(alpha, "WEBP", lossless=True, exact=True), EIGHT)
    lossy = by_pillow(EIGHT, "WEBP", quality=95)
    assert_reads(lossy, by_pillows_decoder(lossy))


def test_alpha_is_dropped_and_not_composited() -> None:
    alpha = np.dstack([EIGHT, np.zeros_like(GREY)])
    assert_reads(by_pillow(alpha, "PNG"), EIGHT)
    transparent = by_pillow(INDEXED, "PNG", transparency=bytes(16))
    assert_reads(transparent, np.asarray(INDEXED.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int) -> None:
    tags = exif(orientation)
    want = turned(EIGHT, orientation)
    assert_reads(by_pillow(EIGHT, "PNG", exif=tags), want)
    assert_reads(by_pillow(EIGHT, "TIFF", exif=tags), want)
    assert_reads(by_pillow(EIGHT, "TIFF", exif=tags, compression="tiff_lzw"), want)
    assert_reads(by_pillow(EIGHT, "WEBP", exif=tags, lossless=True), want)
    jpeg = by_pillow(EIGHT, "JPEG", exif=tags)
    assert_reads(jpeg, turned(by_pillows_decoder(jpeg), orientation))
    for order in "<>":
        assert_reads(tiff(DEEP, order, orientation=orientation), eight_bit(turned(DEEP, orientation)))
        assert_reads(tiff(GREY, order, orientation=orientation), turned(GREY, orientation))
    header = by_pillow(EIGHT, "PNG", exif=tags)
    tag = header[header.index(b"eXIf") - 4 :]
    tag = tag[: 12 + struct.unpack_from(">I", tag)[0]]
    assert_reads(png(DEEP, 2, 16, tag), eight_bit(turned(DEEP, orientation)))


def test_turned_agrees_with_pillow() -> None:
    """The tests' own table of orientations is right."""
    for orientation in range(1, 9):
        operation = {
            2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE",
            6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90",
        }.get(orientation)  # fmt: skip
        picture = Image.fromarray(EIGHT)
        if operation:
            picture = picture.transpose(Image.Transpose[operation])
        assert np.array_equal(np.asarray(picture), turned(EIGHT, orientation))


def test_damaged_exif_counts_as_upright() -> None:
    for tags in (b"", b"MM", b"XX\0*", b"MM\0*\xff\xff\xff\xff", exif(6).tobytes()[6:-9], exif(99).tobytes()[6:]):
        assert_reads(png(EIGHT, 2, 8, chunk(b"eXIf", tags)), EIGHT)


def test_metadata_does_no_harm() -> None:
    text = chunk(b"tEXt", b"k\0" + b"x" * 3_000_000)
    bomb = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80_000_000)))
    assert_reads(png(EIGHT, 2, 8, text + bomb), EIGHT)
    assert_reads(png(DEEP, 2, 16, text + bomb), eight_bit(DEEP))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
def test_the_smallest_pictures(shape: tuple[int, int]) -> None:
    small = drawn(*shape)
    for format in ("PNG", "BMP", "TIFF"):
        assert_reads(by_pillow(small, format), small)
    assert_reads(by_pillow(small, "WEBP", lossless=True), small)
    jpeg = by_pillow(small, "JPEG")
    assert_reads(jpeg, by_pillows_decoder(jpeg))


def test_path_and_bytes_give_the_same(tmp_path: Path) -> None:
    for name in ("a b.png", "대장 내시경.PNG", "🙂.png"):
        path = tmp_path / name
        path.write_bytes(by_pillow(EIGHT, "PNG"))
        assert np.array_equal(read_pixels(path), EIGHT)


def test_threads_give_the_same() -> None:
    files = list(samples().values()) * 6
    alone = [read_pixels(data) for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(read_pixels, files))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_real_jpegs_are_read_as_pillow_reads_them(shared_data: Path) -> None:
    paths = sorted(shared_data.glob("*/*/*.jpg")) + sorted(shared_data.glob("*/*/*/*.jpg"))
    paths = paths[:: len(paths) // 30 + 1]
    assert len(paths) >= 20
    for path in paths:
        assert np.array_equal(read_pixels(path), np.asarray(Image.open(path).convert("RGB")))


# ---- masks

MASK = drawn()[:, :, 0] > 110


@pytest.mark.parametrize("largest", [1, 255])
@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_masks_of_zero_and_one_and_of_zero_and_255(format: str, largest: int) -> None:
    values = MASK.astype(np.uint8) * largest
    assert np.array_equal(read_mask(by_pillow(values, format)), MASK)
    assert np.array_equal(read_mask(by_pillow(rgb(values), format)), MASK)


def test_masks_of_one_bit() -> None:
    for format in ("PNG", "BMP", "TIFF"):
        assert np.array_equal(read_mask(by_pillow(Image.fromarray(MASK), format)), MASK)


def test_a_grey_mask_is_cut_at_127() -> None:
    values = np.array([[0, 1, 126, 127, 128, 200, 255]], np.uint8)
    assert read_mask(by_pillow(values, "PNG")).tolist() == [[False] * 4 + [True] * 3]


@pytest.mark.parametrize("largest", [1, 255, 65535])
def test_masks_of_sixteen_bit(largest: int) -> None:
    values = MASK.astype(np.uint16) * np.uint16(largest)
    assert np.array_equal(read_mask(png(values, 0, 16)), MASK)
    assert np.array_equal(read_mask(tiff(values)), MASK)


def test_masks_with_a_palette_go_by_the_index() -> None:
    for colours in ([0, 0, 0, 128, 0, 0], [255, 255, 255, 0, 0, 0]):
        picture = Image.frombytes("P", MASK.shape[::-1], MASK.astype(np.uint8).tobytes())
        picture.putpalette(colours)
        assert np.array_equal(read_mask(by_pillow(picture, "PNG")), MASK)
        assert np.array_equal(read_mask(by_pillow(picture, "PNG", bits=1)), MASK)


def test_masks_of_two_bit_grey() -> None:
    values = MASK.astype(np.uint8)
    packed = np.zeros((33, 12), np.uint8)
    for x in range(47):
        packed[:, x // 4] |= values[:, x] << (6 - 2 * (x % 4))
    data = png(packed, 0, 8)
    header = struct.pack(">IIBBBBB", 47, 33, 2, 0, 0, 0, 0)
    data = data[:8] + chunk(b"IHDR", header) + data[33:]
    assert np.array_equal(read_mask(data), MASK)


def test_an_empty_and_a_full_mask() -> None:
    assert not read_mask(by_pillow(np.zeros((5, 6), np.uint8), "PNG")).any()
    assert read_mask(by_pillow(np.full((5, 6), 255, np.uint8), "PNG")).all()


def test_a_turned_mask_turns() -> None:
    data = by_pillow(MASK.astype(np.uint8) * 255, "PNG", exif=exif(6))
    assert np.array_equal(read_mask(data), turned(MASK, 6))
