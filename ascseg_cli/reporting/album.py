"""The pictures of a report while its images go by: on the disk, so that memory doesn't grow with their number."""

from __future__ import annotations

import json
import tempfile
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from ascseg_cli.data.decode import MAX_PIXELS, read_pixels
from ascseg_cli.errors import AscsegError, InputError, OutputError
from ascseg_cli.reporting import pictures
from ascseg_cli.reporting.contours import frame, outline
from ascseg_cli.reporting.pictures import Budget

if TYPE_CHECKING:
    from typing_extensions import Self

_SAME_SHAPE = 0.02  # by how much an image's sides may be related otherwise than its masks'


@dataclass(frozen=True)
class Drawing:
    """What is shown of one image.

    picture        data URI; "" where there is none
    width, height  of the outlines' frame
    pred, truth    outlines as SVG paths; truth is None where none is known
    image          the photograph's path; "" where the picture is made from masks
    """

    picture: str
    width: int
    height: int
    pred: str
    truth: str | None
    image: str = ""


class Album:
    """Drawings by name. Safe to use from several threads.

    alone       masks drawn without a photograph
    unreadable  photographs that could not be shown: damaged, or of another shape than their masks
    """

    def __init__(self, count: int, *, max_pixels: int = MAX_PIXELS) -> None:
        self.budget = Budget.of(count)
        self.alone = self.unreadable = 0
        self._max_pixels = max_pixels
        self._file = tempfile.TemporaryFile(prefix="ascseg-report-")
        self._places: dict[str, int] = {}
        self._lock = threading.Lock()
        self._trouble: OSError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, name: str, pred: np.ndarray, truth: np.ndarray | None, image: Path | None) -> None:
        """Draw one image.

        pred, truth  (h, w) bool; truth None where none is known
        image        the photograph below the outlines; None: the masks themselves, on black
        """
        grid = self.budget.grid
        width, height = frame(pred.shape, grid)
        photograph = None
        if image is not None and self.budget.any and (photograph := self._read(image, pred.shape)) is None:
            image = None
        drawing = Drawing(
            picture=self._picture(photograph, pred, truth),
            width=width,
            height=height,
            pred=outline(pred, grid),
            truth=None if truth is None else outline(truth, grid),
            image="" if image is None else str(image),
        )
        self._keep(name, drawing)

    def get(self, name: str) -> Drawing | None:
        """The drawing of an image, or None where it has none. Raises OutputError where drawings were lost."""
        if self._trouble is not None:
            why = self._trouble.strerror or self._trouble
            raise OutputError(
                f"the report's pictures can't be kept in {tempfile.gettempdir()}: {why}",
                "free some space there, or set TMPDIR to a folder that has more",
            )
        with self._lock:
            if (place := self._places.get(name)) is None:
                return None
            self._file.seek(place)
            return Drawing(**json.loads(self._file.readline()))

    def large(self, name: str) -> Drawing | None:
        """The same with a picture for a look at the single image."""
        drawing = self.get(name)
        if drawing is None or not drawing.image:
            return drawing
        photograph = self._read(Path(drawing.image), (drawing.height, drawing.width))
        if photograph is None:
            return drawing
        return replace(drawing, picture=pictures.photograph(photograph, pictures.LARGE))

    def _picture(self, photograph: np.ndarray | None, pred: np.ndarray, truth: np.ndarray | None) -> str:
        if photograph is not None:
            return pictures.photograph(photograph, self.budget.side(photograph.shape), self.budget.most)
        if not self.budget.any:
            return ""
        return pictures.masks_alone(pred, pred if truth is None else truth, self.budget.side(pred.shape))

    def _read(self, image: Path, shape: tuple[int, ...]) -> np.ndarray | None:
        try:
            pixels = read_pixels(image, max_pixels=self._max_pixels)
            if abs(pixels.shape[0] * shape[1] / (pixels.shape[1] * shape[0]) - 1) > _SAME_SHAPE:
                raise InputError("of another shape than its masks")
        except (AscsegError, MemoryError):
            with self._lock:
                self.unreadable += 1
            return None
        return pixels

    def _keep(self, name: str, drawing: Drawing) -> None:
        line = json.dumps(asdict(drawing)).encode() + b"\n"
        with self._lock:
            self.alone += not drawing.image
            try:
                place = self._file.seek(0, 2)
                self._file.write(line)
                self._places[name] = place
            except OSError as error:  # told when the report is written: the scores must not be lost with it
                self._trouble = error
