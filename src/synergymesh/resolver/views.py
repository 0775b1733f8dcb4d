"""Read-only views of the components of a growing graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from synergymesh.domain.graphs.graph_order import GrowingGraph

V = TypeVar("V")


class View(Mapping[str, V]):
    """Show something about every component by its id, live and read-only, in order of insertion."""

    __slots__ = ("_graph", "_value")

    def __init__(self, graph: GrowingGraph, value: Callable[[int], V]) -> None:
        self._graph = graph
        self._value = value

    def __getitem__(self, component_id: str) -> V:
        return self._value(self._graph.slot_of[component_id])

    def __iter__(self) -> Iterator[str]:
        return iter(self._graph.slot_of)

    def __len__(self) -> int:
        return len(self._graph)

    def __repr__(self) -> str:
        return f"<view of {len(self):,} components>"
