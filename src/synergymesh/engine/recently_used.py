"""Keeps what was used lately, as much of it as may be in memory."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class RecentlyUsed(Generic[K, V]):
    """Keep values by key until their sizes add up to too much; then those go that were not used for longest.

    The last one stays, however large it is.

    Args:
        size_max: sum of the sizes of what is kept.
    """

    __slots__ = ("_kept", "_size_max", "size")

    def __init__(self, size_max: int) -> None:
        self._kept: dict[K, tuple[V, int]] = {}  # the one that was used last is the last
        self._size_max = size_max
        self.size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: K) -> V | None:
        """Give a value and take note that it is used; None if it is not kept."""
        found = self._kept.pop(key, None)
        if found is None:
            return None
        self._kept[key] = found
        return found[0]

    def put(self, key: K, value: V, size: int) -> None:
        """Keep a value, in the place of the one of that key."""
        before = self._kept.pop(key, None)
        if before is not None:
            self.size -= before[1]
        self._kept[key] = value, size
        self.size += size
        while self.size > self._size_max and len(self._kept) > 1:
            self.size -= self._kept.pop(next(iter(self._kept)))[1]
