"""The input of a run, checked against the parameters of its workflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import msgspec

from synergymesh.domain import payload
from synergymesh.domain.workflow.definition import WorkflowDefinition
from synergymesh.errors import InvalidRequest


def check_inputs(
    definition: WorkflowDefinition,
    values: Mapping[str, Any] | None,
    check: Callable[[str, Any], object] | None = None,
) -> dict[str, Any]:
    """Check the input of a run; give it as JSON values, defaults filled in.

    Args:
        definition: what is run.
        values: by the name of the parameter.
        check: is called with the name and the JSON value of each, and raises if it has not the annotated type.

    Raises:
        InvalidRequest: an input is missing or unknown.
        InvalidPayload: one is not JSON.
    """
    name = definition.name
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        raise InvalidRequest(
            f"the input of workflow {name!r} is an object with its inputs by name, not {values!r:.100}.", field="input"
        )
    known = [parameter.name for parameter in definition.parameters]
    for given in values:
        if given not in known:
            nearest = get_close_matches(str(given), known, n=1)
            takes = f"It takes {', '.join(known)}." if known else "It takes none."
            hint = f"Did you mean {nearest[0]!r}?" if nearest else takes
            raise InvalidRequest(f"workflow {name!r} has no input {given!r}. {hint}", field=str(given))
    checked: dict[str, Any] = {}
    for parameter in definition.parameters:
        if parameter.name in values:
            value = payload.decode(payload.encode(values[parameter.name], field=f"input.{parameter.name}"))
            if check is not None:
                check(parameter.name, value)
            checked[parameter.name] = value
        elif parameter.required:
            raise InvalidRequest(f"workflow {name!r} needs the input {parameter.name!r}.", field=parameter.name)
        else:
            checked[parameter.name] = _copy(parameter.default)
    return checked


def _copy(value: Any) -> Any:
    return payload.decode(msgspec.json.encode(value)) if isinstance(value, (list, dict)) else value
