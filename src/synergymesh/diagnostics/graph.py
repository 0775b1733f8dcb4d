"""Examines the graph of a workflow: circles, what is missing, redundancies, bottlenecks."""

from __future__ import annotations

from synergymesh.diagnostics.findings import Finding, note, ok, wrong
from synergymesh.domain.graphs.recommendations import RecommendationKind
from synergymesh.errors import (
    CircularDependency,
    DuplicateComponent,
    InvalidRequest,
    InvalidWorkflow,
    UnknownComponent,
    WorkflowFileError,
)
from synergymesh.resolver import DependencyResolver
from synergymesh.workflows.loader import load_workflow


def examine_graph(spec: str) -> list[Finding]:
    """Examine the graph of a workflow: FILE.py[:NAME], a WfFormat trace, or module[:NAME]."""
    try:
        definition = load_workflow(spec).definition
    except CircularDependency as error:
        return [wrong("cycles", f"{' -> '.join(error.cycle)}.", "Remove one of these dependencies.")]
    except UnknownComponent as error:
        return [wrong("missing", str(error), "Add the component, or correct the name.")]
    except DuplicateComponent as error:
        return [wrong("duplicates", str(error), "Give one of them another id.")]
    except (InvalidWorkflow, WorkflowFileError, InvalidRequest) as error:
        return [wrong("workflow", str(error), "Correct it; it cannot be submitted like this.")]
    resolver = DependencyResolver.from_definition(definition)
    count = len(definition.components)
    findings = [
        ok("components", f"{definition.name} has {count:,} component{'s' * (count != 1)}."),
        ok("cycles", "there are none."),
        ok("missing", "every dependency is there."),
    ]
    for recommendation in resolver.recommendations():
        if recommendation.kind is RecommendationKind.HEALTHY:
            findings.append(ok("healthy", recommendation.message))
        else:
            findings.append(note(str(recommendation.kind), recommendation.message))
    return findings
