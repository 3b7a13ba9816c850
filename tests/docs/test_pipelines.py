"""The examples of docs/pipelines.md run as they stand, by a shell, with the tools that they name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/pipelines.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
TOOLS = ("jq", "awk", "parallel", "xargs", "make", "snakemake")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as the page supposes it: `photos/` with two folders of images, and the examples."""
    for name, group in (("polyp_1.jpg", "a"), ("polyp_2.jpg", "a"), ("polyp_3.jpg", "b")):
        (tmp_path / "photos" / group).mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "examples/polyps" / name, tmp_path / "photos" / group / name)
    shutil.copy(ROOT / "examples/polyps/polyp_1.jpg", tmp_path / "photos/b/the last one.jpg")
    shutil.copytree(ROOT / "examples/pipelines", tmp_path / "examples/pipelines")
    command = tmp_path / "bin/ascseg"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ascseg_cli "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    return tmp_path


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the compiled kernels are kept from one example to the next."""
    return tmp_path_factory.mktemp("kernels")


def run(block: str, folder: Path, kernels: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "ASCSEG_OFFLINE": "1",
        "HOME": str(folder),
        "ASCSEG_HOME": str(kernels),
    }
    return subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", block],
        cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=120,
    )  # fmt: skip


def test_every_tool_has_its_example() -> None:
    assert all(any(re.search(rf"\b{tool} ", block) for block in BLOCKS) for tool in TOOLS)


@pytest.mark.skipif(os.name != "posix" or shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize("block", BLOCKS, ids=[f"example{n}" for n in range(1, 1 + len(BLOCKS))])
def test_the_example_runs(block: str, folder: Path, kernels: Path) -> None:
    lacking = [tool for tool in TOOLS if re.search(rf"\b{tool} ", block) and shutil.which(tool) is None]
    if lacking:
        pytest.skip(f"not installed: {', '.join(lacking)}")
    done = run(block, folder, kernels)
    assert done.returncode == 0, done.stderr
    if "@tsv" in block:
        names = [line.split("\t")[0] for line in done.stdout.splitlines()]
        assert names == ["polyp_1.jpg", "polyp_2.jpg", "polyp_3.jpg", "the last one.jpg"]
    if "> mask.png" in block:
        assert (folder / "mask.png").read_bytes().startswith(b"\x89PNG")
    else:
        masks = [path for path in folder.glob("out/**/masks/**/*.png")]
        assert len(masks) == 4


@pytest.mark.skipif(os.name != "posix" or shutil.which("bash") is None, reason="there is no bash")
def test_names_in_a_pipe_are_taken_literally(folder: Path, kernels: Path) -> None:
    names = ["[1].jpg", "*.jpg", "two\nlines.jpg", "-x.jpg", " .jpg"]
    (folder / "odd").mkdir()
    for name in names:
        shutil.copy(ROOT / "examples/polyps/polyp_1.jpg", folder / "odd" / name)
    block = (
        "find odd -name '*.jpg' -print0 | ascseg predict --files-from - -0 -d kvasir -o out --save masks --json "
        '| grep -c \'"status":"ok"\''
    )
    done = run(block, folder, kernels)
    assert (done.returncode, done.stdout.strip()) == (0, "5"), done.stderr
    assert {path.name for path in (folder / "out/masks").iterdir()} == {f"{Path(n).stem}.png" for n in names}
