"""What is installed here: so that a result says what made it."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable

from ascseg_cli import __version__


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """The versions of ascseg, Python and those of the libraries that are installed, without loading any."""
    found = {"ascseg": __version__, "python": platform.python_version()}
    for name in libraries:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
