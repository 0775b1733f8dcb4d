"""Graphs as text: JSON, DOT and Mermaid."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import msgspec

from synergymesh.domain.graphs.graph import Graph
from synergymesh.domain.graphs.graph_order import GrowingGraph
from synergymesh.errors import InvalidRequest

FORMAT = "synergymesh-graph"
VERSION = 1

Parts = tuple[list[tuple[str, str, int, float]], list[tuple[str, str, bool]]]
"""Components and dependencies as `DependencyResolver` takes them."""


class _Node(msgspec.Struct):
    id: str
    type: str = "task"
    priority: int = 0
    weight: float = 1.0


class _Edge(msgspec.Struct):
    from_: str = msgspec.field(name="from")
    to: str
    required: bool = True


class _Document(msgspec.Struct):
    nodes: list[_Node]
    edges: list[_Edge] = []
    format: str = FORMAT
    version: int = VERSION


def document(graph: GrowingGraph) -> dict[str, Any]:
    """Give the components and dependencies as plain data; `from_json` reads it."""
    ids = graph.component_ids
    return {
        "format": FORMAT,
        "version": VERSION,
        "nodes": [
            {"id": i, "type": graph.types[slot], "priority": graph.priorities[slot], "weight": graph.weights[slot]}
            for i, slot in graph.slot_of.items()
        ],
        "edges": [
            {"from": i, "to": ids[dependency], "required": required}
            for i, slot in graph.slot_of.items()
            for dependency, required in graph.dependencies[slot].items()
        ],
    }


def to_json(graph_document: Mapping[str, Any], *, indent: int | None = None) -> str:
    """Write such data as JSON."""
    encoded = msgspec.json.encode(graph_document)
    return (encoded if indent is None else msgspec.json.format(encoded, indent=indent)).decode()


def from_json(source: str | bytes | Mapping[str, Any]) -> Parts:
    """Read the components and dependencies of a document that `DependencyResolver.to_json` wrote.

    Raises:
        InvalidRequest: it is something else; the message says where.
    """
    try:
        if isinstance(source, (str, bytes)):
            read = msgspec.json.decode(source, type=_Document)
        else:
            read = msgspec.convert(source, type=_Document)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise InvalidRequest(f"this is not a graph: {error}.", field="source") from error
    if read.format != FORMAT or read.version > VERSION:
        raise InvalidRequest(
            f"this is {read.format!r} version {read.version}; {FORMAT!r} up to version {VERSION} can be read.",
            field="source",
        )
    return (
        [(node.id, node.type, node.priority, node.weight) for node in read.nodes],
        [(edge.from_, edge.to, edge.required) for edge in read.edges],
    )


def to_dot(graph: Graph) -> str:
    """Write a graph for Graphviz: arrows from a dependency to its dependent, optional ones dashed."""
    path = graph.critical_path()
    critical = set(path)
    steps = set(pairwise(path))
    lines = [
        "digraph plan {",
        "  rankdir=LR;",
        '  node [shape=box, style="rounded,filled", fillcolor="#eef2f7", color="#64748b", fontname="sans-serif"];',
        '  edge [color="#94a3b8"];',
    ]
    for position, component_id in enumerate(graph.component_ids):
        label = _dot_text(f"{component_id}\n{graph.weights[position]:g} s")
        marks = ', color="#b91c1c", fillcolor="#fee2e2", penwidth=2' if position in critical else ""
        lines.append(f"  n{position} [label={label}{marks}];")
    for dependent, own in enumerate(graph.dependencies):
        for dependency in own:
            looks = [
                *(['color="#b91c1c"', "penwidth=2"] if (dependency, dependent) in steps else []),
                *(["style=dashed"] if (dependent, dependency) in graph.optional else []),
            ]
            look = f" [{', '.join(looks)}]" if looks else ""
            lines.append(f"  n{dependency} -> n{dependent}{look};")
    return "\n".join([*lines, "}", ""])


def to_mermaid(graph: Graph) -> str:
    """Write a graph as a Mermaid flowchart: arrows from a dependency to its dependent, optional ones dotted."""
    path = graph.critical_path()
    steps = set(pairwise(path))
    lines = ["flowchart LR"]
    for position, component_id in enumerate(graph.component_ids):
        lines.append(f'  n{position}["{_mermaid_text(component_id)}"]')
    emphasised: list[int] = []
    number = 0
    for dependent, own in enumerate(graph.dependencies):
        for dependency in own:
            arrow = "-.->" if (dependent, dependency) in graph.optional else "-->"
            lines.append(f"  n{dependency} {arrow} n{dependent}")
            if (dependency, dependent) in steps:
                emphasised.append(number)
            number += 1
    if path:
        lines.append("  classDef critical fill:#fee2e2,stroke:#b91c1c,stroke-width:2px")
        lines.append(f"  class {','.join(f'n{position}' for position in path)} critical")
    if emphasised:
        lines.append(f"  linkStyle {','.join(map(str, emphasised))} stroke:#b91c1c,stroke-width:2px")
    return "\n".join([*lines, ""])


def _dot_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "\\r").replace("\n", "\\n")
    return f'"{escaped}"'


def _mermaid_text(text: str) -> str:
    """Write what Mermaid would read as syntax as its entity codes."""
    return "".join(
        f"#{ord(letter)};" if letter in '"#;<>&`\\[](){}|' or not letter.isprintable() else letter for letter in text
    )
