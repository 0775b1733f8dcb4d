"""Alerts: told once, and once when it is over."""

from hypothesis import given
from hypothesis import strategies as st

from synergymesh.domain.observability.alerts import LOOKS_UNTIL_RESOLVED, AlertBook, AlertState, Condition, Severity


def condition(tenant_id: str | None, severity: Severity = Severity.WARNING) -> Condition:
    return Condition(kind="trouble", tenant_id=tenant_id, severity=severity, summary="it is wrong")


def as_mapping(*conditions: Condition) -> dict[str, Condition]:
    return {each.key: each for each in conditions}


def test_a_trouble_is_told_once_and_its_end_once() -> None:
    book = AlertBook()
    assert [alert.state for alert in book.look(as_mapping(condition("a")), 1)] == [AlertState.RAISED]
    assert book.look(as_mapping(condition("a")), 2) == []
    assert book.look({}, 3) == []
    (over,) = book.look({}, 4)
    assert (over.state, over.key, over.at, over.number) == (AlertState.RESOLVED, "trouble/a", 4, 2)
    assert book.look({}, 5) == []


def test_a_trouble_that_is_away_for_one_look_is_still_the_same() -> None:
    book = AlertBook()
    book.look(as_mapping(condition("a")), 1)
    assert book.look({}, 2) == []
    assert book.look(as_mapping(condition("a")), 3) == []
    assert book.look({}, 4) == []
    assert len(book.look({}, 5)) == 1


def test_a_trouble_that_gets_worse_is_told_again() -> None:
    book = AlertBook()
    book.look(as_mapping(condition(None)), 1)
    (worse,) = book.look(as_mapping(condition(None, Severity.CRITICAL)), 2)
    assert (worse.state, worse.severity, worse.key) == (AlertState.RAISED, Severity.CRITICAL, "trouble")


@given(st.lists(st.sets(st.sampled_from("abc")), max_size=30))
def test_what_was_raised_and_not_resolved_is_what_stands(looks: list[set[str]]) -> None:
    book = AlertBook()
    standing: set[str] = set()
    for now, tenants in enumerate(looks):
        for alert in book.look(as_mapping(*map(condition, tenants)), now):
            key = alert.tenant_id or ""
            assert (alert.state is AlertState.RAISED) == (key not in standing)
            standing ^= {key}
        assert tenants <= standing == {each.tenant_id for each in book.standing.values()}
    for now in range(LOOKS_UNTIL_RESOLVED):
        book.look({}, 1_000 + now)
    assert book.standing == {}
