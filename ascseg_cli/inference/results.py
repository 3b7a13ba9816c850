"""What came of each image, and results.csv: one row an input, in the order of the inputs."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, replace
from typing import IO, Any

from ascseg_cli.data.discover import Item
from ascseg_cli.data.spreadsheet import harmless
from ascseg_cli.errors import AscsegError
from ascseg_cli.inference.postprocess import Findings

STATUSES = ("ok", "empty", "failed", "skipped")
COLUMNS = (
    "image", "status", "reason",
    "foreground_pixels", "foreground_fraction", "components",
    "box_x", "box_y", "box_width", "box_height",
    "mean_confidence", "image_width", "image_height", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """What came of one input.

    image         its name: relative posix path with suffix
    status        ok: has foreground · empty: has none · failed: see `reason` · skipped: not reached
    findings      the mask in figures; None unless ok or empty
    width, height of the image in pixels; None where it couldn't be read
    seconds       of work on it: reading, its share of the network's time, writing
    outputs       kind -> posix path in the output folder
    input_sha256  of the file
    resumed       it was done by an earlier run and is whole
    """

    image: str
    status: str
    reason: str = ""
    findings: Findings | None = None
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    outputs: dict[str, str] | None = None
    input_sha256: str = ""
    resumed: bool = False

    def figures(self) -> dict[str, Any]:
        """The values of COLUMNS by name; None where there is nothing to say."""
        found = self.findings
        x, y, width, height = (found and found.box) or (None,) * 4
        values = (
            self.image, self.status, self.reason,
            found and found.pixels, found and _short(found.fraction), found and found.components,
            x, y, width, height,
            found and _short(found.confidence), self.width, self.height, _seconds(self.seconds),
        )  # fmt: skip
        return dict(zip(COLUMNS, values))

    def to_json(self) -> dict[str, Any]:
        """One line of `--json`: the columns, and where the outputs are."""
        return {**self.figures(), "outputs": self.outputs or {}, "resumed": self.resumed}

    def to_record(self) -> dict[str, Any]:
        """What a later run needs to give the same row again."""
        return {key: value for key, value in asdict(self).items() if key != "resumed"}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Result:
        """The result that `to_record` told of. Raises KeyError, TypeError or ValueError for anything else."""
        result = cls(**record)
        found = Findings(**record["findings"])
        if found.box is not None:
            x, y, width, height = found.box
            found = replace(found, box=(x, y, width, height))
        figures = (found.pixels, found.fraction, found.components, *(found.box or ()), found.confidence or 0)
        numbers = (*figures, result.width, result.height, result.seconds)
        texts = (result.image, result.reason, result.input_sha256)
        right = all(isinstance(n, (int, float)) for n in numbers) and all(isinstance(text, str) for text in texts)
        if result.status not in ("ok", "empty") or not right:
            raise ValueError("a record of another form")
        return replace(result, findings=found, resumed=True)


def failed(item: Item, error: AscsegError) -> Result:
    """The result of an image that an error of ours ended."""
    return Result(item.name, "failed", "; ".join(filter(None, (error.message, error.hint))))


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


class Table:
    """results.csv as it grows: UTF-8, RFC 4180 (CRLF, quotes where needed), nothing kept in memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._write(COLUMNS)

    def add(self, result: Result) -> None:
        """The next row. A name that a spreadsheet would run as a formula gets `./` before it: the same path."""
        figures = result.figures()
        figures["image"] = harmless(result.image, "./")
        figures["reason"] = harmless(" ".join(result.reason.split()), " ")
        self._write(["" if value is None else value for value in figures.values()])

    def _write(self, row: Any) -> None:
        line = io.StringIO(newline="")
        csv.writer(line, lineterminator="\r\n").writerow(row)
        self._file.write(line.getvalue().encode("utf-8", "backslashreplace"))
