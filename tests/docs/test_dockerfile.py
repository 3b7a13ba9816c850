"""The Dockerfile brings along everything that the wheel is built from; Docker itself isn't asked for."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

if sys.version_info < (3, 11):
    pytest.skip("Python before 3.11 reads no TOML", allow_module_level=True)
import tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WHEEL = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
NEEDED = {
    "pyproject.toml",
    PROJECT["project"]["readme"],
    *PROJECT["project"]["license-files"],
    *WHEEL["packages"],
    *WHEEL["force-include"],
}


def covered(needed: str, given: list[str]) -> bool:
    """Whether one of the paths is it or a folder around it."""
    return any(Path(needed).is_relative_to(one) for one in given)


@pytest.mark.parametrize("needed", sorted(NEEDED))
def test_what_the_wheel_needs_is_copied_and_not_ignored(needed: str) -> None:
    copies = re.findall(r"^COPY (?!--from)(.+) /src\S*$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.M)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert covered(needed, " ".join(copies).split())
    assert ignored[0] == "*"
    assert covered(needed, [line[1:] for line in ignored if line.startswith("!")])
