"""What a figure must reach, as a shell pipeline states it: `dice>=0.85,hd95<=12`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ascseg_cli.errors import UsageError
from ascseg_cli.evaluation.summary import Figure, Summary

_FORM = re.compile(r"\s*([a-z0-9_.]+?)\s*(>=|<=|>|<)\s*([0-9.eE+-]+)\s*")
_MEETS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True)
class Gate:
    """One figure's limit. name: a metric, or protocol.metric."""

    name: str
    sign: str
    limit: float

    def __str__(self) -> str:
        return f"{self.name}{self.sign}{self.limit:g}"

    def failure(self, figure: Figure | None, *, whole_interval: bool) -> str | None:
        """Why the figure doesn't meet the limit; None where it does.

        whole_interval  the interval's worse end must meet it, not only the mean
        """
        value, what = (None if figure is None else figure.mean), "it is"
        if whole_interval and figure is not None and value is not None:
            value = figure.low if self.sign.startswith(">") else figure.high
            what = "its interval's lower end is" if self.sign.startswith(">") else "its interval's upper end is"
            if value is None:
                return f"{self}: {figure.mean:.4g} has no interval here"
        if value is None:
            return f"{self}: there is no such figure here"
        return None if _MEETS[self.sign](value, self.limit) else f"{self}: {what} {value:.4g}"


def parse_gates(text: str, known: Iterable[str]) -> list[Gate]:
    """The gates in a text, separated by commas. Raises UsageError for a form or a name that doesn't exist."""
    names = list(known)
    gates = []
    for part in text.split(","):
        match = _FORM.fullmatch(part)
        try:
            gate = match and Gate(match[1], match[2], float(match[3]))
        except ValueError:
            gate = None
        if gate is None:
            raise UsageError(
                f"--require has {part.strip()!r}, which isn't a condition", "for example dice>=0.85,hd95<=12"
            )
        if gate.name not in names:
            alone = ", ".join(name for name in names if "." not in name)
            others = ", ".join(name for name in names if "." in name and not name.startswith("per_image."))
            raise UsageError(
                f"--require names {gate.name!r}, which isn't measured here",
                f"known: {alone}; of protocols: {others}",
            )
        gates.append(gate)
    return gates


def failures(gates: Iterable[Gate], summary: Summary, *, whole_interval: bool) -> list[str]:
    """Each gate that isn't met, in words."""
    found = (gate.failure(summary.find(gate.name), whole_interval=whole_interval) for gate in gates)
    return [words for words in found if words]
