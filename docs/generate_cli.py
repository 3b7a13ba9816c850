"""Writes docs/cli.md from the command tree, so that the page can't differ from the program.

    python docs/generate_cli.py            writes docs/cli.md
    python docs/generate_cli.py --check    exits with 1 if the page is out of date

The page is built from the commands' own signatures and docstrings, not from rendered help: so it is the same
at any terminal width, without colours, and for any release of the command-line library.
"""

from __future__ import annotations

import enum
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from typer.models import ArgumentInfo, OptionInfo

from ascseg_cli import exit_codes
from ascseg_cli.cli.app import app

PAGE = Path(__file__).resolve().parent / "cli.md"
EXIT_CODES = {
    exit_codes.OK: "all good; empty masks and skipped files too",
    exit_codes.SOME_FAILED: "some inputs failed, the others are done",
    exit_codes.USAGE: "wrong usage",
    exit_codes.NOTHING_DONE: "nothing could be done: no input, no weights, no backend, unreadable data",
    exit_codes.GATE_NOT_MET: "a gate was not met, as in `weights verify`",
    exit_codes.BUG: "a bug in ascseg",
    exit_codes.INTERRUPTED: "interrupted",
}
VALUE_WORDS = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH"}


@dataclass(frozen=True)
class Command:
    """One verb: its words after `ascseg`, and the function behind it."""

    words: tuple[str, ...]
    function: Callable[..., Any]

    @property
    def title(self) -> str:
        return " ".join(("ascseg", *self.words))

    @property
    def help(self) -> str:
        return inspect.getdoc(self.function) or ""

    @property
    def parameters(self) -> list[Parameter]:
        hints = {n: annotated(h) for n, h in typing.get_type_hints(self.function, include_extras=True).items()}
        signature = inspect.signature(self.function)
        found = (
            Parameter.of(name, hints[name], signature.parameters[name].default) for name in signature.parameters
        )
        return [parameter for parameter in found if parameter is not None]


@dataclass(frozen=True)
class Parameter:
    """One argument or option as the user types it."""

    is_option: bool
    spelling: str
    value: str
    default: str
    help: str

    @classmethod
    def of(cls, name: str, hint: Any, default: Any) -> Parameter | None:
        """The parameter that an annotated name stands for; None for the library's own and hidden ones."""
        info = next(
            (e for e in getattr(hint, "__metadata__", ()) if isinstance(e, (OptionInfo, ArgumentInfo))), None
        )
        if info is None or info.hidden:
            return None
        kind = plain_type(typing.get_args(hint)[0])
        is_option = isinstance(info, OptionInfo)
        names = spellings(info) or [spelling_of(name, kind)]
        value = info.metavar or ("" if kind is bool else value_word(kind))
        spelling = ", ".join(names) if is_option else value or name.upper()
        return cls(
            is_option, spelling, value if is_option else "", default_text(default), one_line(info.help or "")
        )


def spellings(info: OptionInfo | ArgumentInfo) -> list[str]:
    """The declared names; inside `Annotated` the first of them is stored as the default."""
    first = [info.default] if isinstance(info.default, str) else []
    return [name for name in (*first, *(info.param_decls or ())) if name.startswith("-")]


def spelling_of(name: str, kind: Any) -> str:
    """The name that an option without declared ones gets."""
    flag = name.replace("_", "-")
    return f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}"


def annotated(hint: Any) -> Any:
    """The `Annotated` part of a hint, around which Python 3.10 puts `Optional` where the default is None."""
    inner = [part for part in typing.get_args(hint) if hasattr(part, "__metadata__")]
    return inner[0] if inner else hint


def plain_type(hint: Any) -> Any:
    """The type of one value: without `| None`, without the list around it."""
    parts = [part for part in typing.get_args(hint) if part is not type(None)]
    if typing.get_origin(hint) in (typing.Union, types.UnionType) and len(parts) == 1:
        return plain_type(parts[0])
    return plain_type(parts[0]) if typing.get_origin(hint) in (list, tuple) else hint


def value_word(kind: Any) -> str:
    """What stands for an option's value: its choices, or a word for its type."""
    if typing.get_origin(kind) is typing.Literal:
        return "|".join(str(choice) for choice in typing.get_args(kind))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "|".join(str(member.value) for member in kind)
    return VALUE_WORDS.get(kind, "TEXT")


def default_text(default: Any) -> str:
    """A default as the user would type it; nothing where there is none to type."""
    if default in (inspect.Parameter.empty, None, False, ...) or default in ([], ()):
        return ""
    return str(default.value if isinstance(default, enum.Enum) else "on" if default is True else default)


def one_line(text: str) -> str:
    return " ".join(text.split())


def commands(tree: typer.Typer = app, words: tuple[str, ...] = ()) -> Iterator[Command]:
    """Every verb of the tree, in the order of `ascseg --help`."""
    for entry in tree.registered_commands:
        assert entry.callback
        yield Command((*words, entry.name or entry.callback.__name__.replace("_", "-")), entry.callback)
    for group in tree.registered_groups:
        assert group.typer_instance
        yield from commands(group.typer_instance, (*words, str(group.name)))


def examples(text: str) -> list[str]:
    """The command lines behind `Example:` in a help text."""
    _, mark, rest = text.partition("Example:")
    lines = (line.strip().removeprefix("Example:").strip() for line in rest.splitlines()) if mark else ()
    return [line for line in lines if "ascseg" in line]


def described(command: Command) -> Iterator[str]:
    """The page's section on one verb."""
    prose, _, _ = command.help.partition("Example:")
    options = [p for p in command.parameters if p.is_option]
    arguments = [p for p in command.parameters if not p.is_option]
    usage = " ".join([command.title, *(["[OPTIONS]"] if options else []), *(p.spelling for p in arguments)])
    yield from (f"## {command.title}", "", f"    {usage}", "", prose.strip(), "")
    for heading, rows in (("argument", arguments), ("option", options)):
        if rows:
            yield from (f"| {heading} | default | |", "|---|---|---|", *map(row, rows), "")
    found = examples(command.help)
    if found:
        yield from ("Example:" if len(found) == 1 else "Examples:", "", *(f"    {line}" for line in found), "")


def row(parameter: Parameter) -> str:
    spelling = f"`{parameter.spelling}{' ' + parameter.value if parameter.value else ''}`"
    default = f"`{parameter.default}`" if parameter.default else ""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in (spelling, default, parameter.help)) + " |"


def page() -> str:
    """The whole page."""
    everything = list(commands())
    assert app.registered_callback
    root = Command((), app.registered_callback.callback)  # type: ignore[arg-type]
    lines = [
        "# Commands",
        "",
        "Written by `docs/generate_cli.py` from the program itself; change the program, not this page.",
        "Data goes to standard output, everything else to standard error.",
        "",
        *(f"- [{c.title}](#{c.title.replace(' ', '-')})" for c in everything),
        "",
        "Options before the command:",
        "",
        "| option | |",
        "|---|---|",
        *(f"| `{p.spelling}` | {p.help} |" for p in root.parameters),
        "",
    ]
    for command in everything:
        lines += described(command)
    lines += ["## Exit codes", "", "The same for every command.", "", "| code | meaning |", "|---|---|"]
    lines += [f"| {code} | {meaning} |" for code, meaning in sorted(EXIT_CODES.items())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        current = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
        if current != page():
            sys.exit("docs/cli.md is out of date; run: python docs/generate_cli.py")
    else:
        PAGE.write_text(page(), encoding="utf-8", newline="\n")
