"""What is written is what Pillow and OpenCV read, and zlib inflates it."""

from __future__ import annotations

import io
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from ascseg_cli.data.png import png_header
from ascseg_cli.data.png_writer import encode

SHAPES = [(1, 1), (1, 700), (700, 1), (33, 47), (600, 801)]


def drawn(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Noise on a slope, so that all values and all differences occur."""
    noise = np.random.default_rng(sum(shape)).integers(0, np.iinfo(dtype).max + 1, shape)
    slope = np.linspace(0, np.iinfo(dtype).max, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return np.where(noise % 3 == 0, noise, slope).astype(dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_rgb_is_read_back(shape):
    values = drawn((*shape, 3), np.uint8)
    content = encode(values)
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.mode == "RGB"
        assert np.array_equal(np.asarray(picture), values)
    read = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(read[:, :, ::-1], values)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", SHAPES)
def test_grey_is_read_back(shape, dtype):
    values = drawn(shape, dtype)
    content = encode(values)
    read = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert read.dtype == dtype
    assert np.array_equal(read, values)
    with Image.open(io.BytesIO(content)) as picture:
        assert np.array_equal(np.asarray(picture), values)


def test_any_layout_in_memory_will_do():
    values = drawn((40, 60, 3), np.uint8)
    assert encode(values[::-1, ::2]) == encode(values[::-1, ::2].copy())
    assert encode(np.asfortranarray(values)) == encode(values)


def test_checksums_and_lengths_hold():
    content = encode(drawn((600, 801, 3), np.uint8))
    header = png_header(content)  # looks at every checksum
    assert (header.width, header.height) == (801, 600)
    start = content.index(b"IDAT")
    packed = content[start + 4 : start + 4 + int.from_bytes(content[start - 4 : start], "big")]
    assert len(zlib.decompress(packed)) == 600 * (1 + 3 * 801)


def test_a_mask_of_one_value_is_small():
    assert len(encode(np.zeros((2000, 2000), np.uint8))) < 40_000
