"""Drawing a graph: phases as columns, few crossings, the critical path emphasised.

The way of Sugiyama, Tagawa & Toda (1981): dependencies that skip phases are led through places of their own,
barycentres reduce the crossings, and each column is pulled towards its neighbours as far as its order allows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from itertools import accumulate, pairwise
from math import fsum

from synergymesh.domain.graphs.graph import Graph
from synergymesh.domain.graphs.recommendations import duration
from synergymesh.errors import GraphTooLarge

PICTURE_COMPONENTS_MAX = 2_000
"""Components of a picture: beyond that nobody can read it, and a browser is slow to show it."""

PICTURE_PLACES_MAX = 100_000
"""Places of components and of dependencies that skip phases: some seconds to lay out."""

SWEEPS = 8

LABEL_MAX = 28
LETTER_WIDTH = 7.4
CAPITAL_WIDTH = 9.6
FOOT_LETTER_WIDTH = 7.2
BOX_HEIGHT = 38.0
BOX_GAP = 14.0
WAY_HEIGHT = 7.0
MARGIN = 28.0
HEADER = 52.0
FOOTER = 46.0

STYLE = """
  svg { font-family: ui-sans-serif, system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
  .page { fill: #ffffff; }
  .band { fill: #f8fafc; }
  .head { fill: #334155; font-size: 12px; font-weight: 600; text-anchor: middle; }
  .note { fill: #64748b; font-size: 11px; text-anchor: middle; }
  .foot { fill: #475569; font-size: 12px; }
  .way { fill: none; stroke: #94a3b8; stroke-width: 1.1; stroke-opacity: .65; }
  .optional { stroke-dasharray: 5 4; }
  .box { fill: #ffffff; stroke: #94a3b8; stroke-width: 1.2; }
  .name { fill: #0f172a; font-size: 12px; font-weight: 500; }
  .weight { fill: #64748b; font-size: 10.5px; }
  .critical.way { stroke: #dc2626; stroke-width: 2.6; stroke-opacity: 1; }
  .critical.box { fill: #fef2f2; stroke: #dc2626; stroke-width: 2; }
  .critical.name { fill: #991b1b; font-weight: 600; }
"""


class _Layout:
    """Lay places out in columns: one for each component, and one for each phase that a dependency skips."""

    def __init__(self, graph: Graph, phases: Sequence[Sequence[int]]) -> None:
        self.columns: list[list[int]] = [list(phase) for phase in phases]
        self.count = len(graph)
        column_of = [0] * self.count
        for number, phase in enumerate(phases):
            for position in phase:
                column_of[position] = number
        self.before: list[list[int]] = [[] for _ in range(self.count)]
        self.after: list[list[int]] = [[] for _ in range(self.count)]
        self.ways: dict[tuple[int, int], list[int]] = {}
        long = [
            (dependent, dependency)
            for dependent, own in enumerate(graph.dependencies)
            for dependency in own
            if column_of[dependent] - column_of[dependency] > 1
        ]
        leaving = Counter(dependency for _, dependency in long)
        arriving = Counter(dependent for dependent, _ in long)
        shared: dict[tuple[int, int], int] = {}
        for dependent, own in enumerate(graph.dependencies):
            for dependency in own:
                # long dependencies of one component share their way, on the side where more of them do
                bundle = dependency if leaving[dependency] >= arriving[dependent] else dependent
                way = [dependency]
                for number in range(column_of[dependency] + 1, column_of[dependent]):
                    place = shared.get((bundle, number))
                    if place is None:
                        place = shared[bundle, number] = self._new_place(number)
                    way.append(place)
                way.append(dependent)
                for left, right in pairwise(way):
                    if right not in self.after[left]:
                        self.after[left].append(right)
                        self.before[right].append(left)
                self.ways[dependent, dependency] = way
        self.y = [0.0] * len(self.before)
        self._order_columns()
        self._settle()

    def _new_place(self, number: int) -> int:
        place = len(self.before)
        if place >= PICTURE_PLACES_MAX:
            raise GraphTooLarge("places in its picture", actual=place + 1, limit=PICTURE_PLACES_MAX)
        self.columns[number].append(place)
        self.before.append([])
        self.after.append([])
        return place

    def _order_columns(self) -> None:
        """Sort each column by the mean place of its neighbours in the last one, to and fro."""
        rank = [0.0] * len(self.before)
        for column in self.columns:
            for index, place in enumerate(column):
                rank[place] = index / len(column)

        def order(place: int) -> tuple[bool, float]:
            return not self.before[place] and not self.after[place], rank[place]

        best, fewest = [list(column) for column in self.columns], self._crossings()
        for sweep in range(SWEEPS):
            forwards = sweep % 2 == 0
            neighbours = self.before if forwards else self.after
            for column in self.columns if forwards else reversed(self.columns):
                for place in column:
                    if around := neighbours[place]:
                        rank[place] = sum([rank[near] for near in around]) / len(around)
                column.sort(key=order)
                for index, place in enumerate(column):
                    rank[place] = (index + 0.5) / len(column)
            crossings = self._crossings()
            if crossings < fewest:
                best, fewest = [list(column) for column in self.columns], crossings
        self.columns = best

    def _crossings(self) -> int:
        """Count the crossings between neighbouring columns with a binary indexed tree (Barth, Jünger & Mutzel 2002)."""
        total = 0
        for left, right in pairwise(self.columns):
            index = {place: number for number, place in enumerate(right, start=1)}
            tree = [0] * (len(right) + 1)
            seen = 0
            for place in left:
                ends = sorted(index[near] for near in self.after[place])
                for end in ends:
                    total += seen
                    while end:
                        total -= tree[end]
                        end &= end - 1
                for end in ends:
                    seen += 1
                    while end < len(tree):
                        tree[end] += 1
                        end += end & -end
        return total

    def _settle(self) -> None:
        """Pull every place towards the middle of its neighbours, in order and without overlaps."""
        for column in self.columns:
            for place, y in zip(column, self._stacked(column), strict=True):
                self.y[place] = y
        half = max(self._stacked(column)[-1] for column in self.columns)  # no column makes the picture higher
        for sweep in range(SWEEPS):
            forwards = sweep % 2 == 0
            for column in self.columns if forwards else reversed(self.columns):
                wishes: list[float] = []
                for place in column:
                    if near := (self.before[place] if forwards else self.after[place]):
                        wishes.append(sum([self.y[other] for other in near]) / len(near))
                    elif self.before[place] or self.after[place] or not wishes:
                        wishes.append(self.y[place])
                    else:  # nobody pulls it at all: it stays close
                        wishes.append(wishes[-1])
                offsets = self._stacked(column)
                lowest, highest = -half - offsets[0], half - offsets[-1]
                shifts = _isotonic([wish - offset for wish, offset in zip(wishes, offsets, strict=True)])
                for place, offset, shift in zip(column, offsets, shifts, strict=True):
                    self.y[place] = offset + min(max(shift, lowest), highest)
        top = min(self.y)
        self.y = [y - top for y in self.y]

    def _stacked(self, column: Sequence[int]) -> list[float]:
        heights = [BOX_HEIGHT + BOX_GAP if place < self.count else WAY_HEIGHT for place in column]
        steps = [(above + below) / 2 for above, below in pairwise(heights)]
        ys = [0.0, *accumulate(steps)]
        return [y - ys[-1] / 2 for y in ys[: len(column)]]


def _isotonic(wishes: Sequence[float]) -> list[float]:
    """Give the rising sequence nearest to the wishes (pool adjacent violators: Ayer et al. 1955)."""
    pools: list[tuple[float, int]] = []
    for wish in wishes:
        mean, size = wish, 1
        while pools and pools[-1][0] > mean:
            other, others = pools.pop()
            mean = (mean * size + other * others) / (size + others)
            size += others
        pools.append((mean, size))
    return [mean for mean, size in pools for _ in range(size)]


def to_svg(graph: Graph) -> str:
    """Draw a graph as SVG, 1 unit a pixel; components have their full id and weight as a tooltip.

    Raises:
        GraphTooLarge: more than `PICTURE_COMPONENTS_MAX` components, or too many long dependencies.
    """
    count = len(graph)
    if count > PICTURE_COMPONENTS_MAX:
        raise GraphTooLarge("components to draw", actual=count, limit=PICTURE_COMPONENTS_MAX)
    if not count:
        return _page(320, 80, ['<text class="note" x="160" y="44">The graph has no components.</text>'])
    phases = graph.phases()
    layout = _Layout(graph, phases)
    path = graph.critical_path()
    critical = set(path)
    steps = {(dependent, dependency) for dependency, dependent in pairwise(path)}

    labels = [_shortened(component_id) for component_id in graph.component_ids]
    widths = [max(64.0, 22 + max(_width(labels[position]) for position in phase)) for phase in phases]
    between = [
        48.0 + min(90.0, 0.9 * sum(len(layout.after[place]) for place in column)) for column in layout.columns[:-1]
    ]
    lefts = [MARGIN, *accumulate((w + gap for w, gap in zip(widths, between, strict=False)), initial=MARGIN)][1:]
    x_left, x_right = [0.0] * len(layout.y), [0.0] * len(layout.y)
    for column, left, width in zip(layout.columns, lefts, widths, strict=True):
        for place in column:
            x_left[place], x_right[place] = left, left + width
    y = [MARGIN + HEADER + BOX_HEIGHT / 2 + value for value in layout.y]
    bottom = max(y) + BOX_HEIGHT / 2
    page_height = bottom + MARGIN + FOOTER

    shapes: list[str] = []
    for number, (left, width, phase) in enumerate(zip(lefts, widths, phases, strict=True), start=1):
        longest = max(graph.weights[position] for position in phase)
        middle = left + width / 2
        shapes.append(
            f'<rect class="band" x="{left - 10:.1f}" y="{MARGIN:.1f}" width="{width + 20:.1f}" '
            f'height="{bottom + 12 - MARGIN:.1f}" rx="8"/>'
            f'<text class="head" x="{middle:.1f}" y="{MARGIN + 18:.1f}">Phase {number}</text>'
            f'<text class="note" x="{middle:.1f}" y="{MARGIN + 33:.1f}">{duration(longest)}</text>'
        )
    for pair in sorted(layout.ways, key=steps.__contains__):  # the critical path on top
        marks = "way" + " critical" * (pair in steps) + " optional" * (pair in graph.optional)
        way = layout.ways[pair]
        shapes.append(f'<path class="{marks}" d="{_curve(way, x_left, x_right, y)}"/>')
    for position in range(count):
        mark = "critical " if position in critical else ""
        left, top = x_left[position], y[position] - BOX_HEIGHT / 2
        shown = duration(graph.weights[position])
        shapes.append(
            f"<g><title>{_text(graph.component_ids[position])}, {shown}</title>"
            f'<rect class="{mark}box" x="{left:.1f}" y="{top:.1f}" width="{x_right[position] - left:.1f}" '
            f'height="{BOX_HEIGHT:g}" rx="6"/>'
            f'<text class="{mark}name" x="{left + 10:.1f}" y="{top + 16:.1f}">{_text(labels[position])}</text>'
            f'<text class="weight" x="{left + 10:.1f}" y="{top + 30:.1f}">{shown}</text></g>'
        )
    span, work = max(graph.upward_ranks()), fsum(graph.weights)
    foot = bottom + MARGIN + 20
    has = "1 component" if count == 1 else f"{count:,} components"
    total = sum(map(len, graph.dependencies))
    facts = [
        f"critical path {duration(span)}" + (f", {work / span:.2f} times faster than one by one" if span else ""),
        has,
        "1 dependency" if total == 1 else f"{total:,} dependencies",
        "1 phase" if len(phases) == 1 else f"{len(phases):,} phases",
    ]
    told = " · ".join(facts)
    shapes.append(
        f'<path class="way critical" d="M{MARGIN:g} {foot - 4:.1f} h26"/>'
        f'<text class="foot" x="{MARGIN + 34:g}" y="{foot:.1f}">{told}</text>'
    )
    page_width = max(lefts[-1] + widths[-1], MARGIN + 34 + FOOT_LETTER_WIDTH * len(told)) + MARGIN
    return _page(page_width, page_height, shapes)


def _curve(way: Sequence[int], x_left: Sequence[float], x_right: Sequence[float], y: Sequence[float]) -> str:
    """Lead a dependency from box to box, level through the columns that it only passes."""
    parts = [f"M{x_right[way[0]]:.1f} {y[way[0]]:.1f}"]
    for left, right in pairwise(way):
        middle = (x_right[left] + x_left[right]) / 2
        parts.append(f"C{middle:.1f} {y[left]:.1f} {middle:.1f} {y[right]:.1f} {x_left[right]:.1f} {y[right]:.1f}")
        if right != way[-1]:
            parts.append(f"H{x_right[right]:.1f}")
    return " ".join(parts)


def _page(width: float, height: float, shapes: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}" role="img" aria-label="Dependency graph">',
            f"<style>{STYLE}</style>",
            '<rect class="page" width="100%" height="100%"/>',
            *shapes,
            "</svg>",
            "",
        ]
    )


def _width(text: str) -> float:
    """Estimate the pixels of a bold label; letters from U+2E80 on (CJK and most emoji) are square."""
    return sum(
        13.0 if letter >= "\u2e80" else CAPITAL_WIDTH if letter.isupper() or letter in "_mwMW@%" else LETTER_WIDTH
        for letter in text
    )


def _shortened(text: str) -> str:
    if len(text) <= LABEL_MAX:
        return text
    half = (LABEL_MAX - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def _text(text: str) -> str:
    """Escape a text for XML, which has no control characters."""
    return escape(
        "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text), quote=False
    )
