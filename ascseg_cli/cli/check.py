"""`ascseg check`: what a data set's folder holds and what is wrong with it, before any training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[Path, typer.Argument(metavar="DATA", help="A data set's folder, in an official layout or plain.")]
SplitFile = Annotated[
    Path | None,
    typer.Option("--split-file", metavar="FILE", help="A CSV image,part: train, validation or test."),
]
GroupBy = Annotated[
    str | None,
    typer.Option("--group-by", metavar="HOW", help="What stays in one part: FILE.csv:COLUMN, or '(patient\\d+)'."),
]


def check(
    data: Data,
    split_file: SplitFile = None,
    group_by: GroupBy = None,
    fix: Annotated[
        Path | None, typer.Option("--fix", metavar="DIR", help="Write a clean copy; DATA stays untouched.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The report as one JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say only warnings and errors.")] = False,
) -> None:
    """Look through a data set before training: pairs, masks, sizes, copies, split.

    Exits with 0 if all can be used, 1 if some files can't, 3 if none can.
    With --fix the clean copy is meant.

    Example:  ascseg check examples/practice
    """
    import json

    from ascseg_cli.cli.check_report import print_report, say_cleaned
    from ascseg_cli.cli.progress import RunProgress
    from ascseg_cli.data.cleaning import check_output, clean
    from ascseg_cli.data.layouts import open_dataset
    from ascseg_cli.data.report import look_through
    from ascseg_cli.exit_codes import NOTHING_DONE, OK, SOME_FAILED
    from ascseg_cli.inference.threads import usable_threads

    dataset = open_dataset(data)
    split = dataset.split(split_file=split_file, group_by=group_by)
    if fix is not None:
        check_output(fix, data)
    with RunProgress(len(dataset.pairs), quiet=quiet) as progress:
        report = look_through(
            dataset, split, usable_threads(), lambda facts: progress.advance(failed=not facts.usable)
        )
    if as_json:
        typer.echo(json.dumps(report.facts_json(), ensure_ascii=False))
    else:
        print_report(report)
    done, lost = len(report.usable), len(report.problems)
    if fix is not None:
        with RunProgress(len(report.facts), quiet=quiet) as progress:
            cleaned = clean(report, fix, usable_threads(), progress.advance)
        say_cleaned(cleaned, fix, quiet=quiet)
        done, lost = len(cleaned.written), len(cleaned.left_out) + cleaned.alone
    raise typer.Exit(NOTHING_DONE if not done else SOME_FAILED if lost else OK)
