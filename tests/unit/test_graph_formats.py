"""Graphs as JSON, DOT, Mermaid and SVG: nothing is lost, and no id breaks the syntax."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synergymesh.errors import CircularDependency, GraphTooLarge, InvalidRequest, UnknownComponent
from synergymesh.resolver import DependencyResolver, picture

NASTY = 'a"b\\c<d>&e\n[x]{y}|#;é漢\N{ZERO WIDTH JOINER}\x07'
SVG = "{http://www.w3.org/2000/svg}"

ids = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)


@pytest.fixture
def resolver() -> DependencyResolver:
    """Give a graph with nasty names, an optional dependency and one that skips a phase."""
    resolver = DependencyResolver()
    resolver.add_components([(NASTY, "type", 2, 0.5), ("b", "task", -1, 1.5), ("c", "task"), ("d", "task", 0, 1e12)])
    resolver.add_dependencies([("b", NASTY), ("c", NASTY, False), ("d", "b"), ("d", "c"), ("d", NASTY)])
    return resolver


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(ids, ids, st.integers(-9, 9), st.floats(0, 1e290)), unique_by=lambda row: row[0], max_size=8),
    st.data(),
)
def test_json_keeps_everything(rows, data: st.DataObject) -> None:
    resolver = DependencyResolver()
    resolver.add_components(rows)
    for after in range(len(rows)):
        for before in range(after):
            if data.draw(st.booleans()):
                resolver.add_dependency(rows[after][0], rows[before][0], data.draw(st.booleans()))
    exported = resolver.export_graph()
    read = DependencyResolver.from_json(resolver.to_json())
    assert read.export_graph() == exported == DependencyResolver.from_json(exported).export_graph()
    assert list(read.nodes.values()) == list(resolver.nodes.values())
    assert json.loads(resolver.to_json(indent=2)) == json.loads(json.dumps(exported))


def test_an_export_has_nodes_edges_statistics_and_recommendations(resolver: DependencyResolver) -> None:
    exported = resolver.export_graph()
    assert exported["nodes"][1] == {"id": "b", "type": "task", "priority": -1, "weight": 1.5}
    assert exported["edges"][1] == {"from": "c", "to": NASTY, "required": False}
    assert exported["statistics"] == resolver.get_dependency_stats()
    assert exported["recommendations"] == resolver.get_optimization_recommendations()


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        ("{", InvalidRequest, "not a graph"),
        (b"\xff", InvalidRequest, "not a graph"),
        ("[]", InvalidRequest, "not a graph"),
        ('{"edges": []}', InvalidRequest, "missing required field `nodes`"),
        ('{"nodes": [{"id": 7}]}', InvalidRequest, r"\$\.nodes\[0\]\.id"),
        ('{"nodes": [{"id": "a", "weight": -1}]}', InvalidRequest, "weight"),
        ('{"nodes": [], "version": 99}', InvalidRequest, "version 99"),
        ('{"nodes": [], "format": "other"}', InvalidRequest, "'other'"),
        ('{"nodes": [{"id": "a"}], "edges": [{"from": "a", "to": "b"}]}', UnknownComponent, "'b'"),
        ('{"nodes": [{"id": "a"}], "edges": [{"from": "a", "to": "a"}]}', CircularDependency, "a -> a"),
        ({"nodes": 3}, InvalidRequest, "not a graph"),
    ],
)
def test_what_is_no_graph_is_refused(source, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        DependencyResolver.from_json(source)


def test_dot_has_every_node_and_edge_quoted(resolver: DependencyResolver) -> None:
    text = resolver.to_dot()
    assert len(re.findall(r"^  n\d+ \[label=\"(?:[^\"\\]|\\.)*\"", text, re.MULTILINE)) == 4
    assert len(re.findall(r"^  n\d+ -> n\d+", text, re.MULTILINE)) == 5
    assert "n0 -> n2 [style=dashed];" in text
    assert 'n0 -> n1 [color="#b91c1c", penwidth=2];' in text


def test_mermaid_has_every_node_and_edge_escaped(resolver: DependencyResolver) -> None:
    lines = resolver.to_mermaid().splitlines()
    assert lines[0] == "flowchart LR"
    assert all(re.fullmatch(r'  n\d+\["[^"<>\[\]{}|\\\n\x07]*"\]', line) for line in lines[1:5])
    assert lines[5:10] == ["  n0 --> n1", "  n0 -.-> n2", "  n1 --> n3", "  n2 --> n3", "  n0 --> n3"]
    assert "  class n0,n1,n3 critical" in lines
    assert "  linkStyle 0,2 stroke:#b91c1c,stroke-width:2px" in lines


def test_a_picture_has_every_component_and_dependency(resolver: DependencyResolver) -> None:
    root = ElementTree.fromstring(resolver.to_svg())
    titles = [title.text for title in root.iter(f"{SVG}title")]
    assert len(titles) == 4
    assert titles[1] == "b, 1.5 s"
    ways = [path.get("class") for path in root.iter(f"{SVG}path")]
    # the last one is the legend; the critical path is drawn over the others
    assert ways == ["way optional", "way", "way", "way critical", "way critical", "way critical"]


def test_boxes_of_a_picture_do_not_overlap() -> None:
    resolver = DependencyResolver()
    resolver.add_components([f"component-{number}" for number in range(200)])
    resolver.add_dependencies((f"component-{n}", f"component-{n * 7 % n}") for n in range(20, 200))
    resolver.add_dependencies((f"component-{n}", f"component-{n - 13}") for n in range(20, 200))
    root = ElementTree.fromstring(resolver.to_svg())
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    boxes = [
        tuple(float(rect.get(key, 0)) for key in ("x", "y", "width", "height"))
        for rect in root.iter(f"{SVG}rect")
        if "box" in (rect.get("class") or "")
    ]
    assert len(boxes) == 200
    for number, (x, y, w, h) in enumerate(boxes):
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height
        assert not any(x < x2 + w2 and x2 < x + w and y < y2 + h2 and y2 < y + h for x2, y2, w2, h2 in boxes[:number])


def test_an_empty_graph_has_a_picture_too() -> None:
    root = ElementTree.fromstring(DependencyResolver().to_svg())
    assert [text.text for text in root.iter(f"{SVG}text")] == ["The graph has no components."]
    assert "digraph" in DependencyResolver().to_dot()
    assert DependencyResolver().to_mermaid() == "flowchart LR\n"


def test_a_picture_has_limits(monkeypatch: pytest.MonkeyPatch, resolver: DependencyResolver) -> None:
    monkeypatch.setattr(picture, "PICTURE_COMPONENTS_MAX", 4)
    monkeypatch.setattr(picture, "PICTURE_PLACES_MAX", 5)
    assert resolver.to_svg()
    monkeypatch.setattr(picture, "PICTURE_PLACES_MAX", 4)
    with pytest.raises(GraphTooLarge, match="places in its picture"):
        resolver.to_svg()
    monkeypatch.setattr(picture, "PICTURE_COMPONENTS_MAX", 3)
    with pytest.raises(GraphTooLarge, match="4 components to draw, the limit is 3"):
        resolver.to_svg()
