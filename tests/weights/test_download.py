"""Downloads against a real server that fails in every way we know: the file comes whole, or not at all."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mirrors import (
    Answer,
    Mirror,
    broken_http,
    cut_after,
    drip,
    forgetful,
    html_page,
    redirect_to,
    silence,
    status,
    too_much,
    whole,
    without_range,
    wrong_bytes,
    wrong_length,
)

from ascseg_cli.errors import DownloadError, WeightsError
from ascseg_cli.weights import store
from ascseg_cli.weights.download import fetch
from ascseg_cli.weights.manifest import Entry
from ascseg_cli.weights.transfer import Limits

Make = Callable[..., Entry]
Start = Callable[..., Mirror]
HASTY = Limits(timeout=0.5, slow_window=0.4, slow_rate=10_000, attempts=2, pause=0.01)


def left(entry: Entry) -> list[str]:
    """What lies in the store, without the lock."""
    return sorted(path.name for path in store.weights_folder().glob("*") if path.name != ".lock")


def name_of(entry: Entry) -> str:
    return store.cached_path(entry).name


def test_a_good_mirror_delivers_once(entry_for: Make, mirror: Start, weights_file: Path) -> None:
    server = mirror(whole)
    entry = entry_for(server.url)
    told: list[int] = []
    path = fetch(entry, progress=told.append, limits=HASTY)
    assert path.read_bytes() == weights_file.read_bytes()
    assert left(entry) == [name_of(entry)]
    assert told[0] == 0
    assert told[-1] == entry.size
    assert fetch(entry) == path == store.locate_entry(entry)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (wrong_bytes, r"sends wrong bytes \(sha256 [0-9a-f]{12}…, not [0-9a-f]{12}…\)"),
        (wrong_length, "sends 1000 bytes where"),
        (too_much, "sends more than the"),
        (html_page, "sends an HTML page"),
        (status(404), "answers HTTP 404 Not Found"),
        (status(403), "answers HTTP 403"),
        (status(500), "answers HTTP 500"),
        (status(204), "answers HTTP 204"),
        (redirect_to("/again"), "redirects in a circle"),
        (redirect_to("file:///etc/hostname"), "is not allowed"),
        (redirect_to("ftp://127.0.0.1/x"), "redirects to a ftp: address"),
        (drip, "sends only .* bytes a second"),
        (silence, "doesn't answer within 0.5 s"),
        (broken_http, "answers with broken HTTP"),
        (cut_after(0), "closed the connection after 0 of"),
    ],
)
def test_a_bad_mirror_is_named_and_the_next_one_used(
    answer: Answer, words: str, entry_for: Make, mirror: Start, weights_file: Path
) -> None:
    bad, good = mirror(answer), mirror(whole)
    said: list[str] = []
    path = fetch(entry_for(bad.url, good.url), say=said.append, limits=HASTY)
    assert path.read_bytes() == weights_file.read_bytes()
    assert len(said) == 1
    path.unlink()
    with pytest.raises(DownloadError, match=words) as caught:
        fetch(entry_for(bad.url), limits=HASTY)
    assert caught.value.message.count("127.0.0.1") == 1
    assert "\n" not in caught.value.message
    assert not path.exists()


@pytest.mark.parametrize("answer", [wrong_bytes, wrong_length, too_much, html_page, status(404), cut_after(0)])
def test_nothing_is_left_of_a_file_that_can_not_be_right(answer: Answer, entry_for: Make, mirror: Start) -> None:
    entry = entry_for(mirror(answer).url)
    with pytest.raises(DownloadError):
        fetch(entry, limits=HASTY)
    assert left(entry) == []


def test_a_closed_connection_is_resumed_where_it_broke(entry_for: Make, mirror: Start, weights_file: Path) -> None:
    server = mirror(cut_after(200_000), cut_after(300_000), whole)
    path = fetch(entry_for(server.url), limits=HASTY)
    assert path.read_bytes() == weights_file.read_bytes()
    assert server.ranges == [None, "bytes=200000-", "bytes=500000-"]


def test_the_next_mirror_goes_on_where_the_first_broke(entry_for: Make, mirror: Start, weights_file: Path) -> None:
    first, second = mirror(cut_after(200_000), status(404)), mirror(whole)
    path = fetch(entry_for(first.url, second.url), limits=HASTY)
    assert path.read_bytes() == weights_file.read_bytes()
    assert second.ranges == ["bytes=200000-"]


@pytest.mark.parametrize("second", [without_range, status(416)])
def test_a_mirror_that_can_not_resume_starts_anew(
    second: Answer, entry_for: Make, mirror: Start, weights_file: Path
) -> None:
    server = mirror(cut_after(200_000), second, whole)
    path = fetch(entry_for(server.url), limits=HASTY)
    assert path.read_bytes() == weights_file.read_bytes()
    assert server.ranges[1] == "bytes=200000-"


def test_bytes_of_a_bad_mirror_do_not_spoil_a_good_one(entry_for: Make, mirror: Start, weights_file: Path) -> None:
    spoiled = weights_file.read_bytes()[::-1]
    bad, good = mirror(cut_after(100_000), status(404), content=spoiled), mirror(whole)
    path = fetch(entry_for(bad.url, good.url), limits=HASTY)
    assert path.read_bytes() == weights_file.read_bytes()
    assert good.ranges == ["bytes=100000-", None]


def test_a_mirror_that_flaps_for_ever_is_given_up(entry_for: Make, mirror: Start) -> None:
    server = mirror(*[forgetful(100_000), forgetful(200_000)] * 50)
    with pytest.raises(DownloadError, match="closed the connection after 200,000 of"):
        fetch(entry_for(server.url), limits=HASTY)
    assert len(server.requests) == 4


def test_a_damaged_file_is_reported_and_replaced(entry_for: Make, mirror: Start) -> None:
    entry = entry_for(mirror(whole).url)
    path = fetch(entry, limits=HASTY)
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(WeightsError, match="is damaged: its sha256 is") as caught:
        store.locate_entry(entry)
    assert caught.value.hint == "run: ascseg weights fetch kvasir-tiny, which replaces it"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="is damaged: it has 1,000 bytes"):
        store.locate_entry(entry)
    assert store.is_whole(fetch(entry, limits=HASTY), entry)


def test_without_network_or_mirrors_the_way_out_is_said(entry_for: Make) -> None:
    with pytest.raises(DownloadError, match=r"can't be reached \(Connection refused\)") as caught:
        fetch(entry_for("http://127.0.0.1:9/x"), limits=HASTY)
    assert "put kvasir-tiny-test.safetensors at" in caught.value.hint
    with pytest.raises(DownloadError, match="its name can't be resolved"):
        fetch(entry_for("http://nowhere.invalid/x"), limits=HASTY)
    with pytest.raises(WeightsError, match="the manifest names no URL"):
        fetch(entry_for())


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_offline_mode_asks_no_server(
    how: str, entry_for: Make, mirror: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = mirror(whole)
    if how == "environment":
        monkeypatch.setenv("ASCSEG_OFFLINE", "1")
    with pytest.raises(DownloadError, match="offline mode forbids the download"):
        fetch(entry_for(server.url), offline=how == "argument")
    assert server.requests == []
    monkeypatch.setenv("ASCSEG_OFFLINE", "0")
    path = fetch(entry_for(server.url), limits=HASTY)
    monkeypatch.setenv("ASCSEG_OFFLINE", "1")
    assert fetch(entry_for(server.url)) == path


def test_a_proxy_is_used(entry_for: Make, mirror: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = entry_for("http://mirror.invalid/kvasir-tiny.safetensors")
    proxy = mirror(whole)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", proxy.url.rpartition("/")[0])
    assert store.is_whole(fetch(entry, limits=HASTY), entry)
    assert proxy.requests == [("http://mirror.invalid/kvasir-tiny.safetensors", None)]


def test_a_store_that_can_not_be_written_is_one_line(
    entry_for: Make, mirror: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entry_for(mirror(whole).url)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ASCSEG_HOME", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=r"the weights folder .* can't be written: Not a directory") as caught:
        fetch(entry)
    assert "ASCSEG_HOME" in caught.value.hint


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root, and Windows' owner, may write anywhere")
def test_a_read_only_store_is_one_line(entry_for: Make, mirror: Start) -> None:
    entry = entry_for(mirror(whole).url)
    store.weights_folder().mkdir(parents=True)
    store.weights_folder().chmod(0o500)
    with pytest.raises(WeightsError, match="can't be written: Permission denied"):
        fetch(entry)


SCRIPT = """
import sys
from pathlib import Path
from ascseg_cli.errors import WeightsError
from ascseg_cli.weights.download import fetch
from ascseg_cli.weights.manifest import Entry
limit, entry = int(sys.argv[1]), Entry.model_validate_json(sys.argv[2])
if limit:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    print(fetch(entry, say=lambda text: print(text, file=sys.stderr)))
except WeightsError as error:
    print("error:", error.message)
