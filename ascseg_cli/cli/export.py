"""`ascseg export`: weights as one file for another runtime, proved to give the same masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from ascseg_cli.cli import export_options, options

if TYPE_CHECKING:
    from ascseg_cli.exporting.comparison import Verdict


def export(
    dataset: options.Dataset = None,
    weights: export_options.Weights = None,
    variant: options.Variant = None,
    kind: export_options.Format = "onnx",
    output: export_options.Output = None,
    images: export_options.Images = None,
    opset: export_options.Opset = None,
    precision: export_options.Precision = "float32",
    static: export_options.Static = None,
    core_only: export_options.CoreOnly = False,
    overwrite: export_options.Overwrite = False,
    as_json: export_options.AsJson = False,
    quiet: export_options.Quiet = False,
) -> None:
    """Write weights as one file that ONNX Runtime or torch.export runs, from pixels to mask.

    The file is run in a fresh process and compared with predict on images. It is
    written, with a card beside it, only if its results are the same. Prints its path.

    Example:  ascseg export --dataset kvasir --overwrite
    """
    import json

    from ascseg_cli.cli import say
    from ascseg_cli.cli.predict import weights_file
    from ascseg_cli.exporting.export import check_format, export
    from ascseg_cli.graphs.form import form_of

    check_format(kind)
    form = form_of(kind, opset, precision, export_options.parse_static(static), core_only)
    file = weights_file(dataset, weights, variant)

    def note(text: str) -> None:
        say("note", text)

    done = export(file, kind, form, output=output, images=images, overwrite=overwrite, note=note)
    if not quiet:
        _print_table(done.verdict)
    typer.echo(json.dumps(done.facts(), ensure_ascii=False) if as_json else str(done.path))


def _print_table(verdict: Verdict) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    head, *rows = verdict.table()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(head):
        table.add_column(column, justify="right" if i else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(stderr=True, highlight=False).print(table)
    share = verdict.total.changed / verdict.total.pixels
    words = (
        f"{verdict.runtime} beside predict: at most {verdict.total.largest:.1e} apart, {share:.4%} of mask pixels"
    )
    typer.echo(f"compared: {words}", err=True)
