"""What the Python API takes for a picture, against the decoder's reading of the same file, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ascseg_cli.data.decode import read_pixels
from ascseg_cli.errors import InputError, UsageError
from ascseg_cli.inference.segmenter import Segmenter, to_pixels


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_pil_image_is_read_as_its_file(tmp_path: Path, dtype: type) -> None:
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (9, 7), dtype=dtype, endpoint=True)
    Image.fromarray(values).save(tmp_path / "grey.png")
    with Image.open(tmp_path / "grey.png") as image:
        np.testing.assert_array_equal(to_pixels(image), read_pixels(tmp_path / "grey.png"))


@pytest.mark.parametrize(
    "image",
    [
        None,
        b"bytes",
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4), np.float32),
        Image.new("F", (4, 4)),
        Image.new("I", (4, 4)),
    ],
)
def test_what_is_no_picture_is_refused(image: Any) -> None:
    with pytest.raises(InputError):
        to_pixels(image)


def test_several_frames_are_refused_with_their_count(tmp_path: Path) -> None:
    first = Image.new("RGB", (5, 5))
    first.save(tmp_path / "a.tif", save_all=True, append_images=[first, first])
    with Image.open(tmp_path / "a.tif") as image, pytest.raises(InputError, match="3 frames"):
        to_pixels(image)


@pytest.mark.parametrize("wrong", [{"threshold": 3}, {"threads": 0}, {"device": "tpu"}, {"backend": "fast"}])
def test_wrong_settings_are_refused_in_words(drawn_weights: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"must|unknown"):
        Segmenter.from_weights(drawn_weights, **wrong)
