"""`ascseg predict --report`: one HTML page of a finished run, drawn from the images and the masks in its folder.

It is made after the run and from files alone, so that what `--resume` kept looks like what was just done.
"""

from __future__ import annotations

from pathlib import Path

from ascseg_cli.cli import say
from ascseg_cli.cli.prediction import Order, from_scratch
from ascseg_cli.cli.progress import RunProgress
from ascseg_cli.data.decode import read_mask
from ascseg_cli.data.discover import Found, Item
from ascseg_cli.errors import InputError
from ascseg_cli.evaluation.ordered import in_order
from ascseg_cli.inference.destination import Destination
from ascseg_cli.inference.engine import Described
from ascseg_cli.reporting import review
from ascseg_cli.reporting.album import Album
from ascseg_cli.reporting.origin import Origin
from ascseg_cli.reporting.review import Findings


def write(order: Order, found: Found, outputs: Destination, engine: Described, noted: Findings) -> None:
    """Write the page that --report names. Raises OutputError."""
    assert order.report is not None, "asked only where a report is wanted"
    with Album(len(noted.names), max_pixels=order.settings.max_pixels) as album:
        _draw(album, order, found, outputs, set(noted.names))
        settings = {
            "weights": engine.metadata.name,
            "weights_sha256": engine.weights_sha256,
            **order.settings.of_results(),
            "backend": engine.backend,
        }
        origin = Origin(from_scratch(order.arguments), settings)
        review.write(order.report, engine.metadata.name, noted, album, origin)
    if not order.quiet:
        say("note", f"the report is {order.report}")


def _draw(album: Album, order: Order, found: Found, outputs: Destination, wanted: set[str]) -> None:
    items = [item for item in found.items if item.name in wanted]

    def draw(item: Item) -> None:
        try:
            mask = read_mask(outputs.path("masks", item.output_stem), max_pixels=order.settings.max_pixels)
        except InputError:  # taken away while the report is made: its row stays without a picture
            return
        path = item.path
        assert isinstance(path, Path), "looked at before the run"
        album.add(item.name, mask, None, path)

    with RunProgress(len(items), quiet=order.quiet) as progress:
        for _ in in_order(draw, items, order.thread_count):
            progress.advance()
