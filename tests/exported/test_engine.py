"""The engine of exported files: the file's own numbers, as many threads as said, clear refusals."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ascseg_cli.errors import BackendError, InputError, MissingExtraError, UsageError, WeightsError
from ascseg_cli.inference.engine import open_engine
from ascseg_cli.inference.segmenter import Segmenter
from ascseg_cli.inference.tta import predict_probability, prepared

pytest.importorskip("onnxruntime", reason="exported files are run by onnxruntime")
Draw = Callable[..., Path]
Answer = Callable[[np.ndarray], np.ndarray]


def test_pictures_of_any_size_give_the_files_probabilities(
    draw: Draw, pictures: list[np.ndarray], stand_in: Answer
) -> None:
    engine = open_engine(draw(), threads=1)
    assert (engine.backend, engine.device, engine.metadata.name) == ("onnxruntime", "cpu", "stand-in")
    for pixels in pictures:
        got = predict_probability(engine, pixels)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, stand_in(pixels), atol=1e-6)
    segmented = Segmenter(engine)(pictures[0])
    assert segmented.threshold == 0.4
    sure = np.abs(stand_in(pictures[0]) - 0.4) > 1e-6
    np.testing.assert_array_equal(segmented.mask[sure], (stand_in(pictures[0]) >= 0.4)[sure])


def test_the_mean_of_four_views_each_turned_back(draw: Draw, pictures: list[np.ndarray], stand_in: Answer) -> None:
    engine = open_engine(draw(), threads=1)
    for pixels in pictures:
        want = (
            stand_in(pixels)
            + stand_in(pixels[:, ::-1])[:, ::-1]
            + stand_in(pixels[::-1])[::-1]
            + stand_in(pixels[::-1, ::-1])[::-1, ::-1]
        ) / 4
        got = predict_probability(engine, pixels, tta=True)
        np.testing.assert_allclose(got, want, atol=1e-6)
        assert np.abs(got - stand_in(pixels)).max() > 0.1


def test_the_network_alone_takes_prepared_images(draw: Draw, pictures: list[np.ndarray]) -> None:
    engine = open_engine(draw(record={"core_only": True}), threads=1)
    images = np.stack([engine.prepared(pixels) for pixels in pictures])
    np.testing.assert_array_equal(images[0], prepared(pictures[0], engine.metadata))
    got = engine.probabilities(images)
    assert got.shape == (4, 32, 48)
    rise = 0.02 * np.arange(1, 49)
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-(images[:, 1].astype(np.float64) + rise))), atol=1e-6)
    assert predict_probability(engine, pictures[1]).shape == pictures[1].shape[:2]


def test_a_file_for_one_size_refuses_other_pictures(draw: Draw, pictures: list[np.ndarray]) -> None:
    engine = open_engine(draw(record={"static": [40, 60]}))
    assert predict_probability(engine, pictures[0]).shape == (40, 60)
    with pytest.raises(InputError, match="33×91 px, and the exported file takes only 40×60 px"):
        engine.prepared(pictures[1])


def test_a_network_alone_for_another_size_than_its_own_is_refused(draw: Draw) -> None:
    with pytest.raises(WeightsError, match="its network takes 64×64 px, but its metadata prepares 32×48 px"):
        open_engine(draw(record={"core_only": True, "static": [64, 64]}))


COUNT = """
import sys
from pathlib import Path
import numpy as np
import onnxruntime
from ascseg_cli.inference.engine import open_engine

def count():
    return len(list(Path("/proc/self/task").iterdir()))

def run(engine):
    engine.probabilities(np.zeros((1, 40, 60, 3), np.uint8))

first = open_engine(Path(sys.argv[1]), threads=1)
before = count()
run(first)
print(count() - before)
four = open_engine(Path(sys.argv[1]), threads=4)
run(four)
print(count() - before)
with four.shared(4):
    run(four)
    print(count() - before)
with four.shared(2):
    run(four)
    print(count() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted under /proc")
def test_as_many_threads_as_said_never_more(draw: Draw) -> None:
    run = subprocess.run([sys.executable, "-c", COUNT, draw()], capture_output=True, text=True, check=True)
    alone, of_four, four_at_once, two_at_once = map(int, run.stdout.split())
    assert alone == 0  # the caller's own thread does it
    assert of_four == 3
    assert four_at_once == 3  # the session for four passes at once brought none of its own
    assert two_at_once == 3 + 1


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ({"device": "cuda"}, BackendError, "device cuda can't be used: exported files run on the CPU"),
        ({"device": "tpu"}, UsageError, "device 'tpu' is unknown"),
        ({"backend": "cpu"}, BackendError, "backend cpu can't be used: exported files are run by onnxruntime"),
        ({"backend": "fast"}, UsageError, "backend 'fast' is unknown"),
        ({"precision": "bfloat16"}, BackendError, "precision bfloat16 can't be used"),
        ({"precision": "half"}, UsageError, "precision 'half' is unknown"),
        ({"threads": 0}, UsageError, "threads is 0"),
    ],
)
def test_what_an_exported_file_cannot_be_run_with(
    draw: Draw, how: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        open_engine(draw(), **how)  # type: ignore[arg-type]
    assert isinstance(caught.value, (BackendError, UsageError))


def test_a_graph_that_the_runtime_refuses_is_one_line(draw: Draw, capfd: pytest.CaptureFixture[str]) -> None:
    content = draw().read_bytes().replace(b"Sigmoid", b"Sigmoia")
    path = draw("other.onnx")
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"onnxruntime \d+\.\d+\.\d+ can't load it") as caught:
        open_engine(path)
    assert "\n" not in caught.value.message
    assert capfd.readouterr().err == ""


def test_a_graph_that_fails_is_one_line(
    draw: Draw, pictures: list[np.ndarray], capfd: pytest.CaptureFixture[str]
) -> None:
    engine = open_engine(draw(plane=7), threads=1)
    with pytest.raises(WeightsError, match=r"model\.onnx can't be run: .*Gather") as caught:
        engine.probabilities(pictures[0][None])
    assert "\n" not in caught.value.message
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_another_input_than_the_record_says_is_refused(draw: Draw, kind: str) -> None:
    with pytest.raises(WeightsError, match=rf"its inputs are image tensor\({kind}\) of 4 axes, not image tensor"):
        open_engine(draw(kind=kind))


def test_without_onnxruntime_the_extra_is_named(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match="needs the extra `onnx`"):
        open_engine(draw())
