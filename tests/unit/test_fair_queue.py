"""One level of the tree: entries, tags, guarantees."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from synergymesh.domain.scheduling.fair_queue import COMPACT_SLACK, Cohort
from synergymesh.domain.scheduling.limits import NOTHING, UNLIMITED, Capacity, CohortShare, Limits, Request
from synergymesh.domain.scheduling.tenant_queue import DEBT_MAX, SHARE_SHIFT, UNIT, WHOLE, Queue, dominant_share


class Run:
    def wants(self, position: int) -> bool:
        return True


def level(*tags: int) -> tuple[Cohort[Run], list[Queue[Run]]]:
    """Make a level with a member for each tag, all of them entered."""
    cohort: Cohort[Run] = Cohort("", None)
    cohort.slots, cohort.memory, cohort.cpu = 10, 100, 100
    queues = []
    for number, tag in enumerate(tags, start=1):
        queue: Queue[Run] = Queue(f"t{number}", cohort)
        queue.set_limits(UNLIMITED, None)
        queue.start_tag = tag
        queue.ready.append((0, 0, 0, number, Run(), 0, 1_000, Request(10 * number, 1), None))
        cohort.members[queue.tenant_id] = queue
        cohort.enter(queue, number)
        queues.append(queue)
    return cohort, queues


@given(
    st.tuples(st.integers(1, 1_000), st.integers(1, 10**6), st.integers(1, 10**6)),
    st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)),
)
def test_the_dominant_share_is_the_largest_part_of_any_resource(
    capacity: tuple[int, int, int], asked: tuple[int, int]
) -> None:
    exact = max(Fraction(1, capacity[0]), Fraction(asked[0], capacity[1]), Fraction(asked[1], capacity[2]))
    share = dominant_share(Request(*asked), Capacity(*capacity))
    assert 0 <= Fraction(share, WHOLE) - exact < Fraction(1, 1 << SHARE_SHIFT)
    assert share % UNIT == 0, "the usual weights divide it"


def test_the_smallest_tag_is_first_and_equal_ones_in_the_order_of_entering() -> None:
    cohort, (first, second, third) = level(5, 3, 3)
    assert cohort.top() == (3, 2, second)
    cohort.enter(second, 9)
    assert cohort.top() == (3, 3, third)
    third.entry = 0
    assert cohort.top() == (3, 9, second)
    second.entry = 0
    assert cohort.top() == (5, 1, first)
    first.entry = 0
    assert cohort.top() is None
    assert not cohort.has_work()


def test_entries_out_of_date_do_not_pile_up() -> None:
    cohort, (queue,) = level(0)
    for stamp in range(2, 1_000):
        cohort.enter(queue, stamp)
    assert len(cohort.heap) <= 2 + COMPACT_SLACK
    assert cohort.top() == (0, 999, queue)


def test_a_member_that_comes_back_claims_nothing_for_the_past_and_its_debt_is_limited() -> None:
    cohort, (queue,) = level(7)
    cohort.virtual_time = 1_000
    queue.settle()
    assert queue.start_tag == 1_000
    queue.weight = 4
    queue.owed = 4_003
    queue.settle()
    assert (queue.start_tag, queue.owed) == (2_000, 3)
    queue.owed = -100_000
    queue.settle()
    assert queue.start_tag == 1_000
    queue.owed = DEBT_MAX * 99
    queue.settle()
    assert queue.start_tag == 1_000 + DEBT_MAX // 4


def test_a_head_that_does_not_fit_steps_aside_and_comes_back_when_there_is_room() -> None:
    cohort, (small, large) = level(0, 5)
    cohort.memory_used = 85
    assert cohort.fits(small, small.ready[0][7])
    assert not cohort.fits(large, large.ready[0][7])
    small.entry = 0
    assert cohort.top() == (5, 2, large)
    cohort.close(large, large.ready[0][7])
    assert large.shut
    cohort.reopen(1)
    assert cohort.top() is None
    cohort.memory_used = 80
    cohort.reopen(1)
    assert cohort.top() is None, "nobody has said that something was freed"
    cohort.reopen(2)
    assert cohort.top() == (5, 2, large)
    assert not large.shut
    assert cohort.closed is None


def test_room_is_kept_for_a_head_only_after_others_were_served_as_much_as_it_costs() -> None:
    cohort, (small, large) = level(9, 0)
    shares = {large.ready[0][7]: WHOLE // 10}
    cohort.memory_used = 85
    cohort.close(large, large.ready[0][7])
    cohort.virtual_time = 1_000 * WHOLE // 10
    cohort.look_for_claim(shares.__getitem__)
    assert cohort.claim is None
    cohort.virtual_time += 1
    cohort.look_for_claim(shares.__getitem__)
    assert cohort.claim is large
    assert not cohort.fits(small, small.ready[0][7])
    assert cohort.fits(small, Request(0, 1)), "what asks for no memory takes none of it"
    large.entry = 0  # paused, removed, cancelled
    assert cohort.fits(small, small.ready[0][7])
    assert cohort.claim is None


def test_the_one_that_room_was_kept_for_gets_it_also_from_behind_another_that_asks_for_as_much() -> None:
    cohort, (small, waiting, later) = level(9, 0, 50)
    later.ready[0] = waiting.ready[0]
    small.entry = 0
    cohort.memory_used = 90
    request = waiting.ready[0][7]
    cohort.top()
    cohort.close(waiting, request)
    cohort.virtual_time = 10**30
    cohort.look_for_claim({request: WHOLE // 10}.__getitem__)
    assert cohort.claim is waiting
    assert cohort.top() == (50, 3, later)
    cohort.heap[0] = (-1, 3, later)  # it comes before by its tag
    cohort.close(later, request)
    cohort.memory_used = 80
    cohort.reopen(1)
    assert cohort.top() == (0, 2, waiting)


def with_owner() -> tuple[Cohort[Run], Queue[Run], Queue[Run], Queue[Run]]:
    """Make a level of 100 MiB with three members, the last of which has 40 of them for itself."""
    cohort, (small, large, owner) = level(0, 0, 0)
    share = CohortShare(nominal=Capacity(1, 40, 0), lending=NOTHING)
    owner.set_limits(Limits(max_concurrent=10, memory_mb=100, cpu_millis=100), share)
    cohort.promise(owner, 1)
    return cohort, small, large, owner


def test_what_is_guaranteed_to_one_member_is_not_lent_to_another() -> None:
    cohort, (borrower, owner) = level(0, 0)
    limits = Limits(max_concurrent=10, memory_mb=100, cpu_millis=100)
    owner.set_limits(limits, CohortShare(nominal=Capacity(4, 40, 40), lending=Capacity(1, 40, 40)))
    cohort.promise(owner, 1)
    assert cohort.reserved == cohort.promised == (3, 0, 0)
    cohort.running = borrower.running = 6
    assert cohort.fits(borrower, Request(1, 1))
    cohort.running = borrower.running = 7
    assert not cohort.fits(borrower, Request(1, 1))
    assert cohort.fits(owner, Request(1, 1))


def test_room_is_kept_beside_what_is_guaranteed_to_others() -> None:
    cohort, small, large, owner = with_owner()
    cohort.claim, cohort.claim_entry, cohort.claim_request = large, large.entry, Request(50, 1)
    assert cohort.room(cohort, within=False) == (10, 99), "50 for the claim, 40 for the owner"
    assert cohort.fits(small, Request(10, 1))
    assert not cohort.fits(small, Request(11, 1))
    assert cohort.fits(owner, Request(40, 1)), "its own, which takes nothing of what the claim needs"
    assert cohort.fits(owner, Request(50, 1))
    assert not cohort.fits(owner, Request(51, 1))
    cohort.memory_used = owner.memory_used = 30
    cohort.reserve(Capacity(0, 30, 0), -1)
    assert cohort.room(cohort, within=False) == (10, 99), "what the owner takes of its own changes nothing"


def test_only_those_that_borrow_leave_room_for_one_that_borrows() -> None:
    cohort, (within, beyond, claimer) = level(0, 0, 0)
    for queue, memory_mb in ((within, 50), (beyond, 5), (claimer, 5)):
        queue.set_limits(UNLIMITED, CohortShare(nominal=Capacity(9, memory_mb, 50)))
    cohort.claim, cohort.claim_entry, cohort.claim_request = claimer, claimer.entry, Request(95, 1)
    cohort.claim_borrows = True
    assert cohort.fits(within, Request(10, 1))
    assert not cohort.fits(beyond, Request(20, 1))
    assert cohort.room(cohort, within=True) == (100, 100)
    assert cohort.room(cohort, within=False) == (5, 99)


def test_a_member_can_have_all_that_is_not_guaranteed_to_others() -> None:
    cohort, small, _, owner = with_owner()
    assert cohort.most_for(small) == (9, 60, 100)
    assert cohort.most_for(owner) == (10, 100, 100)
    cohort.memory = 30  # less than what was promised
    assert (cohort.most_for(small).memory_mb, cohort.most_for(owner).memory_mb) == (0, 30)


def test_who_is_within_its_nominal_share_goes_before_who_borrows() -> None:
    cohort, (borrower, owner) = level(0, 50)
    limits = Limits(max_concurrent=10, memory_mb=100, cpu_millis=100)
    for queue in (borrower, owner):
        queue.set_limits(limits, CohortShare(nominal=Capacity(2, 100, 100)))
    borrower.running = 2
    cohort.enter(borrower, 10)
    cohort.enter(owner, 11)
    entry = cohort.top()
    assert entry is not None
    assert entry[2] is owner
