"""What the engine benchmarks run: workflows of no-op tasks in the shapes that matter."""

from __future__ import annotations

from synergymesh import Workflow, task, workflow


@task
async def nothing() -> None:
    """Do nothing: what is measured is everything around it."""


@workflow
def single() -> object:
    """Run one task."""
    return nothing()


def layered(layers: int, width: int) -> Workflow:
    """Make a graph in which each component depends on all of the layer before it."""
    graph = Workflow(f"layered-{layers}x{width}")
    for layer in range(layers):
        before = [f"n{layer - 1}-{i}" for i in range(width)] if layer else []
        for i in range(width):
            graph.add(nothing, id=f"n{layer}-{i}", depends_on=before)
    return graph


def chain(length: int) -> Workflow:
    """Make a graph in which each component depends on the one before it."""
    graph = Workflow(f"chain-{length}")
    for i in range(length):
        graph.add(nothing, id=f"n{i}", depends_on=[f"n{i - 1}"] if i else [])
    return graph
