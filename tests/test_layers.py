"""The architecture: imports go one way, and what must start fast never loads torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ascseg_cli

PACKAGE = Path(ascseg_cli.__file__).parent
MAY_IMPORT = {
    "errors": set(),
    "exit_codes": set(),
    "whole_file": {"errors"},
    "kernels": {"errors"},
    "network": {"kernels", "whole_file", "errors"},
    "graphs": {"network", "errors"},
    "weights": {"network", "errors"},
    "data": {"kernels", "errors"},
    "evaluation": {"data", "kernels", "whole_file", "errors"},
    "printable": set(),
    "versions": set(),
    "reporting": {"evaluation", "data", "printable", "versions", "whole_file", "errors"},
    "inference": {"weights", "graphs", "network", "kernels", "data", "versions", "errors"},
    "training": {"weights", "network", "kernels", "data", "whole_file", "errors"},
    "cluster": {"inference", "network", "data", "errors", "__version__"},
    "exporting": {"inference", "graphs", "network", "data", "whole_file", "errors"},
    "cli": {
        "cluster",
        "exporting",
        "graphs",
        "reporting",
        "printable",
        "inference",
        "evaluation",
        "training",
        "weights",
        "network",
        "kernels",
        "data",
        "errors",
        "exit_codes",
    },
    "__main__": {"cli"},
    "__init__": {"inference"},
}


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Every part of the package that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
            if node.module == "ascseg_cli":
                names = [f"ascseg_cli.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("ascseg_cli."):
                yield name.split(".")[1]


def test_imports_go_one_way() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 30
    back = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in files
        for name in imported(path)
        if name not in MAY_IMPORT[layer(path)] | {layer(path), "__version__"}
    ]
    assert back == []


def test_errors_import_nothing_of_ours() -> None:
    assert list(imported(PACKAGE / "errors.py")) == []


@pytest.mark.parametrize(
    "module",
    [
        "cli.app",
        "cli.check",
        "cli.prediction",
        "data.decode",
        "data.discover",
        "data.report",
        "evaluation",
        "exporting.trial",
        "graphs.to_onnx.file",
        "reporting.review",
        "weights.store",
        "inference.engine",
        "inference.onnx_choice",
        "inference.onnx_engine",
        "inference.segmenter",
        "network.checkpoint",
        "network.exported",
        "network.metadata",
    ],
)
def test_loading_without_torch(module: str) -> None:
    code = f"import sys, ascseg_cli.{module}; print([m for m in ('torch', 'numba') if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert run.stdout.strip() == "[]"
