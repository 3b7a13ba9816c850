"""What isn't a whole single picture is refused in one line: never half a picture, a wait, or a warning."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import by_pillow, chunk, drawn, exif, png, samples, tiff
from PIL import Image

from ascseg_cli.data.decode import read_mask, read_pixels
from ascseg_cli.errors import InputError

EIGHT, DEEP = drawn(), drawn(dtype=np.uint16)
LARGE = drawn(160, 200)
WHOLE = {
    **samples(),
    "jpeg-large": by_pillow(LARGE, "JPEG"),
    "jpeg-progressive-large": by_pillow(LARGE, "JPEG", progressive=True),
    "png-large": by_pillow(LARGE, "PNG"),
    "bmp-large": by_pillow(LARGE, "BMP"),
    "tiff-large": by_pillow(LARGE, "TIFF", compression="tiff_lzw"),
    "webp-large": by_pillow(LARGE, "WEBP"),
}


def refusal(source: Path | bytes, **limits: Any) -> str:
    """The message with which both readers refuse."""
    with pytest.raises(InputError) as pixels:
        read_pixels(source, **limits)
    with pytest.raises(InputError) as mask:
        read_mask(source, **limits)
    assert pixels.value.message == mask.value.message
    message = pixels.value.message
    assert message
    assert "\n" not in message + pixels.value.hint
    assert len(message) < 160
    return message


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_a_file_cut_anywhere_is_refused(name: str) -> None:
    data = WHOLE[name]
    whole = read_pixels(data)
    for cut in sorted({0, 1, 3, 9, 30, len(data) // 10, len(data) // 2, len(data) * 9 // 10, len(data) - 12}):
        refusal(data[:cut])
    for cut in (len(data) - 2, len(data) - 1):
        try:
            read = read_pixels(data[:cut])
        except InputError as error:
            assert "truncated" in error.message or "cut short" in error.message  # noqa: PT017
        else:
            assert name.startswith("bmp"), "only a BMP's last bytes may be padding"
            assert np.array_equal(read, whole)


@pytest.mark.parametrize("name", ["jpeg-large", "jpeg-progressive-large"])
def test_a_jpeg_with_a_hole_is_refused(name: str) -> None:
    """Pillow and OpenCV show these with the missing part in grey."""
    data = WHOLE[name]
    half = len(data) // 2
    assert "damaged" in refusal(data[:half] + b"\xff\xd9")
    assert "truncated" in refusal(data[:half] + bytes(len(data) - half))
    assert "damaged" in refusal(data[:half] + bytes(len(data) - half - 2) + b"\xff\xd9")
    assert np.asarray(Image.open(io.BytesIO(data[:half] + b"\xff\xd9"))).shape == LARGE.shape


def test_a_png_that_lacks_lines_is_refused() -> None:
    """All checksums are right; Pillow shows black lines."""
    assert refusal(png(EIGHT, 2, 8, rows=32)).startswith("truncated PNG")
    assert refusal(png(DEEP, 2, 16, rows=32)).startswith("truncated PNG")
    black = np.zeros_like(EIGHT)
    assert refusal(png(black, 2, 8, rows=32)).startswith("truncated PNG")
    assert np.array_equal(read_pixels(png(black, 2, 8)), black)


def test_a_png_with_a_wrong_checksum_is_refused() -> None:
    data = bytearray(png(EIGHT, 2, 8))
    data[data.index(b"IDAT") + 20] ^= 4
    assert "checksum of its IDAT" in refusal(bytes(data))


def frames(format: str, count: int, **options: Any) -> bytes:
    pictures = [Image.fromarray(np.roll(EIGHT, 5 * i, 1)) for i in range(count)]
    return by_pillow(pictures[0], format, save_all=True, append_images=pictures[1:], **options)


@pytest.mark.parametrize(
    ("format", "said"), [("PNG", "3 frames"), ("WEBP", "3 frames"), ("TIFF", "3 pages"), ("GIF", "a GIF")]
)
def test_several_frames_are_refused_with_their_count(format: str, said: str) -> None:
    assert said in refusal(frames(format, 3))


def test_one_frame_of_an_animated_kind_is_a_picture() -> None:
    assert np.array_equal(read_pixels(frames("TIFF", 1)), EIGHT)
    assert np.array_equal(read_pixels(frames("PNG", 1)), EIGHT)


def test_a_page_with_a_preview_is_one_picture() -> None:
    """NewSubfileType 1 is a smaller copy: TIFF 6.0, page 36."""
    first, preview = tiff(EIGHT), tiff(EIGHT[::4, ::4], subfile=1)
    shift = len(first)
    data = bytearray(first + preview)
    data[8 + 2 + 12 * 11 : 8 + 2 + 12 * 11 + 4] = struct.pack("<I", shift + 8)
    (count,) = struct.unpack_from("<H", data, shift + 8)
    for i in range(count):
        place = shift + 10 + 12 * i
        tag, _, number = struct.unpack_from("<HHI", data, place)
        if tag == 273 or number > 2:
            (offset,) = struct.unpack_from("<I", data, place + 8)
            struct.pack_into("<I", data, place + 8, offset + shift)
    assert Image.open(io.BytesIO(bytes(data))).n_frames == 2
    assert np.array_equal(read_pixels(bytes(data)), EIGHT)


def multi_picture(kind: int) -> bytes:
    """A JPEG followed by another of the given kind (CIPA DC-007: 1 preview, 2 stereo or panorama)."""
    data = bytearray(frames("MPO", 2))
    body = data.index(b"MPF\0") + 4
    order = {b"II": "<", b"MM": ">"}[bytes(data[body : body + 2])]
    (offset,) = struct.unpack_from(order + "I", data, body + 4)
    (count,) = struct.unpack_from(order + "H", data, body + offset)
    for i in range(count):
        tag, _, _, value = struct.unpack_from(order + "HHII", data, body + offset + 2 + 12 * i)
        if tag == 0xB002:
            struct.pack_into(order + "I", data, body + value, 0x20000000 | kind << 16)
            struct.pack_into(order + "I", data, body + value + 16, kind << 16)
    return bytes(data)


def test_a_phones_jpeg_with_a_preview_is_one_picture_and_a_stereo_pair_is_two() -> None:
    assert read_pixels(frames("MPO", 2)).shape == EIGHT.shape
    assert read_pixels(multi_picture(1)).shape == EIGHT.shape
    assert "2 pictures" in refusal(multi_picture(2))


def huge_png(side: int) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def test_too_many_pixels_are_refused_by_the_header() -> None:
    assert "100000×100000 px are 10,000,000,000 pixels" in refusal(huge_png(100_000))
    for name, data in WHOLE.items():
        h, w = read_pixels(data).shape[:2]
        assert f"{h * w:,} pixels, more than the limit" in refusal(data, max_pixels=h * w - 1), name
        read_pixels(data, max_pixels=h * w)


def test_pillows_own_limit_neither_warns_nor_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for data in WHOLE.values():
        assert read_pixels(data).size > 30


def test_a_huge_tile_is_refused() -> None:
    assert "more than the limit" in refusal(tiff(EIGHT, tile=1 << 30))


def test_a_circle_of_pages_is_refused() -> None:
    data = bytearray(tiff(EIGHT))
    (count,) = struct.unpack_from("<H", data, 8)
    struct.pack_into("<I", data, 10 + 12 * count, 8)
    assert "circle" in refusal(bytes(data))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"hello", "not an image"),
        (bytes(5000), "zero bytes only"),
        (b"<!DOCTYPE html><html>404</html>", "HTML"),
        (b"%PDF-1.7 ...", "a PDF"),
        (b"PK\3\4aaaaaaaaaaaaaaa", "a ZIP"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, said: str) -> None:
    assert said in refusal(data)


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiffs_whose_values_have_no_rule_are_refused(order: str) -> None:
    grey = DEEP[:, :, 0]
    assert "floating-point" in refusal(tiff(grey.astype(np.float32), order, kind=3))
    assert "signed" in refusal(tiff(grey, order, kind=2))
    assert "32 bits" in refusal(tiff(grey.astype(np.uint32), order))
    assert "12 bits" in refusal(tiff(grey, order, bits=12))
    assert "16 bit TIFF that is neither" in refusal(tiff(DEEP, order, planar=2))  # OpenCV mixes it up
    assert "16 bit TIFF that is neither" in refusal(tiff(np.dstack([grey, grey]), order, extra=2))


def test_a_pixel_outside_the_palette_is_refused() -> None:
    picture = Image.fromarray(np.full((4, 4), 9, np.uint8))
    data = by_pillow(picture, "PNG")
    palette = chunk(b"PLTE", bytes(range(9)))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 3, 0, 0, 0))
    data = data[:8] + header + palette + data[33:]
    with pytest.raises(InputError, match="palette"):
        read_pixels(data)


def test_a_mask_of_several_classes_is_refused() -> None:
    picture = Image.frombytes("P", (3, 1), bytes([0, 1, 15]))
    picture.putpalette(list(range(48)))
    with pytest.raises(InputError, match="indices up to 15"):
        read_mask(by_pillow(picture, "PNG"))


# ---- paths


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    assert refusal(tmp_path / "absent.png") == "no such file"
    assert refusal(tmp_path) == "a folder, not an image file"
    link = tmp_path / "link.png"
    link.symlink_to("gone.png")
    assert refusal(link) == "a dangling link: its target 'gone.png' doesn't exist"
    circle = tmp_path / "circle.png"
    circle.symlink_to("circle.png")
    assert refusal(circle).startswith("can't be read: ")
    assert refusal(tmp_path / "a\0b.png") == "no file can have this name"
    assert refusal(tmp_path / ("a" * 300)).startswith("can't be read: ")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.timeout(10)
def test_pipes_and_devices_are_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert refusal(tmp_path / "pipe.png") == "a named pipe, not an image file"
    assert refusal(Path("/dev/zero")) == "a device, not an image file"


def test_a_file_that_would_have_to_be_waited_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent(io.FileIO):  # as /proc/kmsg, when all was read: a regular file, to the system
        def read(self, size: int | None = -1) -> bytes:
            return None  # type: ignore[return-value]

    (tmp_path / "a.png").write_bytes(b"something")
    monkeypatch.setattr("ascseg_cli.data.source.open", Silent, raising=False)
    assert refusal(tmp_path / "a.png") == "can't be read: it would have to be waited for"


def test_a_file_without_the_right_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(by_pillow(EIGHT, "PNG"))

    def denied(*_: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    assert refusal(path) == "can't be read: Permission denied"


def test_a_file_larger_than_any_picture_isnt_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.png"
    with path.open("wb") as file:
        file.truncate(80 << 20)
    assert "larger than any picture of 1,000 pixels" in refusal(path, max_pixels=1000)


def test_no_warning_escapes_from_damaged_tags() -> None:
    """pytest makes an error of each warning, and Pillow warns of each of these."""
    data = by_pillow(EIGHT, "TIFF", compression="tiff_lzw", exif=exif(6))
    for place in range(4, len(data) - 4, 3):
        spoilt = data[:place] + b"\xff\xff" + data[place + 2 :]
        try:
            read_pixels(spoilt)
        except InputError:
            continue
