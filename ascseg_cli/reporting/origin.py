"""How a report came about: the exact command, what it depends on, what made it, and when."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ascseg_cli.reporting import markup
from ascseg_cli.reporting.words import NOTICE, shown
from ascseg_cli.versions import versions

_LIBRARIES = ("numpy", "opencv-python-headless", "pillow", "numba")


def _engines() -> list[str]:
    """What ran the network in this process, if anything did."""
    return [name for name in ("torch", "onnxruntime") if name in sys.modules]


@dataclass(frozen=True)
class Origin:
    """Where a report comes from.

    arguments  the command line as it was typed, without the program's name
    settings   what the figures depend on, by name
    """

    arguments: Sequence[str]
    settings: dict[str, Any]

    def header(self, title: str, lead: str) -> str:
        """The top of the page; the one place that tells the time."""
        now = datetime.now(timezone.utc)
        when = f'<time datetime="{now.isoformat(timespec="seconds")}">{now:%Y-%m-%d %H:%M} UTC</time>'
        version = shown(versions(())["ascseg"])
        return (
            f"<header>\n<h1>{shown(title)}</h1>\n{markup.paragraph(lead, 'lead')}\n"
            f'<p class="made">Made by ascseg {version} on {when}. {NOTICE}</p>\n</header>\n'
        )

    def section(self) -> str:
        """The bottom of the page."""
        command = shlex.join(["ascseg", *self.arguments])
        return markup.section(
            "origin",
            "How this came about",
            markup.paragraph("The exact command:"),
            f'<pre tabindex="0">{shown(command)}</pre>',
            markup.facts(_plain(self.settings)),
            markup.paragraph(
                "Versions: "
                + ", ".join(f"{k} {v}" for k, v in versions((*_LIBRARIES, *_engines())).items())
                + ". Every figure is defined in docs/metrics.md of that release."
            ),
            markup.paragraph("This file holds pictures of the images: pass it on only as you may pass on those."),
        )


def _plain(settings: dict[str, Any]) -> Iterable[tuple[str, object]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key.replace('_', ' ')} {inner}" for key, inner in value.items())
        words = {True: "yes", False: "no", None: "none"}
        yield name.replace("_", " "), words[value] if isinstance(value, bool) or value is None else value
