"""The exact versions that CI runs with: `.ci/constraints.txt`, everything that the tests and the build need.

    python .ci/lock.py           writes it from its environment: one with ascseg[test], build, hatchling
    python .ci/lock.py --check   fails where the environment it runs in has anything else

No hashes: CI's torch may be a build for the CPU or for CUDA, and both are the same version.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

FILE = Path(__file__).with_name("constraints.txt")
ROOTS = ("ascseg[test]", "build", "hatchling")
HEAD = "# What CI runs with; written by .ci/lock.py, read by pip through PIP_CONSTRAINT.\n"


def needed(wanted: Requirement, seen: dict[tuple[str, str], str]) -> Iterator[tuple[str, str]]:
    """Name and version of a requirement and of all that it needs, as installed; what isn't, isn't given."""
    name = canonicalize_name(wanted.name)
    for extra in ("", *sorted(wanted.extras)):
        if (name, extra) in seen:
            continue
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            return
        seen[name, extra] = str(Version(found.version).public)
        yield name, seen[name, extra]
        for inner in map(Requirement, found.requires or []):
            if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                yield from needed(inner, seen)


def versions() -> dict[str, str]:
    seen: dict[tuple[str, str], str] = {}
    found = {name: version for root in ROOTS for name, version in needed(Requirement(root), seen)}
    return {name: found[name] for name in sorted(found) if name != "ascseg"}


def read() -> dict[str, str]:
    lines = FILE.read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def main() -> None:
    here = versions()
    if sys.argv[1:] != ["--check"]:
        FILE.write_text(HEAD + "".join(f"{name}=={version}\n" for name, version in here.items()), encoding="utf-8")
        return
    pinned = read()
    wrong = [
        f"{name} {version}, pinned {pinned.get(name, 'nowhere')}"
        for name, version in here.items()
        if pinned.get(name) != version
    ]
    if wrong:
        sys.exit("not as in .ci/constraints.txt (python .ci/lock.py writes it anew): " + "; ".join(wrong))


if __name__ == "__main__":
    main()
