"""What an earlier run left that still stands: `--resume` keeps it and redoes everything else.

An image stands if the journal has it as done with the same input, weights and settings, and names each output that
is wanted now, which is on disk, decodes, and has the image's size. A failed image is always tried again.
"""

from __future__ import annotations

import json
import threading
from collections import Counter

from ascseg_cli.data.decode import read_pixels
from ascseg_cli.data.discover import Item
from ascseg_cli.errors import InputError
from ascseg_cli.inference.destination import Destination, Records
from ascseg_cli.inference.outputs import SUFFIXES, place_inside
from ascseg_cli.inference.results import Result

CHANGED_INPUT = "the image has changed"
CHANGED_SETTINGS = "weights or settings have changed"
RENAMED = "outputs have another name now, the old ones stay"
DAMAGED = "an output is missing or damaged"


class Earlier:
    """The earlier runs of an output folder, asked image by image from several threads.

    redone  why images that had been done are done again, counted
    """

    def __init__(self, journal: Records, outputs: Destination, kinds: tuple[str, ...], fingerprint: str) -> None:
        self._journal = journal
        self._outputs = outputs
        self._kinds = kinds
        self._fingerprint = fingerprint
        self._lock = threading.Lock()
        self.redone: Counter[str] = Counter()

    def result(self, item: Item, input_sha256: str) -> Result | None:
        """The result that stands, or None where the image must be done."""
        record = self._journal.get(item.name)
        if record is None:
            return None
        fingerprint = record.pop("fingerprint", None)
        try:
            result = Result.from_record(record)
        except (KeyError, TypeError, ValueError):  # written by another release
            result = None
        why = self._objection(result, fingerprint, item, input_sha256)
        if why:
            # From here on its outputs are a mixture until it is done; a kill must not leave it marked as done.
            self._journal.add({"image": item.name})
            if why in (CHANGED_INPUT, CHANGED_SETTINGS):
                self._outputs.discard(item.output_stem, SUFFIXES.keys() - set(self._kinds))
            with self._lock:
                self.redone[why] += 1
            return None
        return result

    def discard(self, item: Item) -> None:
        """Remove what an earlier run made of an image that now fails: nothing stale may stand beside its row."""
        if self._journal.get(item.name) is not None:
            self._outputs.discard(item.output_stem, tuple(SUFFIXES))

    def _objection(self, result: Result | None, fingerprint: object, item: Item, input_sha256: str) -> str:
        if result is None or fingerprint != self._fingerprint:
            return CHANGED_SETTINGS
        if result.input_sha256 != input_sha256:
            return CHANGED_INPUT
        size = result.width or 0, result.height or 0
        # A file that the record doesn't name may be whole and yet of another run, with other settings.
        named = result.outputs if isinstance(result.outputs, dict) else {}
        if any(named[kind] != place_inside(kind, item.output_stem) for kind in named.keys() & self._kinds):
            return RENAMED
        paths = ((kind, self._outputs.path(kind, item.output_stem)) for kind in self._kinds)
        whole = all(kind in named and is_whole(kind, self._outputs.read(path), size) for kind, path in paths)
        return "" if whole else DAMAGED


def is_whole(kind: str, content: bytes | None, size: tuple[int, int]) -> bool:
    """Whether an output is there, decodes to its end, and belongs to an image of `size` (width, height)."""
    if content is None:
        return False
    if kind == "polygons":
        return _is_whole_geojson(content, size)
    try:
        height, width = read_pixels(content, max_pixels=max(1, size[0] * size[1])).shape[:2]
    except InputError:
        return False
    return (width, height) == size


def _is_whole_geojson(content: bytes, size: tuple[int, int]) -> bool:
    try:
        image = json.loads(content)["image"]
        return (image["width"], image["height"]) == size
    except (ValueError, RecursionError, KeyError, TypeError):
        return False
