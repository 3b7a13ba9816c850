"""`ascseg doctor`: what this machine can do, and what to do about the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ascseg_cli.inference.diagnosis import Check


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a check on stdout.")] = False,
) -> None:
    """Say what this machine can do: backends, devices, cache, weights, versions, and a check of the kernels.

    Exits with 3 if predict can't work here, else 0.

    Example:  ascseg doctor
    """
    import json
    from dataclasses import asdict

    from ascseg_cli import exit_codes
    from ascseg_cli.inference.diagnosis import diagnose

    broken = False
    for check in diagnose():
        broken |= check.state == "broken"
        if as_json:
            typer.echo(json.dumps(asdict(check), ensure_ascii=False))
        else:
            _print(check)
    if broken:
        raise typer.Exit(exit_codes.NOTHING_DONE)


def _print(check: Check) -> None:
    """One check, its words in a column that a terminal wraps and a pipe keeps on one line."""
    import sys
    import textwrap

    from rich.console import Console
    from rich.text import Text

    mark, colour = {"ok": ("ok", "green"), "missing": ("--", "yellow"), "broken": ("NO", "red")}[check.state]
    console = Console(highlight=False, soft_wrap=True)
    width = max(40, console.width - 23) if sys.stdout.isatty() else 10_000
    words = textwrap.wrap(check.detail, width) + (
        textwrap.wrap(f"→ {check.remedy}", width) if check.remedy else []
    )
    console.print(Text.assemble((f"{mark:3}", colour), f"{check.name:19} {words[0]}"))
    for more in words[1:]:
        console.print(Text(f"{'':23}{more}", "dim" if more.startswith("→") else ""))
