"""ASC-Seg, operation by operation; torch is loaded with the network itself, not with its file format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ascseg_cli.network.variants import VARIANTS

if TYPE_CHECKING:
    from ascseg_cli.network.asc_seg import ASCSeg

__all__ = ["VARIANTS", "ASCSeg"]


def __getattr__(name: str) -> Any:
    if name == "ASCSeg":
        from ascseg_cli.network.asc_seg import ASCSeg

        return ASCSeg
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
