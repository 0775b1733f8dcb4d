"""The picture with a row for each task."""

from __future__ import annotations

from synergymesh.domain.graphs.recommendations import duration
from synergymesh.domain.observability.timeline import Lane, Phase, Span, Timeline
from synergymesh.timeline import drawing
from synergymesh.timeline.condensed import draw_condensed

ROWS_MAX = 400
"""Tasks with a row of their own; more are condensed, since nobody scrolls through them."""

HEIGHTS = ((40, 24.0), (120, 18.0), (ROWS_MAX, 13.0))
"""Pixels of a row by the number of tasks."""

ROOM_FOR_DURATION = 20.0
"""Rows of at least this height say how long their last attempt was."""


def timeline_svg(timeline: Timeline) -> str:
    """Draw a timeline as SVG, 1 unit a pixel: a row for each of up to 400 tasks, more are condensed.

    Every bar has its task, what it is, and its length as a tooltip. Texts of others are escaped; there are no scripts.
    """
    return draw(timeline)


def draw(timeline: Timeline, *, has_head: bool = True) -> str:
    """Draw a timeline as `timeline_svg` does, or without saying at the top what it is of."""
    if len(timeline.lanes) > ROWS_MAX:
        return draw_condensed(timeline, has_head=has_head)
    return _draw_rows(timeline, has_head)


def _draw_rows(timeline: Timeline, has_head: bool) -> str:
    scale = drawing.Scale(timeline.seconds)
    height = next(height for most, height in HEIGHTS if len(timeline.lanes) <= most)
    order = sorted(range(len(timeline.lanes)), key=lambda position: (_begin(timeline.lanes[position]), position))
    shapes, top = drawing.head(timeline, has_head)
    row_of = {timeline.lanes[position].task_id: row for row, position in enumerate(order)}
    bottom = top + height * len(order) + 4
    for row, position in enumerate(order):
        mark = "criticalrow" if timeline.lanes[position].critical else "stripe" if row % 2 else ""
        if mark:
            shapes.append(drawing.rectangle(mark, 8, top + row * height, drawing.WIDTH - 16, height))
    shapes += scale.axis(top, bottom)
    for row, position in enumerate(order):
        shapes += _draw_row(timeline.lanes[position], scale, top + row * height, height)
    shapes += _draw_steps(timeline, scale, {name: top + row * height for name, row in row_of.items()}, height)
    shapes += drawing.legend(bottom + 36, drawing.meanings(timeline))
    return drawing.page(bottom + 70, timeline, shapes)


def _draw_row(lane: Lane, scale: drawing.Scale, y: float, height: float) -> list[str]:
    size = min(12.0, height * 0.72)
    critical = " critical" * lane.critical
    label = drawing.text(drawing.shortened(lane.task_id))
    shapes = [
        f"<g><title>{drawing.text(f'{lane.task_id}: {lane.task}, {lane.status}')}</title>"
        f'<text class="label{critical}" x="{drawing.LEFT - 10:.0f}" y="{y + height / 2 + size * 0.36:.1f}" '
        f'font-size="{size:.1f}">{label}</text></g>'
    ]
    for span in lane.spans:
        shapes.append(_draw_span(lane, span, scale, y, height))
    runs = [span for span in lane.spans if span.phase is Phase.RUNNING]
    if not runs and lane.status.is_final:
        x = scale.x(lane.end)
        shapes.append(
            f'<path class="gone" d="M{x - 3:.1f} {y + height / 2 - 3:.1f} l6 6 m0 -6 l-6 6">'
            f"<title>{drawing.text(f'{lane.task_id}: {lane.status} at {duration(lane.end)}')}</title></path>"
        )
    if runs and height >= ROOM_FOR_DURATION:
        x = scale.x(runs[-1].end)
        right = x > drawing.WIDTH - 80
        anchor = ' text-anchor="end"' if right else ""
        x = scale.x(runs[-1].begin) - 5 if right else x + 5
        shapes.append(
            f'<text class="shown"{anchor} x="{x:.1f}" y="{y + height / 2 + 3.6:.1f}">'
            f"{duration(runs[-1].seconds)}</text>"
        )
    return shapes


def _draw_span(lane: Lane, span: Span, scale: drawing.Scale, y: float, height: float) -> str:
    """Draw what ran as a thick bar, waits as thin ones."""
    x, width = scale.x(span.begin), scale.x(span.end) - scale.x(span.begin)
    share = 0.66 if span.phase is Phase.RUNNING else 0.24
    mark, title = drawing.mark_of(span), drawing.told(lane.task_id, span)
    shape = drawing.rectangle(mark, x, y + height * (1 - share) / 2, width, height * share, title)
    if lane.critical and span.phase is Phase.RUNNING:
        shape += drawing.rectangle("criticalbar", x, y + height * 0.17, width, height * 0.66)
    return shape


def _draw_steps(timeline: Timeline, scale: drawing.Scale, y_of: dict[str, float], height: float) -> list[str]:
    """Lead from each task of the critical path to the next."""
    shapes = []
    ends = {lane.task_id: lane.end for lane in timeline.lanes}
    for before, after in zip(timeline.critical_path, timeline.critical_path[1:], strict=False):
        x = scale.x(ends[before.task_id])
        start, end = y_of[before.task_id] + height / 2, y_of[after.task_id] + height / 2
        way = height * 0.33 if end > start else -height * 0.33
        shapes.append(f'<path class="step" d="M{x:.1f} {start + way:.1f} V{end - way * 0.4:.1f}"/>')
    return shapes


def _begin(lane: Lane) -> float:
    """Give when a task was done waiting for others."""
    return next((s.begin for s in lane.spans if s.phase not in (Phase.DEPENDENCY, Phase.NOT_BEFORE)), lane.end)
