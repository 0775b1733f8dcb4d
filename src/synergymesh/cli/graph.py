"""`synergymesh graph`: phases, critical path, parallelism and advice for a workflow, or for what is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synergymesh.cli import output
from synergymesh.cli.options import FILE_HELP
from synergymesh.errors import InvalidRequest

if TYPE_CHECKING:
    from synergymesh.resolver import DependencyResolver

PHASES_SHOWN_MAX = 20
CHARACTERS_OF_NAMES_MAX = 38
PATH_SHOWN_MAX = 15
"""Rows of a table that still fits on a screen; --format json has everything."""


class Format(StrEnum):
    """Name what `graph` writes."""

    TABLE = "table"
    JSON = "json"
    DOT = "dot"
    MERMAID = "mermaid"
    SVG = "svg"


def graph(
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help=FILE_HELP),
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="What to write.")] = Format.TABLE,
    target: Annotated[
        Path | None, typer.Option("--output", metavar="PATH", help="Write to a file instead of standard output.")
    ] = None,
    workers: Annotated[
        list[int] | None,
        typer.Option("--workers", metavar="N", min=1, help="Workers to plan for; may be repeated."),
    ] = None,
    installed: Annotated[
        bool, typer.Option("--installed", help="Analyse the installed Python distributions instead of a file.")
    ] = False,
) -> None:
    """Analyse a graph: phases, critical path, parallelism, recommendations."""
    if installed == (file is not None):
        raise InvalidRequest("give a FILE, or --installed. `synergymesh graph --help` shows how.", field="file")
    title, resolver, undoing = (*_of_installed(), {}) if installed else _of_file(str(file))
    match format_:
        case Format.TABLE:
            text = "\n".join([*_lines(title, resolver, workers), *_undoing_lines(undoing)])
        case Format.JSON:
            text = output.as_json({**_everything(title, resolver, workers), "compensations": undoing})
        case Format.DOT:
            text = resolver.to_dot()
        case Format.MERMAID:
            text = resolver.to_mermaid()
        case Format.SVG:
            text = resolver.to_svg()
    if not text.endswith("\n"):
        text += "\n"
    if target is None:
        output.write(text)
        return
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"--output {target} cannot be written: {error.strerror}.", field="output") from None
    output.note(f"{target} is written")


# --- the graph ------------------------------------------------------------------------------------------------------


def _of_file(spec: str) -> tuple[str, DependencyResolver, dict[str, str]]:
    from synergymesh.resolver import DependencyResolver
    from synergymesh.workflows.loader import load_workflow

    definition = load_workflow(spec).definition
    resolver = DependencyResolver()
    resolver.add_components((c.component_id, c.task, c.priority, c.weight) for c in definition.components)
    resolver.add_dependencies(
        (c.component_id, d.component_id, d.required) for c in definition.components for d in c.dependencies
    )
    return f"workflow {definition.name}", resolver, {k: c.task for k, c in definition.compensations.items()}


def _of_installed() -> tuple[str, DependencyResolver]:
    from synergymesh.cli.installed import read_environment
    from synergymesh.resolver import DependencyResolver

    environment = read_environment()
    resolver = DependencyResolver()
    found = environment.distributions.values()
    resolver.add_components((d.name, "distribution", 0, d.estimated_seconds) for d in found)
    resolver.add_dependencies((d.name, needed) for d in found for needed in d.needs)
    for name, needed in environment.cut:
        output.note(f"left out, since it closes a circle: {name} requires {needed}")
    return "installed Python distributions (durations: reading their files)", resolver


# --- what is written ------------------------------------------------------------------------------------------------


def _everything(title: str, resolver: DependencyResolver, workers: Sequence[int] | None) -> dict[str, Any]:
    return {
        "title": title,
        **resolver.export_graph(),
        "phases": output.jsonable(resolver.get_execution_phases()),
        "critical_path": resolver.get_critical_path(),
        "parallelization": resolver.get_parallelization_analysis(workers=workers or None),
    }


def _undoing_lines(undoing: Mapping[str, str]) -> list[str]:
    """Give what the table format shows of compensations."""
    if not undoing:
        return []
    rows = _table(("COMPONENT", "IS UNDONE BY"), list(undoing.items()), numbers=())
    return ["", "when a run fails or is cancelled, the latest first:", *rows]


def _lines(title: str, resolver: DependencyResolver, workers: Sequence[int] | None) -> list[str]:
    """Give what the table format shows, as lines."""
    stats = resolver.get_dependency_stats()
    analysis = resolver.get_parallelization_analysis(workers=workers or None)
    lines = [
        output.clean(title),
        f"{stats['total_components']:,} components, {stats['total_dependencies']:,} dependencies, "
        f"{len(stats['roots']):,} without dependencies, {len(stats['leaves']):,} at the end",
        f"one after the other {_ms(analysis['sequential_time_ms'])}, side by side at best "
        f"{_ms(analysis['parallel_time_ms'])}: {analysis['potential_speedup']}",
        "",
    ]
    phases = resolver.get_execution_phases()
    lines += _table(
        ("PHASE", "COMPONENTS", "TAKES", "WHICH"),
        [
            (p.phase_number, f"{len(p.components):,}", _ms(p.estimated_duration_ms), _names(p.components))
            for p in phases[:PHASES_SHOWN_MAX]
        ],
        numbers=("PHASE", "COMPONENTS", "TAKES"),
    )
    if len(phases) > PHASES_SHOWN_MAX:
        lines.append(f"… and {len(phases) - PHASES_SHOWN_MAX:,} more phases; --format json shows all")
    path = resolver.get_critical_path()
    lines += ["", f"critical path, {_ms(analysis['parallel_time_ms'])} in {len(path):,} components:"]
    shown = path if len(path) <= PATH_SHOWN_MAX else [*path[: PATH_SHOWN_MAX - 6], *path[-5:]]
    for position, component_id in enumerate(shown):
        if len(path) > PATH_SHOWN_MAX and position == PATH_SHOWN_MAX - 6:
            lines.append(f"  … {len(path) - len(shown):,} more …")
        weight = _ms(resolver.nodes[component_id].weight * 1_000)
        lines.append(f"  {weight:>9}  {output.clean(component_id)}")
    lines.append("")
    lines += _table(
        ("WORKERS", "TAKES", "SPEED-UP", "BUSY", "AT LEAST", "AT MOST"),
        [
            (
                f"{s['workers']:,}",
                "-" if s["makespan_ms"] is None else _ms(s["makespan_ms"]),
                f"{s['speedup']:.2f}x",
                f"{s['utilization']:.0%}",
                _ms(s["lower_bound_ms"]),
                _ms(s["upper_bound_ms"]),
            )
            for s in analysis["schedules"]
        ],
        numbers=("WORKERS", "TAKES", "SPEED-UP", "BUSY", "AT LEAST", "AT MOST"),
    )
    lines += ["", "recommendations:"]
    lines += [f"  - {output.clean(message)}" for message in resolver.get_optimization_recommendations()]
    return lines


def _ms(milliseconds: float) -> str:
    return output.duration(milliseconds / 1_000)


def _names(component_ids: Sequence[str]) -> str:
    """Name as many components as fit on a line."""
    shown: list[str] = []
    for component_id in component_ids:
        name = output.clean(component_id)
        if shown and len(", ".join([*shown, name])) > CHARACTERS_OF_NAMES_MAX:
            return f"{', '.join(shown)}, … {len(component_ids) - len(shown):,} more"
        shown.append(name)
    return ", ".join(shown)


def _table(headings: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: Sequence[str]) -> list[str]:
    return output.draw_table(headings, rows, numbers=numbers, plain=True).rstrip("\n").split("\n")