"""


def in_process(entry: Entry, limit: int = 0) -> subprocess.Popen[str]:
    text = entry.model_dump_json()
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(limit), text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on file sizes to stand in for a full disk")
def test_a_full_disk_is_one_line_and_leaves_nothing(entry_for: Make, mirror: Start) -> None:
    """The kernel refuses bytes beyond RLIMIT_FSIZE, as a full disk does (EFBIG in ENOSPC's place)."""
    entry = entry_for(mirror(whole).url)
    out, err = in_process(entry, limit=300_000).communicate(timeout=60)
    assert out.startswith("error:")
    assert "can't be written: File too large" in out
    assert err == ""
    assert left(entry) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 KB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_truly_full_disk_is_one_line_too(
    small_disk: Path, entry_for: Make, mirror: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entry_for(mirror(whole).url)
    monkeypatch.setenv("ASCSEG_HOME", str(small_disk))
    with pytest.raises(DownloadError, match=r"can't be written: No space left on device; 1,0.* bytes are needed"):
        fetch(entry)
    assert left(entry) == []


def test_two_processes_download_once(entry_for: Make, mirror: Start, weights_file: Path) -> None:
    def slowly(handler: object, content: bytes) -> None:
        time.sleep(1)
        whole(handler, content)  # type: ignore[arg-type]

    server = mirror(slowly)
    entry = entry_for(server.url)
    both = [in_process(entry) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [out.strip() for out, _ in outputs] == [str(store.cached_path(entry))] * 2
    assert store.cached_path(entry).read_bytes() == weights_file.read_bytes()
    assert len(server.requests) == 1
    assert sum("waiting for it" in err for _, err in outputs) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_killed_download_is_resumed(entry_for: Make, mirror: Start, weights_file: Path) -> None:
    def stall(handler: object, content: bytes) -> None:
        cut_after(400_000)(handler, content)  # type: ignore[arg-type]
        handler.wfile.flush()  # type: ignore[attr-defined]
        time.sleep(20)

    server = mirror(stall, whole)
    entry = entry_for(server.url)
    process = in_process(entry)
    part = store.cached_path(entry).with_name(f"{name_of(entry)}.part")
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size >= 300_000):
        assert time.monotonic() < deadline, process.poll()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not store.cached_path(entry).exists()
    assert fetch(entry, limits=HASTY).read_bytes() == weights_file.read_bytes()
    assert server.ranges[1] is not None
    assert left(entry) == [name_of(entry)]
