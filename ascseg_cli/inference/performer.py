"""Who does the images of a run, where it isn't this process: what a `Run` asks of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator

from ascseg_cli.data.appearance import Features
from ascseg_cli.data.discover import Item
from ascseg_cli.errors import OutputError
from ascseg_cli.inference.destination import Records
from ascseg_cli.inference.engine import Described
from ascseg_cli.inference.results import Result
from ascseg_cli.inference.resume import Earlier

NOT_WRITTEN = "not reached: nothing more can be written"


class Performer(ABC):
    """Does images, as `Work` and `Pipeline` do in this process.

    described  the network that they run
    full       the failure that ends the run, since no other image would fare better; None while all is well
    bug        the first failure that was a mistake of ours
    lost_some  whether one of them died: it may have left files half-written
    """

    described: Described
    full: OutputError | None = None
    bug: Exception | None = None
    lost_some = False

    @abstractmethod
    def begin(self, journal: Records, earlier: Earlier | None, see: Callable[[int, Features], None]) -> None:
        """Where records go, what may stand of earlier runs, and who looks at the first images."""

    @abstractmethod
    def run(self, items: Iterable[Item]) -> Iterator[Result]:
        """The results in the order of the items; after `stop`, those of the items that had begun."""

    @abstractmethod
    def stop(self) -> None:
        """Begin no further image; those in flight are finished. May be called from a signal handler."""
