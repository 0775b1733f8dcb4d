"""Gates: what holds the tasks of one circuit of a tenant back, without a slot and without a place in the queue."""

from __future__ import annotations

from typing import Generic, TypeVar

from synergymesh.domain.instants import Instant

ItemT = TypeVar("ItemT")


class Gate(Generic[ItemT]):
    """Hold tasks back until they are permitted.

    Attributes:
        permits: how many may start before the next decision.
        until: when that is expected, or 0.
        parked: a heap of the tasks that are held back; the most urgent one is the first to be permitted.
    """

    __slots__ = ("parked", "permits", "until")

    def __init__(self) -> None:
        self.permits = 0
        self.until: Instant = 0
        self.parked: list[ItemT] = []
