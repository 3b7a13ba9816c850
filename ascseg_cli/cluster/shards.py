"""How a run is divided: rounds of images in their order, each round into shards by a hash of the names.

By hash, not by order: neighbours in a folder are alike, in size and in where a store keeps them, and so every
shard gets its share of large images and of each place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ascseg_cli.data.discover import Item

_LOSSES = 3  # workers that may die over one image alone


@dataclass
class Shard:
    """Images that one worker does in one go.

    numbers  of the images in the run
    records  what earlier runs recorded of them, by name
    redo     whether these were found not to stand
    losses   workers that died over it
    """

    numbers: list[int]
    items: list[Item]
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    redo: bool = False
    losses: int = 0

    def part(self, places: Sequence[int], *, redo: bool) -> Shard:
        """Some of its images, by their places in it, with a count of losses of their own."""
        items = [self.items[place] for place in places]
        records = {item.name: self.records[item.name] for item in items if item.name in self.records}
        return Shard([self.numbers[place] for place in places], items, records, redo)

    def after_a_loss(self) -> list[Shard]:
        """What is to be done again when its worker died; none where that is hopeless.

        The second time it is taken apart, so that an image that kills workers stands alone.
        """
        self.losses += 1
        if len(self.items) > 1 and self.losses > 1:
            return [self.part([place], redo=self.redo) for place in range(len(self.items))]
        return [self] if self.losses < _LOSSES else []


def divide(items: Sequence[tuple[int, Item]], parts: int) -> list[Shard]:
    """At most `parts` shards of numbered images, none empty; in each the images keep their order."""
    shards = [Shard([], []) for _ in range(parts)]
    for number, item in items:
        shard = shards[_hash(item.name) % parts]
        shard.numbers.append(number)
        shard.items.append(item)
    return [shard for shard in shards if shard.items]


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
