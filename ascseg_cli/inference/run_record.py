"""run.json: everything needed to know how the results beside it came about, and to get them again.

Written when a run begins and again when it ends. It holds nothing of the user, the host or the pictures' tags,
except what stands in the arguments.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from ascseg_cli.inference.claim import RUN
from ascseg_cli.inference.destination import Destination
from ascseg_cli.inference.engine import ONNXRUNTIME, Described
from ascseg_cli.inference.outputs import json_bytes
from ascseg_cli.inference.settings import Settings
from ascseg_cli.versions import versions

FORMAT = 1
_LIBRARIES = ("torch", "numpy", "numba", "opencv-python-headless", "pillow", "onnxruntime")
NOTICE = "for research; not a medical device"


class RunRecord:
    """The record of one run in one output folder."""

    def __init__(
        self,
        outputs: Destination,
        engine: Described,
        settings: Settings,
        *,
        arguments: Sequence[str],
        threads: int,
    ) -> None:
        self._outputs = outputs
        self._of_results = settings.of_results()
        self._content: dict[str, Any] = {
            "format": FORMAT,
            "notice": NOTICE,
            "arguments": list(arguments),
            "started": _now(),
            "ended": None,
            "state": "running",
            "counts": {},
            "weights": _weights(engine),
            "settings": {
                **self._of_results,
                "save": list(settings.save),
                "max_pixels": settings.max_pixels,
                "batch_size": settings.batch_size or "auto",
            },
            "backend": engine.backend,
            "backend_note": engine.backend_note,
            "device": engine.device,
            "threads": threads,
            "versions": versions(_LIBRARIES),
            "platform": {"system": platform.system(), "machine": platform.machine()},
            "earlier_runs": [],
        }

    def begin(self, earlier: Mapping[str, Any] | None) -> None:
        """Write the record of a run that begins; `earlier` is the record that stood there. Raises OutputError."""
        if earlier:
            told = {key: value for key, value in earlier.items() if key != "earlier_runs"}
            self._content["earlier_runs"] = [*earlier.get("earlier_runs", []), told]
        self._write()

    def end(self, state: str, counts: Mapping[str, int]) -> None:
        """Write the record of a run that is over: "finished", "interrupted" or "failed". Raises OutputError."""
        self._content.update(ended=_now(), state=state, counts=dict(counts))
        self._write()

    def changes_since(self, earlier: Mapping[str, Any]) -> list[str]:
        """In words, what results depend on and the earlier run had otherwise."""
        ours, theirs = self._content, earlier
        values = theirs.get("settings", {})
        changes = [
            f"{name.replace('_', '-')} {values[name]} → {value}"
            for name, value in self._of_results.items()
            if values.get(name, value) != value
        ]
        before = theirs.get("weights", {})
        if before.get("sha256", ours["weights"]["sha256"]) != ours["weights"]["sha256"]:
            changes.insert(0, f"weights {_brief(before)} → {_brief(ours['weights'])}")
        backends = theirs.get("backend", ours["backend"]), ours["backend"]
        if ONNXRUNTIME in backends and backends[0] != backends[1]:
            changes.append("backend {} → {}".format(*backends))
        return changes

    def _write(self) -> None:
        self._outputs.write(self._outputs.root / RUN, json_bytes(self._content, indent=2) + b"\n")


def read(outputs: Destination) -> dict[str, Any] | None:
    """The record that stands there; None where there is none, or none that can be read."""
    try:
        content = json.loads(outputs.read(outputs.root / RUN) or b"")
        json_bytes(content)  # what can't be written again, such as 1e999, was never written by us
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return None
    forms = {"settings": dict, "weights": dict, "earlier_runs": list}
    return content if all(isinstance(content.get(key), form) for key, form in forms.items()) else None


def _weights(engine: Described) -> dict[str, Any]:
    told = engine.metadata
    return {
        "name": told.name,
        "dataset": told.dataset,
        "variant": told.variant,
        "sha256": engine.weights_sha256,
        "licence": told.licence,
        "preprocessing": told.preprocessing.model_dump(mode="json"),
    }


def _brief(weights: Mapping[str, Any]) -> str:
    """A name that also tells a weights file from another of its name, and from its exports."""
    return f"{weights.get('name', '?')} {str(weights.get('sha256', '?'))[:8]}"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
