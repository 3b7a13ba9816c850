"""One decoder for images and masks: whatever the file, RGB bytes as a viewer shows them, or one clear line.

Each format goes to the library that was measured to read it right: JPEG to libjpeg-turbo (simplejpeg), the one
binding that tells when part of a picture is missing; 16 bit to OpenCV, since Pillow cuts colours to 8 bit
without a word, and WebP; all else to Pillow. formats.py has settled size, pages and turn before; nothing here
waits, warns, or depends on a global setting, so it may run in as many threads as wanted.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import BmpImagePlugin, Image, PngImagePlugin, TiffImagePlugin

from ascseg_cli.data.formats import read_header
from ascseg_cli.data.header import AGAIN, Header, check_size, damaged, truncated
from ascseg_cli.data.png import holds_all_lines
from ascseg_cli.data.quiet import quiet
from ascseg_cli.data.remote import Place
from ascseg_cli.data.source import file_bytes, not_an_image
from ascseg_cli.errors import AscsegError, InputError

MAX_PIXELS = 178_956_970


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


def read_pixels(source: Place | bytes, *, max_pixels: int = MAX_PIXELS, by_name: bool = False) -> np.ndarray:
    """The picture as RGB.

    source   a path, or a whole file's bytes
    by_name  those bytes lay in a file named `.dcm`: some DICOM files are known by that alone
    returns  (h, w, 3) uint8, turned as EXIF says; alpha dropped; 16 bit as round(x / 257)
    Raises InputError: the message names the rule, the caller adds the file's name. MissingExtraError for
    DICOM without the extra.
    """
    samples = read_samples(source, max_pixels=max_pixels, by_name=by_name)
    values = samples.values
    if samples.palette is not None:
        if values.size and int(values.max()) >= len(samples.palette):
            raise damaged("picture", "a pixel's colour isn't in its palette")
        values = samples.palette[values]
    if values.dtype == np.uint16:
        values = _EIGHT_BIT[values]
    if values.ndim == 2:
        values = np.repeat(values[:, :, None], 3, axis=2)
    return np.ascontiguousarray(values)


def read_mask(source: Place | bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The mask, (h, w) bool, by the values in the file.

    Foreground is > 0 where the file's largest value is 1 (of a palette: the index), otherwise > 127 of 255
    (16 bit as round(x / 257), unless no value exceeds 255; colours by their largest channel).
    Raises InputError, also for a palette of several classes.
    """
    return foreground(read_samples(source, max_pixels=max_pixels))


def foreground(samples: Samples) -> np.ndarray:
    """The mask (h, w) bool of a file's values, as `read_mask` says. Raises InputError."""
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


def read_samples(source: Place | bytes, *, max_pixels: int = MAX_PIXELS, by_name: bool = False) -> Samples:
    """The values as the file holds them, turned as EXIF says. Raises as `read_pixels`."""
    data = source if isinstance(source, bytes) else file_bytes(source, max_pixels)
    if not data:
        raise InputError("the file is empty", AGAIN)
    from ascseg_cli.data import dicom

    named = by_name or (not isinstance(source, bytes) and source.suffix.lower() == ".dcm")
    header = read_header(data)
    if header is None:
        if named or dicom.looks_like(data):
            return Samples(dicom.read_samples(data, max_pixels))
        raise not_an_image(data)
    check_size(header.width, header.height, max_pixels)
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
    return Samples(upright(samples.values, header.orientation), samples.palette, samples.step)


def _undecodable(header: Header, error: Exception) -> InputError:
    if isinstance(error, MemoryError):
        return InputError(
            f"{header.width}×{header.height} px don't fit into memory", "lower --max-pixels or --threads"
        )
    what = " ".join(str(error).split()) or type(error).__name__
    if "truncated" in what.lower() or "not enough" in what:
        return truncated(header.format)
    return damaged(header.format, what[:120])


def _jpeg(header: Header) -> Samples:
    import simplejpeg

    height, width, space, _ = simplejpeg.decode_jpeg_header(header.data)
    if (height, width) != (header.height, header.width):
        raise damaged("JPEG", "it states two sizes")
    wanted = {"Gray": "GRAY", "CMYK": "CMYK", "YCCK": "CMYK"}.get(space, "RGB")
    values = simplejpeg.decode_jpeg(header.data, wanted, strict=True)
    if wanted == "GRAY":
        return Samples(values[:, :, 0])
    if wanted == "CMYK":
        inverted = (255 - values).tobytes()  # as Adobe began and all writers do
        picture = Image.frombuffer("CMYK", (header.width, header.height), inverted, "raw", "CMYK", 0, 1)
        return Samples(np.asarray(picture.convert("RGB")))
    return Samples(values)


def _png(header: Header) -> Samples:
    if header.bits == 16:
        if not holds_all_lines(header):
            raise truncated("PNG")
        return _by_opencv(header, np.uint16)
    samples = _by_pillow(PngImagePlugin.PngImageFile, header)
    surely_whole = not header.interlaced and samples.values[-1].any()  # a line that lacks is left at 0
    if not surely_whole and not holds_all_lines(header):
        raise truncated("PNG")
    return samples


def _tiff(header: Header) -> Samples:
    if header.bits == 16:
        return _by_opencv(header, np.uint16)
    return _by_pillow(_PlainTiff, header)


def _webp(header: Header) -> Samples:
    return _by_opencv(header, np.uint8)  # Pillow's limit of pixels, global and half of ours, is in its way


def _bmp(header: Header) -> Samples:
    return _by_pillow(BmpImagePlugin.BmpImageFile, header)


_DECODERS = {"PNG": _png, "JPEG": _jpeg, "BMP": _bmp, "TIFF": _tiff, "WebP": _webp}


class _PlainTiff(TiffImagePlugin.TiffImageFile):
    """Pillow's TIFF without what it does around the pixels: EXIF with its warnings, turning, a global limit."""

    def _open(self) -> None:
        with quiet():
            super()._open()

    def load_prepare(self) -> None:
        super(TiffImagePlugin.TiffImageFile, self).load_prepare()

    def load_end(self) -> None:
        pass


def _by_pillow(reader: type, header: Header) -> Samples:
    picture = reader(io.BytesIO(header.data))
    if picture.size != (header.width, header.height):
        raise damaged(header.format, "it states two sizes")
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


def _by_opencv(header: Header, dtype: type) -> Samples:
    import cv2

    log = getattr(cv2.utils, "logging", cv2)  # where it lies since OpenCV 4.13
    level = log.setLogLevel(0)  # silent
    try:
        values = cv2.imdecode(np.frombuffer(header.data, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        log.setLogLevel(level)
    if values is None or values.dtype != dtype or values.shape[:2] != (header.height, header.width):
        raise damaged(header.format, "its data is wrong or cut short")
    if header.white_is_zero:
        values = np.invert(values)
    if values.ndim == 3:
        values = cv2.cvtColor(values, cv2.COLOR_BGR2RGB if values.shape[2] == 3 else cv2.COLOR_BGRA2RGB)
    return Samples(values)


def upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """The picture upright. Source: Exif 2.32, tag 274: where the stored row 0 and column 0 are to be shown."""
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values
