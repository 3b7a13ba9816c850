"""Images drawn by code, in every kind that the decoder must read, written by hands other than its own.

Three writers: Pillow, OpenCV, and plain bytes after the specifications (for what neither of them writes).
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from PIL import Image


def drawn(h: int = 33, w: int = 47, seed: int = 0, dtype: Any = np.uint8) -> np.ndarray:
    """(h, w, 3): a bright blot on a coloured slope with some noise; no symmetry, all channels different."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:h, 0:w] / max(h, w)
    blot = np.exp(-40 * ((y - 0.3) ** 2 + (x - 0.6) ** 2))
    picture = np.stack([0.1 + 0.3 * x + 0.5 * blot, 0.2 + 0.5 * y, 0.7 - 0.5 * x * y], axis=2)
    picture = np.clip(picture + random.normal(0, 0.05, picture.shape), 0, 1)
    return np.rint(picture * np.iinfo(dtype).max).astype(dtype)


def eight_bit(values: np.ndarray) -> np.ndarray:
    return np.floor(values / 257.0 + 0.5).astype(np.uint8)


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.stack([grey] * 3, axis=2)


def turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """What a viewer shows of a stored array: Exif 2.32, tag 274, written with rot90 and flips by name."""
    return {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: np.fliplr(np.rot90(a, -1)),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.fliplr(np.rot90(a, 1)),
        8: lambda a: np.rot90(a, 1),
    }[orientation](values)


def by_pillow(values: np.ndarray | Image.Image, format: str, **options: Any) -> bytes:
    picture = values if isinstance(values, Image.Image) else Image.fromarray(values)
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def by_opencv(values: np.ndarray, suffix: str) -> bytes:
    """RGB(A) or grey of 8 or 16 bit."""
    if values.ndim == 3:
        values = values[:, :, [2, 1, 0, 3][: values.shape[2]]]
    ok, data = cv2.imencode(suffix, np.ascontiguousarray(values))
    assert ok
    return data.tobytes()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


# ---- plain bytes


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(values: np.ndarray, colour: int, bits: int, extra: bytes = b"", rows: int | None = None) -> bytes:
    """PNG without filters; `extra` chunks stand before the picture, which may lack rows."""
    h, w = values.shape[:2]
    lines = (b"\0" + line.astype(f">u{bits // 8}").tobytes() for line in values[:rows])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, bits, colour, 0, 0, 0))
    picture = chunk(b"IDAT", zlib.compress(b"".join(lines)))
    return b"\x89PNG\r\n\x1a\n" + header + extra + picture + chunk(b"IEND", b"")


