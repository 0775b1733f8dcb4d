"""What was used lately is kept, by size."""

from hypothesis import given
from hypothesis import strategies as st

from synergymesh.engine.recently_used import RecentlyUsed


def test_what_was_not_used_for_longest_goes_first() -> None:
    kept: RecentlyUsed[str, int] = RecentlyUsed(3)
    for number, name in enumerate("abc"):
        kept.put(name, number, 1)
    assert kept.get("a") == 0
    kept.put("d", 3, 1)
    assert [kept.get(name) for name in "abcd"] == [0, None, 2, 3]


def test_the_last_one_stays_however_large_it_is() -> None:
    kept: RecentlyUsed[str, int] = RecentlyUsed(3)
    kept.put("a", 0, 1)
    kept.put("b", 1, 100)
    assert (kept.get("a"), kept.get("b"), len(kept)) == (None, 1, 1)
    kept.put("c", 2, 1)
    assert (kept.get("b"), kept.get("c"), kept.size) == (None, 2, 1)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 10)), max_size=40), st.integers(1, 20))
def test_the_sum_of_sizes_is_what_is_kept_and_no_more_than_allowed(puts: list[tuple[int, int]], size_max: int) -> None:
    kept: RecentlyUsed[int, int] = RecentlyUsed(size_max)
    for key, size in puts:
        kept.put(key, size, size)
        assert kept.get(key) == size
        assert kept.size <= size_max or len(kept) == 1
        sizes = [kept.get(each) for each in range(6)]
        assert kept.size == sum(size for size in sizes if size is not None)
