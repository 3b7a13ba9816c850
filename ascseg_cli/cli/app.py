"""The command tree. Verbs load their libraries when they run, so that help is instant."""

from __future__ import annotations

import inspect
from typing import Annotated

import typer

from ascseg_cli import __version__
from ascseg_cli.cli import check, doctor, evaluate, export, predict, train, weights

app = typer.Typer(
    name="ascseg",
    help="Segment folders of medical images: skin lesions, polyps, breast tumours.\n\n"
    "For research; not a medical device.",
    epilog="Example:  ascseg predict examples/polyps --dataset kvasir",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ascseg {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options before the command; `--debug` is read by `cli.run`, which sees every error."""


app.command("predict", cls=predict.Command)(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.command("check")(check.check)
app.command("train")(train.train)
app.command("export")(export.export)
app.add_typer(weights.app, name="weights")
app.command("doctor")(doctor.doctor)


def _put_examples_last(tree: typer.Typer) -> None:
    """Move the example of each docstring behind the options, where a reader of help ends."""
    for command in tree.registered_commands:
        prose, mark, example = (inspect.getdoc(command.callback) or "").partition("Example:")
        command.help, command.epilog = prose.strip(), mark + example
    for group in tree.registered_groups:
        if group.typer_instance:
            _put_examples_last(group.typer_instance)


_put_examples_last(app)
