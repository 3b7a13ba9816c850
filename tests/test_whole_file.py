"""Files that users name by themselves: whole or not at all, and never instead of what is no file."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from ascseg_cli.errors import OutputError
from ascseg_cli.whole_file import whole_file, write_whole


def test_a_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "target.csv").write_bytes(b"before")
    link = tmp_path / "latest.csv"
    link.symlink_to("target.csv")
    write_whole(link, b"after")
    assert link.is_symlink()
    assert (tmp_path / "target.csv").read_bytes() == b"after"
    assert sorted(os.listdir(tmp_path)) == ["latest.csv", "target.csv"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.timeout(10)
def test_a_pipe_is_written_into_and_stays(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text(encoding="utf-8")), daemon=True)
    reader.start()
    with whole_file(pipe, "w", encoding="utf-8") as file:
        file.write("a row")
    reader.join()
    assert read == ["a row"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_device_is_written_into_and_stays() -> None:
    with pytest.raises(OutputError, match="No space left on device"):
        write_whole(Path("/dev/full"), b"a row")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="folder can't be written"):
        write_whole(tmp_path / "folder", b"")
    assert os.listdir(tmp_path) == ["folder"]
