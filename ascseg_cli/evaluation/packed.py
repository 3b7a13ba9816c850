"""Many short texts in one buffer: a `str` takes several times its letters, which counts with 100,000 images."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

_ENCODING = ("utf-8", "surrogatepass")  # names of files may hold what no UTF-8 does


class Texts:
    """Texts in the order in which they came: 8 bytes each beside their letters."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._letters = bytearray()
        self._ends = array("Q")
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """The next one."""
        self._letters += text.encode(*_ENCODING)
        self._ends.append(len(self._letters))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, place: int) -> str:
        """Raises IndexError beyond the last; places count from 0 on."""
        start = self._ends[place - 1] if place else 0
        return self._letters[start : self._ends[place]].decode(*_ENCODING)

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self._ends:
            yield self._letters[start:end].decode(*_ENCODING)
            start = end
