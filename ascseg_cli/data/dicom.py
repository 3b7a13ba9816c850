"""DICOM pictures, by the extra `dicom`: stored values through their window to grey, or RGB as stored.

Only pixels leave this module. The headers hold patients' names, and the library's own messages may quote them,
so no foreign message is passed on, nor chained to ours.
"""

from __future__ import annotations

import importlib.util
import io
from typing import Any

import numpy as np

from ascseg_cli.data.header import check_size, damaged
from ascseg_cli.data.quiet import quiet
from ascseg_cli.errors import InputError, MissingExtraError

_DEFLATED = b"1.2.840.10008.1.2.1.99"


def looks_like(data: bytes) -> bool:
    """Whether the bytes are DICOM: the mark after the preamble, or, without one, a first tag of group 2 or 8."""
    if data[128:132] == b"DICM":
        return True
    return data[:2] in (b"\x02\0", b"\x08\0") and data[3:4] == b"\0" and data[4:6].isalpha()


def read_samples(data: bytes, max_pixels: int) -> np.ndarray:
    """The picture of a whole DICOM file, (h, w) or (h, w, 3) uint8.

    Grey: rescaled, then through the VOI LUT or the first window (PS3.3 C.11.2), without both by the stored
    minimum..maximum; MONOCHROME1 is inverted. Raises InputError, MissingExtraError.
    """
    if importlib.util.find_spec("pydicom") is None:
        raise MissingExtraError("reading DICOM", "dicom")
    if _DEFLATED in data[:4096]:
        raise InputError("DICOM whose header is deflated isn't read", "inflate it first, e.g. with dcmconv +te")
    with quiet():  # pydicom is Python all the way, so that nothing is lost by taking turns
        try:
            return _pixels(_dataset(data, max_pixels))
        except (InputError, MissingExtraError):
            raise
        except Exception as error:
            kind = type(error).__name__
        raise damaged("DICOM", f"its pixels can't be decoded ({kind})")


def _dataset(data: bytes, max_pixels: int) -> Any:
    import pydicom

    dataset = pydicom.dcmread(io.BytesIO(data), force=True)
    if "PixelData" not in dataset or "Rows" not in dataset or "Columns" not in dataset:
        raise InputError("DICOM without a picture", "leave it out, or check that the file is whole")
    frames = int(dataset.get("NumberOfFrames") or 1)
    check_size(int(dataset.Columns), int(dataset.Rows), max_pixels)
    if frames != 1:
        raise InputError(f"DICOM with {frames} frames; one picture a file is read", "split it into single frames")
    return dataset


def _pixels(dataset: Any) -> np.ndarray:
    from pydicom.pixels import apply_color_lut, pixel_array

    _check_syntax(dataset)
    values = pixel_array(dataset)
    kind = str(dataset.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        values = apply_color_lut(values, dataset)[..., :3]
        return _eight_bit(values, 0, 65535 if values.dtype.itemsize == 2 else 255)
    if values.ndim == 3:
        return _eight_bit(values[..., :3], 0, 2 ** int(dataset.BitsStored) - 1)
    grey = _grey(values, dataset)
    return 255 - grey if kind == "MONOCHROME1" else grey


def _check_syntax(dataset: Any) -> None:
    """Raises InputError where the picture is compressed and no decoder for it is installed."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    syntax = dataset.file_meta.get("TransferSyntaxUID") if "file_meta" in dataset.__dict__ else None
    if syntax is None:
        dataset.file_meta = dataset.__dict__.get("file_meta") or _empty_meta()
        dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2")  # the standard's default
        return
    syntax = UID(syntax)
    try:
        usable = get_decoder(syntax).is_available
    except NotImplementedError:
        usable = False
    if not usable:
        name = "an unknown transfer syntax" if syntax.name == str(syntax) else syntax.name
        raise InputError(
            f"DICOM compressed as {name}, for which no decoder is installed",
            "run: pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg; or decompress it (gdcmconv --raw)",
        )


def _empty_meta() -> Any:
    from pydicom.dataset import FileMetaDataset

    return FileMetaDataset()


def _grey(values: np.ndarray, dataset: Any) -> np.ndarray:
    from pydicom.pixels import apply_modality_lut, apply_voi

    values = apply_modality_lut(values, dataset)
    if dataset.get("VOILUTSequence"):
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        return _eight_bit(apply_voi(values, dataset), 0, 2**bits - 1)
    window = _window(dataset)
    if window is None:
        return _eight_bit(values, float(values.min()), float(values.max()))
    return np.rint(255 * _windowed(values.astype(np.float64), *window)).astype(np.uint8)


def _window(dataset: Any) -> tuple[float, float, str] | None:
    """(centre, width, function) of the first window; None without one or with one of no width."""
    centre, width = (_first(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        return None
    function = str(dataset.get("VOILUTFunction") or "LINEAR")
    return (centre, width, function) if width > (function == "LINEAR") * 1.0 or width == 1 else None


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    number = float(value if isinstance(value, (str, int, float)) or not hasattr(value, "__len__") else value[0])
    return number if np.isfinite(number) else None


def _windowed(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """0..1, by PS3.3 C.11.2.1.2 (LINEAR) and C.11.2.1.3 (SIGMOID, LINEAR_EXACT)."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function == "LINEAR":
        if width == 1:
            return (values > centre - 0.5).astype(np.float64)
        centre, width = centre - 0.5, width - 1
    return np.clip((values - centre) / width + 0.5, 0, 1)


def _eight_bit(values: np.ndarray, low: float, high: float) -> np.ndarray:
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    if (low, high) == (0, 255) and values.dtype == np.uint8:
        return values
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
