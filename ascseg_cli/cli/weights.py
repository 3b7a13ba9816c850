"""`ascseg weights`: the store of weights, from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ascseg_cli.weights.manifest import Entry

app = typer.Typer(
    help="List, fetch, import and verify weights.",
    epilog="Example:  ascseg weights list",
    no_args_is_help=True,
)
Names = Annotated[list[str] | None, typer.Argument(metavar="NAME", help="kvasir-tiny, or a data set's name.")]


@app.command("list")
def list_weights(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")] = False,
) -> None:
    """Show every known weights file: size, where it is, validation score, licence.

    A table on a terminal, tab-separated text in a pipe.

    Example:  ascseg weights list --json
    """
    import json
    import sys

    from ascseg_cli.weights.listing import COLUMNS, known_weights

    rows = known_weights()
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row.facts(), ensure_ascii=False))
    elif sys.stdout.isatty():
        _print_table(COLUMNS, [row.cells() for row in rows])
    else:
        typer.echo("\t".join(COLUMNS))
        for row in rows:
            typer.echo("\t".join(row.cells()))


def _print_table(columns: tuple[str, ...], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column == "size" else "left", no_wrap=column == "name")
    for cells in rows:
        table.add_row(*map(Text, cells))
    Console(highlight=False).print(table)
    typer.echo("* the default of its data set. For research; not a medical device.", err=True)


@app.command()
def fetch(
    names: Names = None,
    every: Annotated[bool, typer.Option("--all", help="Everything that is released.")] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Forbid downloads, as ASCSEG_OFFLINE=1 does.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Download weights into the user's cache, unless they are on this machine already.

    Prints the path of each file.

    Example:  ascseg weights fetch kvasir
    """
    from ascseg_cli.cli.download_progress import DownloadProgress, say
    from ascseg_cli.weights.download import fetch as download

    for entry in _chosen(names, every):
        with DownloadProgress(entry.name, entry.size or 0, quiet=quiet) as progress:
            path = download(entry, offline=offline, progress=progress.update, say=say)
        typer.echo(str(path))


def _chosen(names: list[str] | None, every: bool) -> list[Entry]:
    from ascseg_cli.errors import UsageError
    from ascseg_cli.weights.manifest import load_manifest

    manifest = load_manifest()
    if bool(names) == every:
        raise UsageError("name the weights to fetch, or give --all", "known names: ascseg weights list")
    if names:
        return list({entry.name: entry for entry in map(manifest.find, names)}.values())
    return [entry for entry in manifest.weights if entry.released]


@app.command("import")
def import_checkpoint(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A .pth, .pt or .safetensors file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The weights file to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    dataset: Annotated[str | None, typer.Option("--dataset", help="The data set it was trained on.")] = None,
) -> None:
    """Turn a checkpoint of the original code into a weights file, with the original's preprocessing.

    No pickle is executed. Prints the path of the written file.

    Example:  ascseg weights import tests/golden/reference_c8.safetensors --output reference.safetensors
    """
    from ascseg_cli.cli.download_progress import say
    from ascseg_cli.weights.importing import import_weights

    imported = import_weights(source, output, overwrite=overwrite, dataset=dataset)
    for note in imported.notes:
        say(note)
    shape = ", ".join(map(str, imported.metadata.channels))
    say(f"{imported.metadata.variant} network of channels {shape}; sha256 {imported.sha256}")
    typer.echo(str(imported.path))


@app.command()
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME|FILE", help="Names or files; all on this machine if none."),
    ] = None,
) -> None:
    """Check weights: hash against the manifest, and content. Exits with 4 if any is not as it must be.

    Example:  ascseg weights verify
    """
    from ascseg_cli.errors import GateError
    from ascseg_cli.weights.checking import check_weights

    checks = check_weights(names or [])
    for check in checks:
        typer.echo("\t".join((check.name, "ok" if check.good else "FAILED", check.words)))
    failed = [check.name for check in checks if not check.good]
    if failed:
        raise GateError(f"{len(failed)} of {len(checks)} weights are not as they must be: {', '.join(failed)}")


@app.command()
def path(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="kvasir-tiny, or a data set's name for its default.")
    ],
) -> None:
    """Print the path of a verified weights file, and nothing else.

    Example:  ascseg weights path kvasir
    """
    from ascseg_cli.weights.manifest import load_manifest
    from ascseg_cli.weights.store import locate_entry

    typer.echo(str(locate_entry(load_manifest().find(name))))
