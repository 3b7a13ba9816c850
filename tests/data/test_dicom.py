"""DICOM files written by pydicom against the formulas of the standard, and what never leaves them."""

from __future__ import annotations

import io
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import PATIENT, by_pillow, dicom, drawn

from ascseg_cli.data.decode import read_mask, read_pixels
from ascseg_cli.errors import InputError, MissingExtraError

pydicom = pytest.importorskip("pydicom", reason="the extra `dicom` isn't installed")

from pydicom.dataset import Dataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.uid import UID  # noqa: E402

STORED = np.random.default_rng(0).integers(0, 4096, (33, 47)).astype(np.uint16)


def rounded(values: np.ndarray) -> np.ndarray:
    return np.floor(np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)


def assert_grey(data: bytes, want: np.ndarray) -> None:
    got = read_pixels(data)
    assert got.shape == (*want.shape, 3)
    assert (got == got[:, :, :1]).all()
    assert np.abs(got[:, :, 0].astype(int) - want).max() <= 1  # ties round either way
    assert (got[:, :, 0] == want).mean() > 0.97


def test_a_window_by_the_standards_formula() -> None:
    """PS3.3 C.11.2.1.2.1, written out as it stands there, pixel by pixel."""
    centre, width = 1500.0, 900.0
    want = np.zeros(STORED.shape)
    for index, x in np.ndenumerate(STORED):
        if x <= centre - 0.5 - (width - 1) / 2:
            want[index] = 0
        elif x > centre - 0.5 + (width - 1) / 2:
            want[index] = 1
        else:
            want[index] = (x - (centre - 0.5)) / (width - 1) + 0.5
    assert_grey(dicom(STORED, WindowCenter=centre, WindowWidth=width), rounded(want))
    several = dicom(STORED, WindowCenter=[centre, 40], WindowWidth=[width, 80])
    assert_grey(several, rounded(want))


def test_other_window_functions() -> None:
    x = STORED.astype(np.float64)
    exact = dicom(STORED, WindowCenter=1500, WindowWidth=900, VOILUTFunction="LINEAR_EXACT")
    assert_grey(exact, rounded((x - 1500) / 900 + 0.5))
    sigmoid = dicom(STORED, WindowCenter=1500, WindowWidth=900, VOILUTFunction="SIGMOID")
    assert_grey(sigmoid, rounded(1 / (1 + np.exp(-4 * (x - 1500) / 900))))
    step = dicom(STORED, WindowCenter=1500, WindowWidth=1)
    assert_grey(step, rounded(x > 1499.5))


