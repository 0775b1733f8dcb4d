"""The entries of the audit log: every kind of change is mapped, every payload is canonical, every action described."""

import json
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synergymesh.domain.actors import Actor
from synergymesh.domain.audit.actions import CATALOGUE, ROUTINE, Action, Outcome
from synergymesh.domain.audit.forms import canonical
from synergymesh.domain.states import ATTEMPT_STATUSES, ExecutionStatus, TenantStatus
from synergymesh.ports.changes import Change, Noted, TenantPlanChanged
from synergymesh.store.audit.entries import ENTRY_OF, Entry, entries_of

texts = st.text(st.characters(codec="utf-8"), max_size=30)
instants = st.integers(0, 2**63 - 1)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
documents = json_values.map(msgspec.json.encode)
printable = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=20)
actors = st.builds(
    Actor,
    type=st.sampled_from(["user", "service", "key", "system"]),
    id=printable,
    on_behalf_of=st.none() | printable,
    source=st.none() | printable,
    request_id=st.none() | printable,
)
STATUSES = {"AttemptFailed": sorted(ATTEMPT_STATUSES), "TenantStatusChanged": list(TenantStatus)}


def values_of(change: type[Change], field: msgspec.structs.FieldInfo) -> st.SearchStrategy[Any]:
    """Give values that a field of a change can have."""
    if field.name == "status":
        return st.sampled_from(STATUSES.get(change.__name__, list(ExecutionStatus)))
    if field.type is bytes:
        return documents
    if field.type is int:
        return instants
    if field.type is str:
        return texts
    options = get_args(field.type)
    if Actor in options:
        return st.none() | actors
    if bytes in options:
        return st.none() | documents
    if int in options:
        return st.none() | instants
    if str in options:
        return st.none() | texts
    return st.sampled_from(list(field.type))


def changes_of(kind: type[Change]) -> st.SearchStrategy[Change]:
    """Give changes of a kind, whatever fields it has."""
    fields = msgspec.structs.fields(kind)
    return st.builds(kind, **{field.name: values_of(kind, field) for field in fields})


RECORDED = [kind for kind, entry_of in ENTRY_OF.items() if entry_of is not None]


def test_every_kind_of_change_is_mapped_to_an_entry_or_is_bookkeeping() -> None:
    assert set(ENTRY_OF) == set(get_args(Change))


def test_bookkeeping_is_only_what_nobody_asked_for() -> None:
    assert {kind.__name__ for kind, entry_of in ENTRY_OF.items() if entry_of is None} == {
        "HourReserved",
        "OutputCaptured",
        "EstimateLearnt",
        "StatisticCounted",
        "WorkflowStored",
    }


@pytest.mark.parametrize("kind", RECORDED, ids=lambda kind: kind.__name__)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_payload_is_canonical_and_says_what_the_columns_say(kind: type[Change], data: st.DataObject) -> None:
    change = data.draw(changes_of(kind))
    entry = Entry(*next(iter(entries_of([change]))))
    assert entry.action in set(Action)
    said = json.loads(entry.payload)
    assert entry.payload == canonical(said)
    for name in set(Entry._fields) - {"payload"}:
        assert said[name] == getattr(entry, name), name
    assert set(said) - {"origin"} == {*Entry._fields, "details"} - {"payload"}
    assert isinstance(said["details"], dict) or kind is Noted
    by = getattr(change, "by", None)
    assert said["actor"] == ("system/engine" if by is None else str(by))
    origin = {} if by is None else {n: getattr(by, n) for n in ("on_behalf_of", "request_id", "source")}
    assert said.get("origin", {}) == {name: value for name, value in origin.items() if value is not None}


@pytest.mark.parametrize("kind", RECORDED, ids=lambda kind: kind.__name__)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_no_payload_of_a_user_and_no_message_of_an_error_is_in_the_log(kind: type[Change], data: st.DataObject) -> None:
    secret = "do not tell this"
    change = data.draw(changes_of(kind))
    hidden = {
        field.name: msgspec.json.encode({"type": "ValueError", "message": secret})
        for field in msgspec.structs.fields(kind)
        if field.name in ("input", "result", "error")
    } | {name: secret for name in ("tenant_name", "idempotency_key") if hasattr(change, name)}
    entry = Entry(*next(iter(entries_of([msgspec.structs.replace(change, **hidden)]))))
    assert secret.encode() not in entry.payload


@settings(max_examples=200, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_no_payload_has_a_fraction_whose_bytes_another_program_would_write_otherwise(value: float) -> None:
    policy = msgspec.json.encode({"retention_days": value, "retries": [{"initial_delay": value}]})
    change = TenantPlanChanged("tenant-a", "basic", b"{}", policy, 5, None)
    payload = Entry(*next(iter(entries_of([change])))).payload

    def refuse(literal: str) -> None:
        raise AssertionError(literal)

    said = json.loads(payload, parse_float=refuse)
    assert float(said["details"]["policy"]["retention_days"]) == value
    assert float(said["details"]["policy"]["retries"][0]["initial_delay"]) == value
    assert payload == canonical(said)


def test_every_action_is_described() -> None:
    assert set(CATALOGUE) == set(Action)
    assert all(action is described.action for action, described in CATALOGUE.items())
    assert not any(CATALOGUE[action].sensitive for action in ROUTINE)


def test_outcomes_are_those_of_the_port() -> None:
    assert [outcome.value for outcome in Outcome] == ["success", "failure", "denied"]
