"""What all pictures of timelines share: colours, marks, the axis of time, texts."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from html import escape

from synergymesh.domain.graphs.recommendations import duration
from synergymesh.domain.observability.timeline import Phase, Span, Timeline
from synergymesh.domain.states import ExecutionStatus

WIDTH = 1_240.0
LEFT = 232.0
RIGHT = 24.0
CHART = WIDTH - LEFT - RIGHT
"""Pixels of the axis of time."""

HEADER = 88.0
HEADLESS = 28.0
"""Where the chart begins, below what the picture is of, and without it."""

TICKS_WANTED = 8
LABEL_MAX = 30
"""Letters of middle width, of a label at the left."""

LETTER = 6.4
"""Pixels of such a letter in an axis."""

TALL = 500.0
"""A chart that is higher has the time below it, too."""

NAMES = {
    Phase.NOT_BEFORE: "not to start yet",
    Phase.DEPENDENCY: "waits for another task",
    Phase.QUEUE: "could start",
    Phase.CONCURRENCY: "limit: tasks at a time",
    Phase.MEMORY: "limit: memory",
    Phase.CPU: "limit: CPUs",
    Phase.HOUR_LIMIT: "limit: starts per hour",
    Phase.CAPACITY: "capacity of all tenants",
    Phase.CIRCUIT_OPEN: "circuit open",
    Phase.PAUSED: "tenant suspended",
    Phase.COMMIT: "commit before it",
    Phase.RETRY_DELAY: "pause before a retry",
    Phase.OUTAGE: "process was away, or queue after it",
    Phase.RUNNING: "runs",
}

STYLE = """
  svg { font-family: ui-sans-serif, system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
  .page { fill: #ffffff; }
  .title { fill: #0f172a; font-size: 15px; font-weight: 600; }
  .facts, .tick, .legend { fill: #475569; font-size: 11.5px; }
  .tick { text-anchor: middle; }
  .grid { stroke: #e2e8f0; stroke-width: 1; }
  .stripe { fill: #f8fafc; }
  .label { fill: #1e293b; text-anchor: end; }
  .label.critical { fill: #0f172a; font-weight: 700; }
  .criticalrow { fill: #fef3c7; }
  .shown { fill: #475569; font-size: 10px; paint-order: stroke; stroke: #ffffff; stroke-width: 3px; }
  .inside { fill: #ffffff; font-size: 11px; }
  .not_before { fill: #c4b5fd; }
  .dependency { fill: #e2e8f0; }
  .queue { fill: #fde047; }
  .concurrency { fill: #f59e0b; }
  .memory { fill: #0d9488; }
  .cpu { fill: #84cc16; }
  .hour_limit { fill: #ec4899; }
  .capacity { fill: #a16207; }
  .circuit_open { fill: #ea580c; }
  .paused { fill: #78716c; }
  .commit { fill: #c8bfa8; }
  .retry_delay { fill: #a855f7; }
  .outage { fill: #64748b; }
  .success { fill: #3b82f6; }
  .failed { fill: #dc2626; }
  .timeout { fill: #9f1239; }
  .cancelled { fill: #94a3b8; }
  .running { fill: #22c55e; }
  .criticalbar { fill: none; stroke: #0f172a; stroke-width: 1.7; }
  .step { fill: none; stroke: #0f172a; stroke-width: 1.5; }
  .gone { stroke: #94a3b8; stroke-width: 1.4; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0f172a; }
    .title, .label { fill: #e2e8f0; }
    .shown { stroke: #0f172a; }
    .criticalrow { fill: #3a2f10; }
    .facts, .tick, .legend, .shown { fill: #94a3b8; }
    .grid { stroke: #1e293b; }
    .stripe { fill: #131d33; }
    .dependency { fill: #334155; }
    .label.critical { fill: #ffffff; }
    .criticalbar, .step { stroke: #ffffff; }
  }
"""

STATUSES = (
    (ExecutionStatus.SUCCESS, "attempt succeeded"),
    (ExecutionStatus.FAILED, "failed"),
    (ExecutionStatus.TIMEOUT, "timed out"),
    (ExecutionStatus.CANCELLED, "stopped"),
    (ExecutionStatus.RUNNING, "runs now"),
)


def mark_of(span: Span) -> str:
    """Give the class of a span."""
    if span.phase is not Phase.RUNNING:
        return span.phase.value
    assert span.status is not None
    return span.status.value


def meaning_of(span: Span) -> str:
    """Say in general what a span is."""
    if span.phase is not Phase.RUNNING:
        return NAMES[span.phase]
    return dict(STATUSES).get(span.status or ExecutionStatus.RUNNING, "ran")


def told(task_id: str, span: Span) -> str:
    """Say what a span is, for a tooltip."""
    what = f"attempt {span.attempt}, {span.status}" if span.phase is Phase.RUNNING else NAMES[span.phase]
    return f"{task_id}: {what}, {duration(span.seconds)} (from {duration(span.begin)} on)"


class Scale:
    """Turn seconds into pixels."""

    def __init__(self, seconds: float) -> None:
        self.seconds = max(seconds, 1e-9)
        self.step = _nice(self.seconds / TICKS_WANTED)

    def x(self, seconds: float) -> float:
        """Give the place of a moment."""
        return LEFT + CHART * min(max(seconds / self.seconds, 0.0), 1.0)

    def axis(self, top: float, bottom: float) -> list[str]:
        """Draw the lines of the time, and what time it is at each."""
        shapes = []
        places = [top - 6, bottom + 14] if bottom - top > TALL else [top - 6]
        for number in range(math.floor(self.seconds / self.step * (1 + 1e-9)) + 1):
            x = self.x(number * self.step)
            moment = _moment(number * self.step, self.step)
            # the last one may be at the right edge
            middle = min(x, WIDTH - 4 - LETTER * len(moment) / 2)
            shapes.append(f'<path class="grid" d="M{x:.1f} {top:.1f} V{bottom:.1f}"/>')
            shapes += [f'<text class="tick" x="{middle:.1f}" y="{y:.1f}">{moment}</text>' for y in places]
        return shapes


def _nice(seconds: float) -> float:
    """Give the next step that people count in: 1, 2 or 5 times a power of ten, whole minutes, hours, days."""
    for step in (60, 120, 300, 600, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200, 86_400):
        if 20 < seconds <= step:
            return float(step)
    if seconds > 20:
        return math.ceil(seconds / 86_400) * 86_400.0
    power = 10.0 ** math.floor(math.log10(seconds))
    return next(factor * power for factor in (1, 2, 5, 10) if seconds <= factor * power * (1 + 1e-9))


def _moment(seconds: float, step: float) -> str:
    if step >= 86_400:
        return f"{seconds / 86_400:g} d"
    if step >= 60:
        hours, rest = divmod(round(seconds), 3_600)
        return f"{hours}:{rest // 60:02} h" if hours else f"{rest // 60} min"
    if step >= 1:
        return f"{seconds:g} s"
    if step >= 0.1:
        return f"{seconds:.1f} s"
    if step >= 0.000_01:
        return f"{round(seconds * 1e3, 3):g} ms"
    return f"{round(seconds * 1e6, 3):g} µs"


def rectangle(marks: str, x: float, y: float, width: float, height: float, title: str = "") -> str:
    """Draw a rectangle that is never too narrow to be seen."""
    shape = f'<rect class="{marks}" x="{x:.2f}" y="{y:.1f}" width="{max(width, 0.6):.2f}" height="{height:.1f}"'
    return f"{shape}/>" if not title else f"{shape}><title>{text(title)}</title></rect>"


def head(timeline: Timeline, is_wanted: bool) -> tuple[list[str], float]:
    """Say what the picture is of, and where the time went, if that is wanted; give where the chart begins."""
    if not is_wanted:
        return [], HEADLESS
    facts = " · ".join(facts_of(timeline))
    title = f"{timeline.workflow}  {timeline.run_id}"
    return [
        f'<text class="title" x="16" y="26">{text(shortened(title, 120))}</text>',
        f'<text class="facts" x="16" y="46">{text(facts)}</text>',
    ], HEADER


def facts_of(timeline: Timeline) -> list[str]:
    """Give the figures that matter, as short texts."""
    totals = timeline.critical_totals()
    tasks = len(timeline.lanes)
    facts = [
        str(timeline.status),
        f"{tasks:,} task{'s' * (tasks != 1)}",
        f"{timeline.submitted_at:%Y-%m-%d %H:%M:%S} UTC",
        f"{duration(timeline.seconds)} in all",
    ]
    if timeline.critical_path:
        shares = [f"{_VERBS[p]} {duration(totals[p])}" for p in Phase if totals[p] > 0]
        facts.append(f"critical path of {len(timeline.critical_path):,}: {', '.join(shares)}")
    return facts


_VERBS = {
    Phase.NOT_BEFORE: "not to start",
    Phase.DEPENDENCY: "dependencies",
    Phase.QUEUE: "in the queue",
    Phase.CONCURRENCY: "concurrency",
    Phase.MEMORY: "memory",
    Phase.CPU: "CPUs",
    Phase.HOUR_LIMIT: "hour limit",
    Phase.CAPACITY: "capacity",
    Phase.CIRCUIT_OPEN: "open circuit",
    Phase.PAUSED: "suspended",
    Phase.COMMIT: "commits",
    Phase.RETRY_DELAY: "retry pauses",
    Phase.OUTAGE: "process away",
    Phase.RUNNING: "running",
}


def legend(y: float, marks: Iterable[tuple[str, str, bool]]) -> list[str]:
    """Explain the colours: triples of class, text, and whether it is a thick bar."""
    shapes = []
    x = 16.0
    for mark, meaning, thick in marks:
        wide = 24 + 6.3 * len(meaning) + 18
        if x + wide > WIDTH - 8:
            x, y = 16.0, y + 18
        height = 10 if thick else 5
        shapes.append(
            f'<rect class="{mark}" x="{x:.1f}" y="{y - 4 - height / 2:.1f}" width="16" height="{height}" rx="1"/>'
            f'<text class="legend" x="{x + 22:.1f}" y="{y:.1f}">{text(meaning)}</text>'
        )
        x += wide
    return shapes


def meanings(timeline: Timeline) -> list[tuple[str, str, bool]]:
    """Give the legend of what occurs in a timeline."""
    statuses = {s.status for lane in timeline.lanes for s in lane.spans if s.phase is Phase.RUNNING}
    totals = timeline.totals()
    found = [(status.value, meaning, True) for status, meaning in STATUSES if status in statuses]
    found += [(p.value, NAMES[p], False) for p in Phase if p is not Phase.RUNNING and totals[p] > 0]
    if timeline.critical_path:
        found.append(("criticalbar", "critical path, as it really was", True))
    return found


def page(height: float, timeline: Timeline, shapes: Sequence[str]) -> str:
    """Put a picture together, with its description for those who do not see it."""
    described = f"{timeline.workflow}, {timeline.run_id}: {', '.join(facts_of(timeline))}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height:.0f}" width="{WIDTH:.0f}" '
            f'height="{height:.0f}" role="img" aria-label="{text(described)}">',
            f"<style>{STYLE}</style>",
            '<rect class="page" width="100%" height="100%"/>',
            *shapes,
            "</svg>",
            "",
        ]
    )


def shortened(label: str, most: int = LABEL_MAX) -> str:
    """Leave out the middle of a text that is wider than so many letters."""
    if _width(label) <= most:
        return label
    half = (most - 1) / 2
    return f"{label[: _fitting(label, half)]}…{label[len(label) - _fitting(label[::-1], half) :]}"


def _width(text: str) -> float:
    """Estimate how wide a text is, in letters of middle width."""
    return sum(map(_letter_width, text))


def _letter_width(letter: str) -> float:
    if unicodedata.combining(letter):
        return 0.0
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.9
    return 1.8 if letter in "mwMW@%—" else 1.15 if letter.isupper() else 1.0


def _fitting(text: str, most: float) -> int:
    """Give how many of the first letters of a text are no wider than that."""
    width = 0.0
    for count, letter in enumerate(text):
        width += _letter_width(letter)
        if width > most:
            return count
    return len(text)


def shortened_front(label: str, most: int) -> str:
    """Leave out the beginning of a long text: ends of ids differ."""
    return label if len(label) <= most else f"…{label[1 - most :]}"


def text(raw: str) -> str:
    """Escape a text for XML, which has no control characters."""
    return escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in raw), quote=True)
