"""A page that shows a timeline: the picture, what the critical path spent its time on, and the tasks as a table."""

from __future__ import annotations

from synergymesh.domain.graphs.recommendations import duration
from synergymesh.domain.observability.timeline import WAITS, Lane, Phase, Timeline
from synergymesh.timeline import drawing
from synergymesh.timeline.picture import draw

TABLE_ROWS_MAX = 200
"""Tasks in the table: those that ended last; the picture has all of them."""

_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0; padding: 20px; background: #fff; color: #0f172a;
  font: 14px/1.5 ui-sans-serif, system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 20px; margin: 0 0 4px; } h2 { font-size: 15px; margin: 24px 0 8px; }
p { margin: 0 0 14px; color: #475569; }
.picture { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 12px 3px 0; text-align: right; white-space: nowrap; border-bottom: 1px solid #e2e8f0; }
th:first-child, td:first-child { text-align: left; }
.critical { color: #b91c1c; font-weight: 600; }
@media (prefers-color-scheme: dark) {
  body { background: #0f172a; color: #e2e8f0; } p { color: #94a3b8; }
  th, td { border-color: #1e293b; } .critical { color: #f87171; }
}
"""


def timeline_html(timeline: Timeline) -> str:
    """Draw a timeline as a page of its own: no scripts, nothing is loaded, light and dark as the reader likes it."""
    title = drawing.text(f"{timeline.workflow} {timeline.run_id}")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}: timeline</title>",
            f"<style>{_STYLE}</style>",
            "</head>",
            "<body>",
            f"<h1>{title}</h1>",
            f"<p>{drawing.text(' · '.join(drawing.facts_of(timeline)))}</p>",
            '<div class="picture" tabindex="0" role="region" aria-label="Picture">',
            draw(timeline, has_head=False),
            "</div>",
            *_path_table(timeline),
            *_task_table(timeline),
            "</body>",
            "</html>",
            "",
        ]
    )


def _path_table(timeline: Timeline) -> list[str]:
    if not timeline.critical_path:
        return []
    totals = timeline.critical_totals()
    whole = sum(totals.values()) or 1.0
    rows = [
        f'<tr><th scope="row">{drawing.NAMES[phase]}</th><td>{duration(totals[phase])}</td>'
        f"<td>{100 * totals[phase] / whole:.1f} %</td></tr>"
        for phase in (Phase.RUNNING, *WAITS)
        if totals[phase] > 0
    ]
    head = '<tr><th scope="col">the critical path</th><th scope="col">time</th><th scope="col">share</th></tr>'
    return ["<h2>Where the time went</h2>", f"<table><thead>{head}</thead><tbody>", *rows, "</tbody></table>"]


def _task_table(timeline: Timeline) -> list[str]:
    shown = sorted(timeline.lanes, key=lambda lane: -lane.end)[:TABLE_ROWS_MAX]
    phases = [phase for phase in (*WAITS, Phase.RUNNING) if any(lane.seconds(phase) > 0 for lane in timeline.lanes)]
    heads = ["task", "status", "attempts", *(drawing.NAMES[phase] for phase in phases), "ended after"]
    note = "" if len(shown) == len(timeline.lanes) else f" (the last {len(shown):,} of {len(timeline.lanes):,})"
    return [
        f"<h2>Tasks{note}</h2>",
        "<table><thead><tr>" + "".join(f'<th scope="col">{name}</th>' for name in heads) + "</tr></thead><tbody>",
        *(_task_row(lane, phases) for lane in shown),
        "</tbody></table>",
    ]


def _task_row(lane: Lane, phases: list[Phase]) -> str:
    attempts = sum(span.phase is Phase.RUNNING for span in lane.spans)
    mark = ' class="critical"' * lane.critical
    cells = [lane.status.value, f"{attempts:,}", *(duration(lane.seconds(p)) for p in phases), duration(lane.end)]
    return (
        f'<tr><th scope="row"{mark}>{drawing.text(lane.task_id)}</th>'
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "</tr>"
    )
