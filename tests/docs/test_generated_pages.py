"""Pages that are made from the code say what the code says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from ascseg_cli import exit_codes
from ascseg_cli.weights.manifest import read_manifest

Load = Callable[[str], ModuleType]


def test_the_page_of_commands_is_the_program_s(root: Path, script: Load) -> None:
    page = (root / "docs/cli.md").read_text(encoding="utf-8")
    assert page == script("docs/generate_cli.py").page(), "run: python docs/generate_cli.py"


def test_the_page_of_commands_agrees_with_help(root: Path, script: Load) -> None:
    """An independent look: every option that help prints stands in the page's section, and no other."""
    import re

    commands = list(script("docs/generate_cli.py").commands())
    assert len(commands) >= 7
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    page = (root / "docs/cli.md").read_text(encoding="utf-8")
    for command in commands:
        run = subprocess.run(
            [sys.executable, "-m", "ascseg_cli", *command.words, "--help"],
            capture_output=True, text=True, encoding="utf-8", check=True, cwd=root, env=environment,
        )  # fmt: skip
        section = page.partition(f"## {command.title}\n")[2].partition("\n## ")[0]
        table = "\n".join(line for line in section.splitlines() if line.startswith("| `-"))
        option = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
        helped = {name for line in run.stdout.splitlines() for name in option.findall(line[:60]) if "│" in line}
        assert set(option.findall(table)) == helped - {"--help"}, command.title


def test_every_exit_code_is_explained(script: Load) -> None:
    codes = {value for name, value in vars(exit_codes).items() if name.isupper()}
    assert set(script("docs/generate_cli.py").EXIT_CODES) == codes


def test_the_contributors_tree_lists_the_package(root: Path, script: Load) -> None:
    page = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert page == script("docs/generate_tree.py").page(page), "run: python docs/generate_tree.py"
    package = root / "ascseg_cli"
    files = {p for pattern in ("*.py", "*/*.py") for p in package.glob(pattern) if p.name != "__init__.py"}
    tree = page.partition("```text\n")[2].partition("```")[0]
    listed = [line.split()[0] for line in tree.splitlines() if line.split()[0].endswith(".py")]
    assert sorted(listed) == sorted(path.name for path in files)


def test_cards_and_scores_are_the_weights_own(root: Path, script: Load) -> None:
    generator = script("docs/generate_cards.py")
    manifest = read_manifest(root / "weights_manifest.toml")
    page = (root / "README.md").read_text(encoding="utf-8")
    assert page == generator.readme(page, manifest), "run: python docs/generate_cards.py"
    kept = {path.name: path.read_text(encoding="utf-8") for path in (root / "docs/cards").glob("*.md")}
    assert kept == generator.cards(manifest), "run: python docs/generate_cards.py"
