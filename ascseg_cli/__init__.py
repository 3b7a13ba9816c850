"""Segment folders of medical images with ASC-Seg."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ascseg_cli.inference.segmenter import Segmentation, Segmenter

__version__ = "0.1.0"
__all__ = ["Segmentation", "Segmenter", "__version__"]


def __getattr__(name: str) -> Any:
    """Load the Python API on first use, so that `import ascseg_cli` stays instant."""
    if name in ("Segmenter", "Segmentation"):
        from ascseg_cli.inference import segmenter

        return getattr(segmenter, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
