"""`ascseg predict -`: one image from stdin, its mask as PNG on stdout, and nothing else there."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from ascseg_cli import exit_codes
from ascseg_cli.cli import say
from ascseg_cli.cli.prediction import Order, open_named_engine, segment, write_out
from ascseg_cli.data.decoders import Decoders
from ascseg_cli.data.discover import Found, Item
from ascseg_cli.errors import InputError, OutputError, UsageError
from ascseg_cli.inference import claim
from ascseg_cli.inference.destination import destination
from ascseg_cli.inference.likeness import Likeness
from ascseg_cli.inference.outputs import mask_png
from ascseg_cli.inference.segmenter import Segmenter

NAME = "stdin"


def filter_image(order: Order) -> int:
    """Read stdin, write the mask to stdout; with --output the usual files too. Returns the exit code.

    Raises InputError, UsageError, WeightsError, BackendError.
    """
    if sys.stdout is None:
        raise UsageError("the mask goes to stdout, which is closed", "redirect it: … > mask.png")
    if sys.stdout.isatty():
        raise UsageError("the mask goes to stdout, which is a terminal", "redirect it: … > mask.png")
    if "masks" not in order.settings.save:
        raise UsageError("- writes the mask to stdout, so --save must name masks too")
    if order.output is not None:
        return _into_folder(order)
    content = _read(order)
    try:
        with Decoders() as decoders:
            pixels = decoders.read_pixels(content, name=NAME, max_pixels=order.settings.max_pixels)
    except InputError as error:
        raise InputError(f"{NAME}: {error.message}", error.hint) from error
    engine = open_named_engine(order)
    likeness = Likeness(engine.metadata, 1)
    likeness.see(0, pixels)
    if warning := likeness.warning():
        say("warning", warning)
    settings = order.settings
    segmenter = Segmenter(engine, threshold=settings.threshold, tta=settings.tta, cleaning=settings.cleaning)
    return _put(mask_png(segmenter(pixels).mask))


def _into_folder(order: Order) -> int:
    outputs = destination(order.place)
    claim.check(outputs, order.mode)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / NAME
        path.write_bytes(_read(order))
        code = segment(Found((Item(str(path), NAME, NAME),)), open_named_engine(order), order)
    mask = outputs.read(outputs.path("masks", NAME)) if code == exit_codes.OK else None
    return code if mask is None else _put(mask)


def _read(order: Order) -> bytes:
    most = 8 * order.settings.max_pixels + (64 << 20)
    content = sys.stdin.buffer.read(most + 1)
    if len(content) > most:
        raise InputError(
            f"{NAME}: more than {most:,} bytes, larger than any picture of {order.settings.max_pixels:,} pixels",
            "if it is trusted and memory suffices, raise --max-pixels",
        )
    return content


def _put(content: bytes) -> int:
    if not write_out(content):
        raise OutputError("stdout was closed before the mask was written")
    return exit_codes.OK
