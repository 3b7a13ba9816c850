"""Everything that one evaluation found, in one place: what the terminal, JSON and a report are made from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from ascseg_cli.evaluation.bootstrap import Plan
from ascseg_cli.evaluation.comparison import Comparison
from ascseg_cli.evaluation.metrics import Ruler
from ascseg_cli.evaluation.seen import Seen
from ascseg_cli.evaluation.summary import Summary, summarise, to_json
from ascseg_cli.evaluation.table import Table

_ROWS = 500  # images in one piece of JSON


@dataclass(frozen=True)
class Evaluation:
    """One evaluation.

    groups       (n,) number of each scored image's group; None: each image is its own
    unpaired     files without a partner, by side
    seen         which images the weights were trained on; None where they don't say
    seen_kinds   the same by image name
    other        the figures of the set that this one is compared with
    unseen       the summary without the seen images; None where none was seen, or all
    settings     what the figures depend on, for the record
    """

    table: Table
    summary: Summary
    ruler: Ruler
    plan: Plan
    groups: np.ndarray | None = None
    unpaired: dict[str, tuple[str, ...]] = field(default_factory=dict)
    seen: Seen | None = None
    seen_kinds: dict[str, str] = field(default_factory=dict)
    unseen: Summary | None = None
    comparison: Comparison | None = None
    other: Table | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def rows(self) -> Iterator[dict[str, Any]]:
        """One object an image; with `seen` ("exact", "near" or "") where weights say what they saw."""
        for row in self.table.rows():
            yield row if self.seen is None else {**row, "seen": self.seen_kinds.get(row["name"], "")}

    def json_pieces(self) -> Iterator[str]:
        """The object of `--json`, in pieces whose size doesn't grow with the number of images."""
        yield '{"images": ['
        rows = self.rows()
        before = "\n"
        while some := list(islice(rows, _ROWS)):
            yield before + ",\n".join(json.dumps(row, ensure_ascii=False) for row in some)
            before = ",\n"
        yield (
            "\n],\n" + json.dumps(self._rest(), ensure_ascii=False, indent=1).removeprefix("{").lstrip("\n") + "\n"
        )

    def _rest(self) -> dict[str, Any]:
        reliability = self.table.reliability
        seen = self.seen
        return {
            **to_json(self.summary),
            "seen_in_training": seen and {"exact": seen.exact, "near": seen.near, "checked": seen.checked},
            "summary_without_seen": self.unseen and to_json(self.unseen)["summary"],
            "failed": [asdict(one) for one in self.table.unscored],
            "unpaired": self.unpaired,
            "comparison": self.comparison and asdict(self.comparison),
            "reliability": reliability and reliability.curve(),
            "settings": {
                **self.settings,
                "unit": self.ruler.unit,
                **asdict(self.ruler),
                "interval": asdict(self.plan),
            },
        }


def without_seen(
    table: Table, kinds: dict[str, str], plan: Plan, groups: np.ndarray | None, scale: float
) -> Summary | None:
    """The summary over images that weights were not trained on; None where that is none or all of them."""
    kept = np.array([not kinds.get(name) for name in table.names], bool)
    if kept.all() or not kept.any():
        return None
    some = None if groups is None else np.unique(groups[kept], return_inverse=True)[1]
    return summarise(table.only(kept), plan, some, scale)
