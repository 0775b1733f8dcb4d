"""Tenants keep their label, so that no counter of the others falls."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from synergymesh.engine.observability.labels import TenantLabels


def choose(labels: TenantLabels, done: dict[str, int]) -> list[str]:
    return labels.choose(done, done.__getitem__)


def test_the_busiest_get_a_label_at_the_first_look_and_keep_it() -> None:
    labels = TenantLabels(2)
    assert choose(labels, {"a": 1, "b": 5, "c": 9}) == ["c", "b"]
    assert labels.has_others
    assert choose(labels, {"a": 99, "b": 5, "c": 9, "new": 100}) == ["c", "b"]


def test_a_place_that_becomes_free_is_for_one_that_was_not_shown_among_the_others() -> None:
    labels = TenantLabels(1)
    assert choose(labels, {"a": 3, "b": 1}) == ["a"]
    assert labels.forget("a")
    assert not labels.forget("b")
    assert choose(labels, {"b": 1}) == ["b"]  # another of that name, since the first one was deleted
    assert choose(TenantLabels(3), {"a": 0}) == ["a"]


def test_nobody_is_among_the_others_as_long_as_there_are_labels_for_all() -> None:
    labels = TenantLabels(2)
    choose(labels, {"a": 3, "b": 1})
    assert not labels.has_others


@given(st.lists(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 9)), max_size=20), st.integers(0, 4))
def test_who_was_among_the_others_never_gets_a_label(looks: list[dict[str, int]], labels_max: int) -> None:
    labels, others = TenantLabels(labels_max), set[str]()
    for look in looks:
        chosen = choose(labels, look)
        assert len(chosen) <= labels_max
        assert not others & set(chosen)
        others |= look.keys() - set(chosen)
