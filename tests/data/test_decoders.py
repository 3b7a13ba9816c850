"""Decoder processes: the same pixels as in this process, and a crash, a stall or a kill costs one file at most."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pictures import samples

from ascseg_cli.data import decoders
from ascseg_cli.data.decode import read_pixels
from ascseg_cli.data.decoders import Decoders
from ascseg_cli.errors import AscsegError, InputError

# A decoder that does what its file says.
HOSTILE = """
import sys; sys.path[:] = sys.argv[1:]
import ctypes, os, time
import ascseg_cli.data.decoder_process as here
honest = here.read_pixels
def obey(content, **options):
    match content[:6]:
        case b"CRASH!": ctypes.string_at(0)
        case b"ABORT!": os.abort()
        case b"LEAVE!": os._exit(7)
        case b"STALL!": time.sleep(600)
        case b"MEMORY": raise MemoryError
        case b"BUGBUG": raise KeyError("palette")
        case b"PRINT!": os.write(1, b"chatter"); os.write(2, b"chatter"); content = content[6:]
    return honest(content, **options)
here.read_pixels = obey
here.serve({seconds})
"""


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "PROGRAM", HOSTILE)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def pool(said: list[str]) -> Iterator[Decoders]:
    with Decoders(warn=said.append) as pool:
        yield pool


def answer(read: Callable[[bytes], np.ndarray], content: bytes) -> tuple[object, ...]:
    """What a reader makes of a file, so that two can be compared."""
    try:
        pixels = read(content)
    except InputError as error:
        return "refused", error.message, error.hint
    return pixels.shape, pixels.dtype, pixels.tobytes()


def test_every_format_gives_the_same_pixels_and_refusals(pool: Decoders) -> None:
    kinds = set()
    for name, content in samples().items():
        for data in (content, content[:-9], content[: len(content) // 2], content[:20]):
            want = answer(read_pixels, data)
            assert answer(lambda data: pool.read_pixels(data, name="a"), data) == want, name
            kinds.add(want[0] == "refused")
    assert kinds == {True, False}


def test_limits_and_the_suffix_reach_the_decoder(pool: Decoders) -> None:
    content = samples()["bmp"]
    with pytest.raises(InputError, match="more than the limit of 10"):
        pool.read_pixels(content, name="a", max_pixels=10)
    with pytest.raises(AscsegError, match=r"DICOM|dicom"):
        pool.read_pixels(b"no magic word in it", name="a", by_name=True)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows tells a crash by other codes")
@pytest.mark.parametrize(
    ("content", "how"), [(b"CRASH!", "SIGSEGV"), (b"ABORT!", "SIGABRT"), (b"LEAVE!", "exit code 7")]
)
def test_a_crash_is_named_and_the_decoder_replaced(
    hostile: None, pool: Decoders, said: list[str], content: bytes, how: str
) -> None:
    with pytest.raises(InputError, match=rf"its decoder crashed \({how}\)"):
        pool.read_pixels(content, name="bad.tif")
    assert said == [f"bad.tif: its decoder crashed ({how}) and was replaced; the file is tried once more"]
    assert pool.read_pixels(samples()["bmp"], name="good.bmp").size


def test_a_stall_ends_after_the_limit_and_ends_no_other(hostile: None, said: list[str]) -> None:
    good, shapes = samples()["bmp"], []

    def work() -> None:
        for _ in range(100):
            shapes.append(pool.read_pixels(good, name="good.bmp").shape)
            time.sleep(0.01)

    with Decoders(seconds=4, warn=said.append) as pool:
        pool.read_pixels(good, name="good.bmp")
        beside = threading.Thread(target=work)
        beside.start()
        begin = time.monotonic()
        with pytest.raises(InputError, match="longer than 4 s"):
            pool.read_pixels(b"STALL!", name="slow.tif")
        assert 3.5 <= time.monotonic() - begin < 60
        beside.join()
        assert pool.read_pixels(good, name="good.bmp").size
    assert len(shapes) == 100
    assert said == [], "a file that stalls isn't tried again"


def test_what_ends_one_file_only(hostile: None, pool: Decoders, said: list[str]) -> None:
    with pytest.raises(InputError, match="not enough memory"):
        pool.read_pixels(b"MEMORY", name="a")
    with pytest.raises(RuntimeError, match="KeyError: 'palette'"):
        pool.read_pixels(b"BUGBUG", name="a")
    content = samples()["bmp"]
    np.testing.assert_array_equal(pool.read_pixels(b"PRINT!" + content, name="a"), read_pixels(content))
    assert said == []
    assert len(pool._all) == 1, "none of these costs the process"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_decoder_costs_nothing(pool: Decoders, said: list[str]) -> None:
    content = samples()["bmp"]
    for _ in range(3):
        want = pool.read_pixels(content, name="a.bmp")
        (process,) = pool._all
        os.kill(process._process.pid, signal.SIGKILL)
        np.testing.assert_array_equal(pool.read_pixels(content, name="a.bmp"), want)
    assert len(said) == 3
    assert all("SIGKILL" in line for line in said)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX's signals")
def test_processes_started_ahead_are_those_that_decode() -> None:
    with Decoders() as pool:
        pool.start(2)
        ahead = set(pool._all)
        assert len(ahead) == 2
        pool.read_pixels(samples()["bmp"], name="a")
        assert pool._all == ahead


def test_a_decoder_that_cannot_be_started_is_no_bug(pool: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(decoders.subprocess, "Popen", refused)
    with pytest.raises(AscsegError, match="no decoder can be started: Resource temporarily unavailable") as caught:
        pool.read_pixels(b"", name="a.png")
    assert "--threads" in caught.value.hint


def test_signals_for_the_whole_job_are_the_run_s_affair(pool: Decoders, said: list[str]) -> None:
    content = samples()["bmp"]
    pool.read_pixels(content, name="a.bmp")
    (process,) = pool._all
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(process._process.pid, number)
    pool.read_pixels(content, name="a.bmp")
    assert said == []
    assert os.getsid(process._process.pid) != os.getsid(0), "Ctrl-C on the terminal must not reach it"


def test_every_process_ends_with_the_pool(said: list[str]) -> None:
    with Decoders(warn=said.append) as pool:
        threads = [
            threading.Thread(target=pool.read_pixels, args=(samples()["bmp"],), kwargs={"name": "a"}) for _ in "12"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        processes = [process._process for process in pool._all]
    assert processes
    assert all(process.poll() is not None for process in processes)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_killed_run_leaves_no_decoder_behind(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom ascseg_cli.data.decoders import Decoders\n"
        "pool = Decoders().__enter__()\npool.read_pixels(open(sys.argv[1], 'rb').read(), name='a')\n"
        "print(*[p._process.pid for p in pool._all], flush=True)\ntime.sleep(60)"
    )
    picture = tmp_path / "a.bmp"
    picture.write_bytes(samples()["bmp"])
    run = subprocess.Popen([sys.executable, "-c", script, str(picture)], stdout=subprocess.PIPE)
    assert run.stdout is not None
    with run.stdout:
        (decoder,) = map(int, run.stdout.readline().split())
    assert os.path.exists(f"/proc/{decoder}")
    run.kill()
    run.wait()
    limit = time.monotonic() + 20
    while os.path.exists(f"/proc/{decoder}") and "Z" not in Path(f"/proc/{decoder}/stat").read_text().split():
        assert time.monotonic() < limit, "the decoder outlives its run"
        time.sleep(0.02)


def test_no_module_of_the_current_folder_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of pictures may hold a `numpy.py` too."""
    for name in ("numpy", "json", "struct", "PIL"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(66)", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with Decoders() as pool:
        assert pool.read_pixels(samples()["bmp"], name="a").size