def test_the_rescale_comes_before_the_window() -> None:
    x = STORED * 2.0 - 1024
    data = dicom(STORED, RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
    assert_grey(data, rounded((x - 39.5) / 399 + 0.5))


def test_signed_values() -> None:
    values = (STORED.astype(np.int16) - 2000).astype(np.int16)
    data = dicom(values, stored=16, WindowCenter=40, WindowWidth=400)
    assert_grey(data, rounded((values - 39.5) / 399 + 0.5))


@pytest.mark.parametrize("tags", [{}, {"WindowCenter": 5, "WindowWidth": 0}, {"WindowCenter": 5}])
def test_without_a_window_by_minimum_and_maximum(tags: dict[str, Any]) -> None:
    x = STORED.astype(np.float64)
    assert_grey(dicom(STORED, **tags), rounded((x - x.min()) / (x.max() - x.min())))


def test_one_value_is_black() -> None:
    assert not read_pixels(dicom(np.full((5, 6), 700, np.uint16))).any()


def test_monochrome1_is_inverted() -> None:
    plain = read_pixels(dicom(STORED, WindowCenter=1500, WindowWidth=900))
    data = dicom(STORED, WindowCenter=1500, WindowWidth=900, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(read_pixels(data), 255 - plain)


def test_a_voi_table_goes_before_a_window() -> None:
    table = Dataset()
    table.add_new(0x00283002, "US", [4096, 0, 16])
    curve = (65535 * (np.arange(4096) / 4095) ** 2).astype("<u2")
    table.add_new(0x00283006, "OW", curve.tobytes())
    data = dicom(STORED, VOILUTSequence=[table], WindowCenter=1, WindowWidth=2)
    assert_grey(data, rounded(curve[STORED] / 65535))


def test_colours() -> None:
    eight = drawn()
    assert np.array_equal(read_pixels(dicom(eight)), eight)
    deep = drawn(dtype=np.uint16)
    want = np.floor(deep / 257 + 0.5)
    assert np.array_equal(read_pixels(dicom(deep, stored=16)), want)


def test_a_mask() -> None:
    mask = drawn()[:, :, 0] > 110
    assert np.array_equal(read_mask(dicom(mask.astype(np.uint8))), mask)


def test_jpeg_inside() -> None:
    jpeg = by_pillow(drawn()[:, :, 1], "JPEG", quality=95)
    data = dicom(drawn()[:, :, 1], syntax="1.2.840.10008.1.2.4.50", data=encapsulate([jpeg]))
    try:
        got = read_pixels(data)
    except InputError as error:
        assert "no decoder is installed" in error.message  # noqa: PT017
    else:
        x = read_pixels(jpeg)[:, :, 0].astype(np.float64)
        assert np.abs(got[:, :, 0] - 255 * (x - x.min()) / (x.max() - x.min())).max() <= 1


# ---- refusals


def refusal(data: bytes | Path, **limits: Any) -> str:
    with pytest.raises(InputError) as error:
        read_pixels(data, **limits)
    said = error.value.message + error.value.hint + "".join(traceback.format_exception(error.value))
    assert PATIENT not in said
    assert "880101" not in said
    assert "\n" not in error.value.message + error.value.hint
    return error.value.message


def test_several_frames_are_refused_with_their_count() -> None:
    data = dicom(STORED, data=STORED.tobytes() * 3, NumberOfFrames=3)
    assert refusal(data) == "DICOM with 3 frames; one picture a file is read"


def test_too_many_pixels_are_refused_by_the_header() -> None:
    assert "60000×60000 px" in refusal(dicom(STORED, Rows=60000, Columns=60000))
    assert "more than the limit of 100" in refusal(dicom(STORED), max_pixels=100)


def test_a_compression_without_a_decoder_is_named() -> None:
    data = dicom(STORED, syntax="1.2.840.10008.1.2.4.70", data=encapsulate([b"\xff\xd8\xff\xd9"]))
    if "pylibjpeg" in sys.modules or "gdcm" in sys.modules:
        pytest.skip("a decoder for lossless JPEG is installed")
    assert "JPEG Lossless" in refusal(data)
    unknown = dicom(STORED, syntax="1.2.840.10008.1.2.4.102", data=encapsulate([b"x"]))
    assert "no decoder is installed" in refusal(unknown)


def test_cut_and_damaged_files() -> None:
    data = dicom(STORED, WindowCenter=1500, WindowWidth=900)
    for cut in (len(data) - 1, len(data) // 2, 600, 200, 140):
        refusal(data[:cut])
    broken = dicom(STORED, data=encapsulate([b"\xff\xd8\xff\xd9"]), syntax="1.2.840.10008.1.2.4.50")
    refusal(broken)
    for place in range(132, 700, 7):
        try:
            read_pixels(data[:place] + b"\xff" + data[place + 1 :])
        except InputError as error:
            assert PATIENT not in str(error.__context__) + str(error)  # noqa: PT017


def test_a_report_has_no_picture() -> None:
    data = dicom(STORED)
    dataset = pydicom.dcmread(io.BytesIO(data))
    del dataset.PixelData
    file = io.BytesIO()
    dataset.save_as(file)
    assert refusal(file.getvalue()) == "DICOM without a picture"


def test_a_deflated_header_is_refused() -> None:
    dataset = pydicom.dcmread(io.BytesIO(dicom(STORED)))
    dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1.99")
    file = io.BytesIO()
    dataset.save_as(file)
    assert "deflated" in refusal(file.getvalue())


def test_names_with_and_without_suffix(tmp_path: Path) -> None:
    data = dicom(STORED)
    bare = data[132:]
    want = read_pixels(data)
    for name, content in {"a.dcm": data, "IM_0001": data, "b.DCM": bare, "IM_0002": bare}.items():
        (tmp_path / name).write_bytes(content)
        assert np.array_equal(read_pixels(tmp_path / name), want)
    (tmp_path / "text.dcm").write_bytes(b"this is no DICOM at all, whatever it is called" * 9)
    refusal(tmp_path / "text.dcm")


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pydicom" else real(name))
    with pytest.raises(MissingExtraError) as error:
        read_pixels(dicom(STORED))
    assert error.value.hint == 'run: pip install "ascseg[dicom]"'
