"""The picture of a run with many tasks: how many ran and waited when, the critical path, and who ran beside whom."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

from synergymesh.domain.graphs.recommendations import duration
from synergymesh.domain.observability.timeline import QUEUED, Lane, Phase, Span, Timeline
from synergymesh.timeline import drawing

BINS = 496
"""Columns of the areas: two pixels and a bit each."""

AREA_HEIGHT = 150.0
PATH_HEIGHT = 30.0
LANES_HEIGHT = 560.0
LANE_HEIGHT_MAX = 16.0
LANES_MAX = 280
"""Tasks beside each other that can still be told apart: two pixels each."""

LABEL_ROOM = 7.0
"""Pixels that a letter of a label inside a bar takes."""

STACKED = (*(status.value for status, _ in drawing.STATUSES), Phase.OUTAGE, Phase.RETRY_DELAY, *QUEUED)
"""Marks, from below: what ran, by its end, then what waited. Who waits for another task is left out: at first these
are nearly all."""


def draw_condensed(timeline: Timeline, *, has_head: bool) -> str:
    """Draw a timeline in a height that does not depend on the number of tasks."""
    scale = drawing.Scale(timeline.seconds)
    shapes, top = drawing.head(timeline, has_head)
    body = _draw_areas(timeline, scale, top)
    y = top + AREA_HEIGHT + 22
    body += _draw_path(timeline, scale, y)
    y += PATH_HEIGHT + 22
    lanes, bottom = _draw_lanes(timeline, scale, y)
    shapes += scale.axis(top, bottom)
    shapes += body + lanes
    marks = [each for each in drawing.meanings(timeline) if each[0] != Phase.DEPENDENCY]
    shapes += drawing.legend(bottom + 38, marks)
    return drawing.page(bottom + 72, timeline, shapes)


# --- how many -------------------------------------------------------------------------------------------------------


def count_in_bins(spans: Sequence[tuple[float, float]], seconds: float, bins: int) -> list[float]:
    """Give for each of so many equal bins of time how many spans cover it, on average; O(spans + bins)."""
    width = max(seconds, 1e-9) / bins
    partial = [0.0] * (bins + 1)
    change = [0] * (bins + 2)
    for begin, end in spans:
        first, last = begin / width, end / width
        low, high = min(int(first), bins - 1), min(int(last), bins)
        if low == high:
            partial[low] += last - first
            continue
        partial[low] += low + 1 - first
        partial[high] += last - high
        change[low + 1] += 1
        change[high] -= 1
    counts = []
    covering = 0
    for index in range(bins):
        covering += change[index]
        counts.append(covering + partial[index])
    return counts


def _draw_areas(timeline: Timeline, scale: drawing.Scale, top: float) -> list[str]:
    spans: dict[str, list[Span]] = defaultdict(list)
    for lane in timeline.lanes:
        for span in lane.spans:
            spans[drawing.mark_of(span)].append(span)
    counts = {mark: count_in_bins([(s.begin, s.end) for s in spans[mark]], scale.seconds, BINS) for mark in STACKED}
    most = max(1.0, *(sum(counts[mark][index] for mark in STACKED) for index in range(BINS)))
    shapes = _side_label(top + AREA_HEIGHT / 2, "tasks at a time", f"up to {most:,.0f}")
    below = [0.0] * BINS
    for mark in STACKED:
        above = [low + count for low, count in zip(below, counts[mark], strict=True)]
        if spans[mark]:
            total = sum(span.seconds for span in spans[mark])
            title = f"{drawing.meaning_of(spans[mark][0])}: {duration(total)} of all tasks together"
            shapes.append(
                f'<path class="{mark}" d="{_area(below, above, most, top)}"><title>{drawing.text(title)}</title></path>'
            )
        below = above
    return shapes


def _area(below: Sequence[float], above: Sequence[float], most: float, top: float) -> str:
    """Give the outline between two stairs."""
    step = drawing.CHART / BINS

    def y(count: float) -> str:
        return f"{top + AREA_HEIGHT * (1 - count / most):.1f}"

    there = [f"M{drawing.LEFT:.1f} {y(above[0])}"]
    there += [f"V{y(count)}H{drawing.LEFT + (index + 1) * step:.1f}" for index, count in enumerate(above)]
    back = [f"V{y(below[index])}H{drawing.LEFT + index * step:.1f}" for index in range(BINS - 1, -1, -1)]
    return "".join([*there, *back, "Z"])


# --- the critical path ----------------------------------------------------------------------------------------------


def _draw_path(timeline: Timeline, scale: drawing.Scale, y: float) -> list[str]:
    count = len(timeline.critical_path)
    shapes = _side_label(y + PATH_HEIGHT / 2, "critical path", f"{count:,} task{'s' * (count != 1)}")
    for step in timeline.critical_path:
        for span in step.spans:
            x, width = scale.x(span.begin), scale.x(span.end) - scale.x(span.begin)
            share = 0.7 if span.phase is Phase.RUNNING else 0.26
            height = PATH_HEIGHT * share
            title = drawing.told(step.task_id, span)
            mark = drawing.mark_of(span)
            shapes.append(drawing.rectangle(mark, x, y + (PATH_HEIGHT - height) / 2, width, height, title))
            if span.phase is Phase.RUNNING:
                shapes.append(drawing.rectangle("criticalbar", x, y + (PATH_HEIGHT - height) / 2, width, height))
                letters = int((width - 8) / LABEL_ROOM)
                if letters >= 6:
                    label = drawing.text(drawing.shortened_front(step.task_id, letters))
                    shapes.append(
                        f'<text class="inside" x="{x + 5:.1f}" y="{y + PATH_HEIGHT / 2 + 4:.1f}">{label}</text>'
                    )
    return shapes


# --- who ran beside whom --------------------------------------------------------------------------------------------


def pack(lanes: Sequence[Lane]) -> list[list[tuple[Lane, Span]]]:
    """Lay everything that ran into as few rows as possible, so that nothing in a row overlaps."""
    runs = [(span, lane) for lane in lanes for span in lane.spans if span.phase is Phase.RUNNING]
    runs.sort(key=lambda run: (run[0].begin, run[0].end))
    rows: list[list[tuple[Lane, Span]]] = []
    busy: list[tuple[float, int]] = []
    free: list[int] = []
    for span, lane in runs:
        while busy and busy[0][0] <= span.begin:
            heappush(free, heappop(busy)[1])
        if free:
            row = heappop(free)
        else:
            row = len(rows)
            rows.append([])
        rows[row].append((lane, span))
        heappush(busy, (span.end, row))
    return rows


def _draw_lanes(timeline: Timeline, scale: drawing.Scale, top: float) -> tuple[list[str], float]:
    rows = pack(timeline.lanes)
    shown = rows[:LANES_MAX]
    height = min(LANE_HEIGHT_MAX, LANES_HEIGHT / max(1, len(shown)))
    bottom = top + height * len(shown) + 4
    second = f"{len(rows):,} beside each other"
    shapes = _side_label(top + min(40.0, (bottom - top) / 2), "what ran", second)
    for number, row in enumerate(shown):
        y = top + number * height
        bar = max(1.2, height * 0.8)
        for lane, span, count in _merged(row, scale):
            x, width = scale.x(span.begin), scale.x(span.end) - scale.x(span.begin)
            title = drawing.told(lane.task_id, span) if count == 1 else f"{count:,} attempts: {span.status}"
            shapes.append(drawing.rectangle(drawing.mark_of(span), x, y, width, bar, title))
            if lane.critical and count == 1:
                shapes.append(drawing.rectangle("criticalbar", x, y, width, bar))
    if len(rows) > len(shown):
        hidden = sum(map(len, rows[LANES_MAX:]))
        bottom += 18
        shapes.append(
            f'<text class="facts" x="{drawing.LEFT:.0f}" y="{bottom - 2:.1f}">and {hidden:,} attempts in '
            f"{len(rows) - len(shown):,} more rows, which are only counted above</text>"
        )
    return shapes, bottom


def _merged(row: Sequence[tuple[Lane, Span]], scale: drawing.Scale) -> Iterator[tuple[Lane, Span, int]]:
    """Put neighbours together that nobody could tell apart: within a pixel, with the same end, not critical."""
    pixel = scale.seconds / drawing.CHART
    held: tuple[Lane, Span, int] | None = None
    for lane, span in row:
        if held is not None:
            before, wide, count = held
            if not (before.critical or lane.critical) and wide.status is span.status and span.end - wide.begin <= pixel:
                held = before, Span(wide.phase, wide.begin, span.end, wide.attempt, wide.status), count + 1
                continue
            yield held
        held = lane, span, 1
    if held is not None:
        yield held


def _side_label(y: float, first: str, second: str) -> list[str]:
    x = drawing.LEFT - 12
    return [
        f'<text class="label" x="{x:.0f}" y="{y - 2:.1f}" font-size="12">{drawing.text(first)}</text>'
        f'<text class="label facts" x="{x:.0f}" y="{y + 14:.1f}">{drawing.text(second)}</text>'
    ]
