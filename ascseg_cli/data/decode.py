"""One decoder for images and masks: whatever the file, RGB bytes as a viewer shows them, or one clear line.

Each format goes to the library that was measured to read it right: JPEG to libjpeg-turbo (simplejpeg), the one
binding that tells when part of a picture is missing; 16 bit to OpenCV, since Pillow cuts colours to 8 bit
without a word, and WebP; all else to Pillow. headers.py has settled size, pages and turn before; nothing here
waits, warns, or depends on a global setting, so it may run in as many threads as wanted.
"""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import BmpImagePlugin, Image, PngImagePlugin, TiffImagePlugin

from ascseg_cli.data import headers
from ascseg_cli.data.quiet import quiet
from ascseg_cli.errors import AscsegError, InputError

MAX_PIXELS = 178_956_970
_BYTES_PER_PIXEL, _ROOM = 8, 64 << 20  # four samples of 16 bit, and metadata: no file in bounds is larger


@dataclass(frozen=True)
class Samples:
    """A decoded picture before it becomes RGB or a mask.

    values   (h, w) or (h, w, 3), uint8 or uint16
    palette  (n, 3) uint8 where `values` are its indices
    step     the value that stands for 1 in the file (grey of 2 or 4 bits comes spread to 0..255)
    """

    values: np.ndarray
    palette: np.ndarray | None = None
    step: int = 1


