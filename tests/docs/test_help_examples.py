"""Every command's help ends in an example, and the example runs as it stands."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ascseg_cli.cli import weights

ROOT = Path(__file__).resolve().parents[2]


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_cli_for_examples", ROOT / "docs/generate_cli.py")
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = load_generator()
COMMANDS = {command.title: command for command in GENERATOR.commands()}
EXAMPLES = {title: GENERATOR.examples(command.help) for title, command in COMMANDS.items()}
EXAMPLES["ascseg"] = GENERATOR.examples(GENERATOR.app.info.epilog)
EXAMPLES["ascseg weights"] = GENERATOR.examples(weights.app.info.epilog)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the examples name, as in a checkout."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("*_ascseg", "onnx_*"))
    shutil.copytree(ROOT / "tests/golden", folder / "tests/golden")
    return folder


@pytest.mark.parametrize("title", EXAMPLES)
def test_every_help_ends_in_its_example(title: str) -> None:
    arguments = [sys.executable, "-m", "ascseg_cli", *title.split()[1:], "--help"]
    environment = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb"}
    run = subprocess.run(arguments, capture_output=True, text=True, encoding="utf-8", cwd=ROOT, env=environment)
    assert EXAMPLES[title]
    assert run.stdout.rstrip().endswith(f"Example:  {EXAMPLES[title][-1]}")
    assert EXAMPLES[title][-1].startswith(title)


@pytest.mark.parametrize("example", sorted({example for found in EXAMPLES.values() for example in found}))
def test_every_example_runs(example: str, copy: Path, tmp_path: Path) -> None:
    """Offline, with an empty cache, in a copy of the checkout, by a shell."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ASCSEG_HOME": str(tmp_path), "ASCSEG_OFFLINE": "1"}
    for written in copy.glob("examples/*_ascseg"):
        shutil.rmtree(written)
    command = example.replace("ascseg ", f"{shlex.quote(sys.executable)} -m ascseg_cli ", 1)
    run = subprocess.run(
        command, shell=True, cwd=copy, env=environment, capture_output=True, stdin=subprocess.DEVNULL, timeout=120
    )
    assert run.returncode == 0, run.stderr.decode("utf-8", "replace")
