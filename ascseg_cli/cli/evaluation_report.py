"""`ascseg evaluate --report`: one HTML page of everything that was found, with the images behind it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ascseg_cli.cli import say
from ascseg_cli.cli.evaluation import Order
from ascseg_cli.evaluation.evaluation import Evaluation
from ascseg_cli.reporting import scores
from ascseg_cli.reporting.album import Album
from ascseg_cli.reporting.origin import Origin


def write(whole: Evaluation, order: Order, album: Album) -> None:
    """Write the page that --report names. Raises OutputError."""
    assert order.report is not None, "an album is made only where a report is wanted"
    settings = {
        **whole.settings,
        "unit": whole.ruler.unit,
        **asdict(whole.ruler),
        "interval": asdict(whole.plan),
        "group": order.group,
        "compare": order.compare and str(order.compare),
    }
    scores.write(order.report, _title(whole), whole, album, Origin(order.arguments, settings))
    if album.unreadable:
        say("note", f"photographs damaged or of another shape: {album.unreadable:,}; the report shows masks alone")
    if not order.quiet:
        say("note", f"the report is {order.report}")


def _title(whole: Evaluation) -> str:
    told = whole.settings
    if "weights" not in told:
        return f"Scores of {Path(told['pred']).name} against {Path(told['truth']).name}"
    part = "" if told["part"] == "all" else f", part {told['part']}"
    return f"Scores of {told['weights']} on {Path(told['data']).name}{part}"