def read_pixels(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The picture as RGB.

    source   a path, or a whole file's bytes
    returns  (h, w, 3) uint8, turned as EXIF says; alpha dropped; 16 bit as round(x / 257)
    Raises InputError: the message names the rule, the caller adds the file's name. MissingExtraError for
    DICOM without the extra.
    """
    samples = _read(source, max_pixels)
    values = samples.values
    if samples.palette is not None:
        if values.size and int(values.max()) >= len(samples.palette):
            raise headers.damaged("picture", "a pixel's colour isn't in its palette")
        values = samples.palette[values]
    if values.dtype == np.uint16:
        values = _EIGHT_BIT[values]
    if values.ndim == 2:
        values = np.repeat(values[:, :, None], 3, axis=2)
    return np.ascontiguousarray(values)


def read_mask(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The mask, (h, w) bool, by the values in the file.

    Foreground is > 0 where the file's largest value is 1 (of a palette: the index), otherwise > 127 of 255
    (16 bit as round(x / 257), unless no value exceeds 255; colours by their largest channel).
    Raises InputError, also for a palette of several classes.
    """
    samples = _read(source, max_pixels)
    values = samples.values if samples.values.ndim == 2 else samples.values.max(axis=2)
    largest = int(values.max())
    if largest == samples.step:
        return values > 0
    if samples.palette is not None and 1 < largest <= 127:
        raise InputError(
            f"a palette mask with indices up to {largest}: neither 0/1 nor 0/255", "save one class as 0/255 grey"
        )
    if values.dtype == np.uint16 and largest > 255:
        values = _EIGHT_BIT[values]
    return values > 127


_EIGHT_BIT = ((np.arange(65536, dtype=np.uint32) + 128) // 257).astype(np.uint8)  # = round(x / 257): no ties


def _read(source: Path | bytes, max_pixels: int) -> Samples:
    data = source if isinstance(source, bytes) else _file_bytes(source, max_pixels)
    if not data:
        raise InputError("the file is empty", headers.AGAIN)
    from ascseg_cli.data import dicom

    named = not isinstance(source, bytes) and source.suffix.lower() == ".dcm"
    header = headers.read_header(data)
    if header is None:
        if named or dicom.looks_like(data):
            return Samples(dicom.read_samples(data, max_pixels))
        raise _not_an_image(data)
    headers.check_size(header.width, header.height, max_pixels)
    if header.frames > 1:
        parts = {"TIFF": "pages", "JPEG": "pictures"}.get(header.format, "frames")
        raise InputError(
            f"{header.format} with {header.frames} {parts}; one picture a file is read",
            "split it into single pictures first",
        )
    try:
        samples = _DECODERS[header.format](header)
    except AscsegError:
        raise
    except Exception as error:  # hostile bytes make the libraries raise nearly anything
        raise _undecodable(header, error) from error
    return Samples(_turn(samples.values, header.orientation), samples.palette, samples.step)


def _undecodable(header: headers.Header, error: Exception) -> InputError:
    if isinstance(error, MemoryError):
        return InputError(
            f"{header.width}×{header.height} px don't fit into memory", "lower --max-pixels or --threads"
        )
    what = " ".join(str(error).split()) or type(error).__name__
    if "truncated" in what.lower() or "not enough" in what:
        return headers.truncated(header.format)
    return headers.damaged(header.format, what[:120])


# ---- reading the file


def _file_bytes(path: Path, max_pixels: int) -> bytes:
    limit = max_pixels * _BYTES_PER_PIXEL + _ROOM
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        _check_regular(os.stat(path))
        with open(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            _check_regular(status)  # it may have been exchanged in between
            if status.st_size > limit:
                raise InputError(
                    f"a file of {status.st_size:,} bytes is larger than any picture of {max_pixels:,} pixels",
                    "if it is trusted and memory suffices, raise --max-pixels",
                )
            return file.read(limit + 1)
    except FileNotFoundError:
        if os.path.islink(path):
            raise InputError(f"a dangling link: its target {os.readlink(path)!r} doesn't exist") from None
        raise InputError("no such file") from None
    except OSError as error:
        raise InputError(f"can't be read: {error.strerror or error}") from error
    except ValueError:
        raise InputError("no file can have this name") from None


_NO_FILES = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def _check_regular(status: os.stat_result) -> None:
    for is_kind, kind in _NO_FILES:
        if is_kind(status.st_mode):
            raise InputError(f"{kind}, not an image file", "to read from a pipe, give - as the input")


_OTHERS = (
    (b"GIF8", 0, "a GIF"),
    (b"ftypavi", 4, "an AVIF"),
    (b"ftyphei", 4, "a HEIC photo"),
    (b"ftypmif1", 4, "a HEIC photo"),
    (b"\0\0\0\x0cjP  ", 0, "a JPEG 2000 picture"),
    (b"8BPS", 0, "a Photoshop file"),
    (b"%PDF", 0, "a PDF"),
    (b"PK\3\4", 0, "a ZIP archive"),
    (b"\x1f\x8b", 0, "a gzip archive"),
    (b"<", 0, "a text page (HTML or XML)"),
)


def _not_an_image(data: bytes) -> InputError:
    hint = "PNG, JPEG, BMP, TIFF, WebP and DICOM are read; convert it first"
    for magic, place, name in _OTHERS:
        if data.startswith(magic, place):
            return InputError(f"not an image of a format that is read: it looks like {name}", hint)
    if not any(data[:4096]):
        return InputError("not an image: it begins with zero bytes only, as after a failed copy", headers.AGAIN)
    return InputError("not an image of a format that is read", hint)


# ---- decoding


def _jpeg(header: headers.Header) -> Samples:
    import simplejpeg

    _, _, space, _ = simplejpeg.decode_jpeg_header(header.data)
    wanted = {"Gray": "GRAY", "CMYK": "CMYK", "YCCK": "CMYK"}.get(space, "RGB")
    values = simplejpeg.decode_jpeg(header.data, wanted, strict=True)
    if wanted == "GRAY":
        return Samples(values[:, :, 0])
    if wanted == "CMYK":
        inverted = (255 - values).tobytes()  # as Adobe began and all writers do
        picture = Image.frombuffer("CMYK", (header.width, header.height), inverted, "raw", "CMYK", 0, 1)
        return Samples(np.asarray(picture.convert("RGB")))
    return Samples(values)


def _png(header: headers.Header) -> Samples:
    if header.bits == 16:
        if not headers.holds_all_lines(header):
            raise headers.truncated("PNG")
        return _by_opencv(header, np.uint16)
    samples = _by_pillow(PngImagePlugin.PngImageFile, header)
    surely_whole = not header.interlaced and samples.values[-1].any()  # a line that lacks is left at 0
    if not surely_whole and not headers.holds_all_lines(header):
        raise headers.truncated("PNG")
    return samples


def _tiff(header: headers.Header) -> Samples:
    if header.bits == 16:
        return _by_opencv(header, np.uint16)
    return _by_pillow(_PlainTiff, header)


def _webp(header: headers.Header) -> Samples:
    return _by_opencv(header, np.uint8)  # Pillow's limit of pixels, global and half of ours, is in its way


def _bmp(header: headers.Header) -> Samples:
    return _by_pillow(BmpImagePlugin.BmpImageFile, header)


_DECODERS = {"PNG": _png, "JPEG": _jpeg, "BMP": _bmp, "TIFF": _tiff, "WebP": _webp}


class _PlainTiff(TiffImagePlugin.TiffImageFile):
    """Pillow's TIFF without what it does around the pixels: EXIF with its warnings, turning, a global limit."""

    def load_prepare(self) -> None:
        super(TiffImagePlugin.TiffImageFile, self).load_prepare()

    def load_end(self) -> None:
        pass


def _by_pillow(reader: type, header: headers.Header) -> Samples:
    with quiet():
        picture = reader(io.BytesIO(header.data))
    if picture.size != (header.width, header.height):
        raise headers.damaged(header.format, "it states two sizes")
    picture.load()
    if picture.mode in ("P", "PA"):
        return _indexed(picture)
    if picture.mode in ("CMYK", "YCbCr"):
        picture = picture.convert("RGB")
    if picture.mode not in ("1", "L", "LA", "RGB", "RGBX", "RGBA"):
        raise InputError(f"{header.format} of the kind {picture.mode!r} isn't read", "convert it to 8 bit RGB")
    values = np.asarray(picture)
    if values.dtype == bool:
        return Samples(values.astype(np.uint8) * 255, step=255)
    step = 255 // (2**header.bits - 1) if header.bits < 8 else 1
    return Samples(
        values if values.ndim == 2 else values[:, :, 0] if picture.mode == "LA" else values[:, :, :3], step=step
    )


def _indexed(picture: Image.Image) -> Samples:
    values = np.asarray(picture)
    palette = np.asarray(picture.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    return Samples(values if values.ndim == 2 else values[:, :, 0], palette)


def _by_opencv(header: headers.Header, dtype: type) -> Samples:
    import cv2

    log = getattr(cv2.utils, "logging", cv2)  # where it lies since OpenCV 4.13
    level = log.setLogLevel(0)  # silent
    try:
        values = cv2.imdecode(np.frombuffer(header.data, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        log.setLogLevel(level)
    if values is None or values.dtype != dtype or values.shape[:2] != (header.height, header.width):
        raise headers.damaged(header.format, "its data is wrong or cut short")
    if header.white_is_zero:
        values = np.invert(values)
    if values.ndim == 3:
        values = cv2.cvtColor(values, cv2.COLOR_BGR2RGB if values.shape[2] == 3 else cv2.COLOR_BGRA2RGB)
    return Samples(values)


def _turn(values: np.ndarray, orientation: int) -> np.ndarray:
    """The picture upright. Source: Exif 2.32, tag 274: where the stored row 0 and column 0 are to be shown."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values
