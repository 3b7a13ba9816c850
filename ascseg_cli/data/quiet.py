"""Foreign libraries speak through Python's warnings, which are one global state: here they are kept silent.

What they warn of is either an error of ours already (the file is refused) or harmless metadata. The filters
can be changed by one thread at a time only, so whoever needs silence takes turns; only headers are read in it.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LOCK = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """No warning leaves the block, whatever the filters say; one thread at a time."""
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