def tiff(values: np.ndarray, order: str = "<", data: bytes | None = None, **tags: Any) -> bytes:
    """Uncompressed TIFF in one strip; `tags` override: photometric, bits, planar, extra, orientation, kind…"""
    h, w = values.shape[:2]
    samples = values.shape[2] if values.ndim == 3 else 1
    planes = samples if tags.get("planar") == 2 else 1
    stored = np.moveaxis(values, -1, 0) if planes > 1 else values
    if data is None:
        data = stored.astype(values.dtype.newbyteorder(order)).tobytes()
    entries = {
        256: ("I", [w]),
        257: ("I", [h]),
        258: ("H", [tags.get("bits", values.dtype.itemsize * 8)] * samples),
        259: ("H", [1]),
        262: ("H", [tags.get("photometric", 2 if samples > 2 else 1)]),
        274: ("H", [tags.get("orientation", 1)]),
        277: ("H", [samples]),
        278: ("I", [h]),
        279: ("I", [len(data) // planes] * planes),
        284: ("H", [tags.get("planar", 1)]),
    }
    for name, tag, letter in (("extra", 338, "H"), ("kind", 339, "H"), ("subfile", 254, "I"), ("tile", 322, "I")):
        if name in tags:
            entries[tag] = (letter, [tags[name]] * (samples if name == "kind" else 1))
    if "palette" in tags:
        entries[320] = ("H", (tags["palette"].T.astype(int) * 257).ravel().tolist())
    return _tiff_file(entries, data, planes, order)


def _tiff_file(entries: dict[int, tuple[str, list[int]]], data: bytes, planes: int, order: str) -> bytes:
    entries = dict(sorted({**entries, 273: ("I", [0] * planes)}.items()))
    begin = 8 + 2 + 12 * len(entries) + 4
    long = [struct.calcsize(letter) * len(v) for letter, v in entries.values()]
    start = begin + sum(size for size in long if size > 4)
    entries[273] = ("I", [start + i * (len(data) // planes) for i in range(planes)])
    directory, tail = struct.pack(order + "H", len(entries)), b""
    for tag, (letter, v) in entries.items():
        body = struct.pack(f"{order}{len(v)}{letter}", *v)
        directory += struct.pack(order + "HHI", tag, {"H": 3, "I": 4}[letter], len(v))
        if len(body) > 4:
            body, tail = struct.pack(order + "I", begin + len(tail)), tail + body
        directory += body.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return head + directory + b"\0\0\0\0" + tail + data


PATIENT = "Hong^Gildong"


def dicom(
    values: np.ndarray, *, syntax: str = "1.2.840.10008.1.2.1", data: bytes | None = None, **tags: Any
) -> bytes:
    """A DICOM file by pydicom, with a patient's name in it; `stored` bits, other `tags` by keyword."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")
    meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    meta.TransferSyntaxUID = UID(syntax)
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.PatientName, dataset.PatientID = PATIENT, "880101-1234567"
    dataset.Rows, dataset.Columns = values.shape[:2]
    dataset.SamplesPerPixel = values.shape[2] if values.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if values.ndim == 3 else "MONOCHROME2"
    if values.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = values.dtype.itemsize * 8
    dataset.BitsStored = tags.pop("stored", 12 if values.dtype.itemsize == 2 else 8)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.PixelData = values.tobytes() if data is None else data
    dataset["PixelData"].VR = "OB" if values.dtype.itemsize == 1 else "OW"
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def samples() -> dict[str, bytes]:
    """One file of each kind that is read, small: what the fuzzing starts from."""
    eight, deep = drawn(), drawn(dtype=np.uint16)
    alpha = np.dstack([eight, eight[:, :, 0]])
    palette = Image.fromarray(eight).quantize(16)
    return {
        "jpeg": by_pillow(eight, "JPEG", exif=exif(6)),
        "jpeg-progressive": by_pillow(eight, "JPEG", progressive=True, quality=90),
        "jpeg-grey": by_pillow(eight[:, :, 1], "JPEG"),
        "jpeg-cmyk": by_pillow(Image.fromarray(eight).convert("CMYK"), "JPEG"),
        "png": by_pillow(eight, "PNG", exif=exif(3)),
        "png-alpha": by_pillow(alpha, "PNG"),
        "png-palette": by_pillow(palette, "PNG"),
        "png-1": by_pillow(Image.fromarray(eight[:, :, 0] > 99), "PNG"),
        "png-16": by_opencv(deep, ".png"),
        "bmp": by_pillow(eight, "BMP"),
        "bmp-palette": by_pillow(palette, "BMP"),
        "tiff": by_pillow(eight, "TIFF"),
        "tiff-lzw": by_pillow(eight, "TIFF", compression="tiff_lzw"),
        "tiff-jpeg": by_pillow(eight, "TIFF", compression="jpeg"),
        "tiff-deflate": by_pillow(eight, "TIFF", compression="tiff_adobe_deflate"),
        "tiff-16": by_opencv(deep, ".tiff"),
        "tiff-16-grey": tiff(deep[:, :, 0], ">"),
        "webp": by_pillow(eight, "WEBP"),
        "webp-lossless": by_pillow(alpha, "WEBP", lossless=True, exif=exif(8)),
    }


def dicom_samples() -> dict[str, bytes]:
    """The same of DICOM, which needs pydicom."""
    from pydicom.encaps import encapsulate

    deep, eight = drawn(dtype=np.uint16), drawn()
    jpeg = encapsulate([by_pillow(eight[:, :, 0], "JPEG")])
    return {
        "dicom": dicom(deep[:, :, 0], stored=16, WindowCenter=30000, WindowWidth=20000),
        "dicom-rgb": dicom(eight),
        "dicom-jpeg": dicom(eight[:, :, 0], syntax="1.2.840.10008.1.2.4.50", data=jpeg),
    }
