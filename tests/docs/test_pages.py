"""What README and the other pages promise holds: links, commands, the install line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "docs/cards/*.md")
    for page in ROOT.glob(pattern)
)
INSTALL = "pip install . && ascseg predict examples/polyps --dataset kvasir"
TEST = 'pip install -e ".[test]" && pytest'


@pytest.fixture(scope="module")
def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    for target in targets:
        path, _, anchor = target.partition("#")
        linked = (ROOT / page).parent / path if path else ROOT / page
        assert linked.exists(), f"{page} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_two_commands_install_run_and_test(readme: str) -> None:
    section = readme.partition("## Try it")[2].partition("\n## ")[0]
    assert [line.strip() for line in section.splitlines() if line.startswith("    ")] == [INSTALL, TEST]


def test_ci_runs_the_readme_s_test_command() -> None:
    extract = re.search(
        r"^command=\$\((sed .*README\.md)\)$", (ROOT / ".ci/run").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert extract
    run = subprocess.run(
        ["bash", "-c", extract[1]], cwd=ROOT, capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert run.stdout.strip() == TEST


@pytest.mark.parametrize("page", PAGES)
def test_pages_name_no_package_host(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert not re.search(r"pypi\.org|pythonhosted|download\.pytorch|--index-url", text)


def test_the_examples_in_python_run(readme: str) -> None:
    """The Python of README and docs/api.md, as it stands, in the checkout."""
    api = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    blocks = [block for text in (readme, api) for block in python_blocks(text)]
    assert len(blocks) == 3
    for block in blocks:
        subprocess.run([sys.executable, "-c", block], cwd=ROOT, check=True, capture_output=True)


def python_blocks(text: str) -> list[str]:
    """Indented blocks that begin with an import."""
    blocks = re.findall(r"(?:^(?:    .*)?\n)+", text, re.MULTILINE)
    stripped = ["\n".join(line[4:] for line in block.splitlines()).strip() for block in blocks]
    return [block for block in stripped if block.startswith(("import ", "from "))]


def test_start_up_loads_nothing_heavy() -> None:
    code = (
        "import sys; from ascseg_cli.cli import run; run(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert "ascseg predict" in run.stdout
    heavy = ("torch", "numpy", "numba", "cv2", "PIL", "pydantic", "scipy", "pooch", "requests", "safetensors")
    assert [name for name in heavy if f"'{name}'" in run.stderr] == []
