"""Timelines: the figures are consistent whatever was recorded, and the pictures are sound XML that runs nothing."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synergymesh.domain.observability.timeline import QUEUED, Course, Phase, Timeline, Try, build_timeline
from synergymesh.domain.scheduling.explain import Reason
from synergymesh.domain.states import ExecutionStatus
from synergymesh.timeline.condensed import count_in_bins, pack
from synergymesh.timeline.drawing import LABEL_MAX, NAMES, WIDTH, Scale, shortened
from synergymesh.timeline.page import TABLE_ROWS_MAX, timeline_html
from synergymesh.timeline.picture import ROWS_MAX, timeline_svg

S = ExecutionStatus
SECOND = 1_000_000_000
START = 1_000_000 * SECOND


def course(
    task_id: str, *tries: tuple[float, float], after: tuple[int, ...] = (), status: ExecutionStatus = S.SUCCESS
) -> Course:
    """Make a task that tried at these times (seconds since the start); all but the last failed, and paused a second."""
    made = []
    for number, (begin, end) in enumerate(tries, start=1):
        is_last = number == len(tries)
        ended = START + int(end * SECOND)
        made.append(
            Try(
                number,
                status if is_last else S.FAILED,
                START + int(begin * SECOND),
                ended,
                None if is_last else ended + SECOND,
                "concurrency",
            )
        )
    return Course(task_id, "work", status, after, tuple(made), made[-1].ended_at if made else None)


def timeline(*courses: Course, not_before: float = 0, end: float | None = None, now: float = 100) -> Timeline:
    return build_timeline(
        "run-1",
        "flow",
        S.RUNNING if end is None else S.SUCCESS,
        courses,
        created_at=START,
        not_before=START + int(not_before * SECOND) if not_before else 0,
        ended_at=None if end is None else START + int(end * SECOND),
        now=START + int(now * SECOND),
    )


def phases(shown: Timeline, task_id: str) -> list[tuple[Phase, float, float]]:
    (lane,) = [lane for lane in shown.lanes if lane.task_id == task_id]
    return [(span.phase, span.begin, span.end) for span in lane.spans]


# --- figures --------------------------------------------------------------------------------------------------------


def test_a_task_waits_for_others_then_for_its_turn_then_runs() -> None:
    shown = timeline(course("a", (1, 3)), course("b", (4, 6), (7.5, 9), after=(0,)), end=10)
    assert phases(shown, "a") == [(Phase.CONCURRENCY, 0, 1), (Phase.RUNNING, 1, 3)]
    assert phases(shown, "b") == [
        (Phase.DEPENDENCY, 0, 3),
        (Phase.CONCURRENCY, 3, 4),
        (Phase.RUNNING, 4, 6),
        (Phase.RETRY_DELAY, 6, 7),
        (Phase.CONCURRENCY, 7, 7.5),
        (Phase.RUNNING, 7.5, 9),
    ]
    assert shown.seconds == 10
    assert [step.task_id for step in shown.critical_path] == ["a", "b"]
    assert shown.critical_totals()[Phase.CONCURRENCY] == 2.5
    assert shown.critical_totals()[Phase.DEPENDENCY] == 0
    assert shown.totals()[Phase.DEPENDENCY] == 3


def test_the_critical_path_goes_through_what_ended_last_and_not_through_what_took_longest() -> None:
    shown = timeline(
        course("long", (0, 5)),
        course("late", (5.5, 6)),
        course("end", (6, 7), after=(0, 1)),
        course("beside", (0, 6.5)),
        end=7,
    )
    assert [step.task_id for step in shown.critical_path] == ["late", "end"]
    assert [lane.critical for lane in shown.lanes] == [False, True, True, False]


def test_a_run_that_was_not_to_start_yet_says_so() -> None:
    shown = timeline(course("a", (6, 7)), not_before=5, end=7)
    assert phases(shown, "a") == [(Phase.NOT_BEFORE, 0, 5), (Phase.CONCURRENCY, 5, 6), (Phase.RUNNING, 6, 7)]


def test_a_wait_in_which_the_process_was_away_is_no_queue() -> None:
    stopped = Course(
        "a",
        "work",
        S.SUCCESS,
        (),
        (
            Try(1, S.CANCELLED, START, START + SECOND, START + SECOND),
            Try(2, S.SUCCESS, START + 5 * SECOND, START + 6 * SECOND),
        ),
        START + 6 * SECOND,
    )
    killed = Course(
        "b", "work", S.SUCCESS, (), (Try(2, S.SUCCESS, START + SECOND, START + 3 * SECOND),), START + 3 * SECOND
    )
    shown = timeline(stopped, killed, end=6)
    assert phases(shown, "a") == [(Phase.RUNNING, 0, 1), (Phase.OUTAGE, 1, 5), (Phase.RUNNING, 5, 6)]
    assert phases(shown, "b") == [(Phase.OUTAGE, 0, 1), (Phase.RUNNING, 1, 3)]
    assert shown.outages == 2


@pytest.mark.parametrize("reason", [*(phase.value for phase in QUEUED), None, "something new"])
def test_a_wait_has_the_phase_of_what_kept_the_attempt(reason: str | None) -> None:
    kept = Try(1, S.SUCCESS, START + SECOND, START + 2 * SECOND, None, reason)
    shown = timeline(Course("a", "work", S.SUCCESS, (), (kept,), kept.ended_at), end=2)
    phase = Phase(reason) if reason in {phase.value for phase in QUEUED} else Phase.COMMIT
    assert phases(shown, "a") == [(phase, 0, 1), (Phase.RUNNING, 1, 2)]
    assert f'class="{phase}"' in timeline_svg(shown)
    assert NAMES[phase] in timeline_html(shown)


def test_what_a_scheduler_holds_a_task_for_is_a_phase_of_its_own() -> None:
    """Nothing that can be recorded is shown as a commit."""
    never = {Reason.DEPENDENCY, Reason.RETRY_DELAY, Reason.RATE_LIMIT, Reason.BACKLOG, Reason.FAIR_SHARE}
    assert {reason.value for reason in set(Reason) - never} == {phase.value for phase in QUEUED} - {"queue", "commit"}


def test_an_open_run_is_shown_until_now() -> None:
    running = Course("a", "work", S.RUNNING, (), (Try(1, S.RUNNING, START + SECOND, None),), None)
    waiting = Course("b", "work", S.PENDING, (0,), (), None)
    pausing = Course("c", "work", S.RETRYING, (), (Try(1, S.FAILED, START, START + SECOND, START + 9 * SECOND),), None)
    ready = Course("d", "work", S.PENDING, (), (), None)
    shown = timeline(running, waiting, pausing, ready, now=4)
    assert phases(shown, "a") == [(Phase.COMMIT, 0, 1), (Phase.RUNNING, 1, 4)]
    assert phases(shown, "b") == [(Phase.DEPENDENCY, 0, 4)]
    assert phases(shown, "c") == [(Phase.RUNNING, 0, 1), (Phase.RETRY_DELAY, 1, 4)]
    assert phases(shown, "d") == [(Phase.QUEUE, 0, 4)]
    assert shown.critical_path == ()
    assert "runs now" in timeline_svg(shown)


def test_what_never_started_has_no_attempt() -> None:
    failed = course("a", (0, 1), status=S.FAILED)
    skipped = Course("b", "work", S.SKIPPED, (0,), (), START + 2 * SECOND)
    shown = timeline(failed, skipped, end=2)
    assert phases(shown, "b") == [(Phase.DEPENDENCY, 0, 1), (Phase.QUEUE, 1, 2)]
    assert 'class="gone"' in timeline_svg(shown)


INSTANT = st.integers(-5, 30).map(lambda n: START + n * SECOND // 3)


@st.composite
def recorded(draw: st.DrawFn) -> list[Course]:
    """Make whatever a store may hold, clocks that were set back included."""
    courses: list[Course] = []
    for position in range(draw(st.integers(1, 8))):
        tries = []
        number = 0
        for _ in range(draw(st.integers(0, 3))):
            number += draw(st.integers(1, 3))
            status = draw(st.sampled_from([S.FAILED, S.TIMEOUT, S.CANCELLED]))
            tries.append(Try(number, status, draw(INSTANT), draw(INSTANT), draw(st.none() | INSTANT)))
        after = tuple(draw(st.sets(st.integers(0, position - 1), max_size=3))) if position else ()
        ended_at = draw(st.none() | INSTANT)
        if ended_at is not None and draw(st.booleans()):
            tries.append(Try(number + 1, S.SUCCESS, draw(INSTANT), ended_at))
        status = S.PENDING if ended_at is None else S.SUCCESS
        courses.append(Course(f"t{position}", "work", status, after, tuple(tries), ended_at))
    return courses


@given(courses=recorded(), not_before=INSTANT | st.just(0), ended_at=st.none() | INSTANT, now=INSTANT)
def test_spans_follow_each_other_without_gaps_whatever_was_recorded(
    courses: list[Course], not_before: int, ended_at: int | None, now: int
) -> None:
    shown = build_timeline(
        "run-1",
        "flow",
        S.RUNNING,
        courses,
        created_at=START,
        not_before=not_before,
        ended_at=ended_at,
        now=now,
    )
    for lane, recorded_course in zip(shown.lanes, courses, strict=True):
        spans = lane.spans
        assert all(span.begin <= span.end <= shown.seconds for span in spans)
        assert all(left.end == right.begin for left, right in pairwise(spans))
        assert not spans or spans[0].begin == 0
        assert lane.end == (spans[-1].end if spans else 0)
        assert [span.attempt for span in spans if span.attempt] == [each.number for each in recorded_course.tries]
    names = [step.task_id for step in shown.critical_path]
    for before, after in pairwise(names):
        assert int(before[1:]) in courses[int(after[1:])].dependencies
    for document in (timeline_svg(shown), timeline_html(shown)):
        assert "nan" not in document.lower()
    ET.fromstring(timeline_svg(shown))


@given(st.data())
def test_the_critical_path_explains_every_second_until_the_last_task_ended(data: st.DataObject) -> None:
    dice = Random(data.draw(st.integers(0, 2**32)))
    courses: list[Course] = []
    for position in range(data.draw(st.integers(1, 12))):
        after = tuple(sorted(dice.sample(range(position), dice.randint(0, min(3, position)))))
        at = max([0.0, *((courses[d].ended_at or 0) / SECOND - START / SECOND for d in after)])
        tries = []
        for _ in range(dice.randint(1, 3)):
            begin = at + dice.random()
            at = begin + dice.random()
            tries.append((begin, at))
            at += 1
        courses.append(course(f"t{position}", *tries, after=after))
    end = max((each.ended_at or 0) - START for each in courses) / SECOND
    shown = timeline(*courses, end=end)
    spans = [span for step in shown.critical_path for span in step.spans]
    assert spans[0].begin == 0
    assert all(left.end == pytest.approx(right.begin, abs=1e-6) for left, right in pairwise(spans))
    assert spans[-1].end == pytest.approx(shown.seconds, abs=1e-6)
    assert sum(shown.critical_totals().values()) == pytest.approx(shown.seconds, abs=1e-5)
    assert all(span.phase is not Phase.DEPENDENCY for span in spans)


# --- pictures -------------------------------------------------------------------------------------------------------

EVIL = "<script>alert(1)</script>\"'&]]>\x00\x1b\u202e"


def many(count: int) -> Timeline:
    return timeline(*(course(f"t{n}", (n % 50, n % 50 + 1 + n % 7)) for n in range(count)), end=60)


@pytest.mark.parametrize("count", [1, 2, 40, 41, 120, 121, ROWS_MAX, ROWS_MAX + 1, 5_000])
def test_a_picture_of_any_size_is_sound_and_has_no_scripts(count: int) -> None:
    picture = timeline_svg(many(count))
    root = ET.fromstring(picture)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "<script" not in picture
    assert "href" not in picture
    assert "onload" not in picture
    assert len(picture) < 1_500_000
    assert float(root.attrib["height"]) < 6_000


def test_a_task_has_a_row_up_to_the_limit_and_none_beyond_it() -> None:
    assert timeline_svg(many(ROWS_MAX)).count('<text class="label') == ROWS_MAX
    condensed = timeline_svg(many(ROWS_MAX + 1))
    assert "tasks at a time" in condensed
    assert float(ET.fromstring(condensed).attrib["height"]) < 1_100


@pytest.mark.parametrize("count", [3, ROWS_MAX + 10])
def test_names_of_others_stay_text(count: int) -> None:
    shown = timeline(*(course(f"{EVIL}{n}", (0, 1)) for n in range(count)), end=1)
    for document in (timeline_svg(shown), timeline_html(shown)):
        assert "<script" not in document
        assert "\x00" not in document
        assert "\u202e" not in document
    ET.fromstring(timeline_svg(shown))


def test_a_page_needs_nothing_else_and_can_be_read_without_the_picture() -> None:
    page = timeline_html(many(TABLE_ROWS_MAX + 1))
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert page.count('<th scope="row"') >= TABLE_ROWS_MAX
    assert f"the last {TABLE_ROWS_MAX} of {TABLE_ROWS_MAX + 1}" in page
    assert "prefers-color-scheme: dark" in page
    assert 'lang="en"' in page


@given(
    st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)).map(sorted), max_size=20),
    st.integers(1, 50),
)
def test_counting_in_bins_agrees_with_looking_at_each(spans: list[list[float]], bins: int) -> None:
    counted = count_in_bins([(begin, end) for begin, end in spans], 10, bins)
    width = 10 / bins
    for index, count in enumerate(counted):
        low, high = index * width, (index + 1) * width
        expected = sum(max(0.0, min(end, high) - max(begin, low)) for begin, end in spans) / width
        assert count == pytest.approx(expected, abs=1e-6)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), min_size=1, max_size=30))
def test_as_few_rows_as_tasks_run_beside_each_other(runs: list[tuple[int, int]]) -> None:
    shown = timeline(*(course(f"t{n}", (b, b + d)) for n, (b, d) in enumerate(runs)), end=40)
    rows = pack(shown.lanes)
    for row in rows:
        assert all(left[1].end <= right[1].begin for left, right in pairwise(row))
    most = max(sum(b <= moment < b + d for b, d in runs) for moment in range(30))
    assert len(rows) == most
    assert sum(map(len, rows)) == len(runs)


@given(st.floats(1e-7, 1e7))
def test_an_axis_has_a_handful_of_ticks_at_any_length(seconds: float) -> None:
    scale = Scale(seconds)
    marks = scale.axis(0, 1)
    assert 2 <= sum("grid" in mark for mark in marks) <= 12
    moments = [re.search(r'x="([\d.]+)".*>([\d.:]+) \S+</text>', mark) for mark in marks if "tick" in mark]
    assert all(moments), "no moment is written with an exponent"
    assert all(moment and float(moment[1]) + 3 * len(moment[2]) < WIDTH for moment in moments)
    assert scale.x(0) < scale.x(seconds)


@pytest.mark.parametrize(("letter", "most"), [("a", 30), ("W", 17), ("任", 16), ("é", 30)])
def test_a_label_keeps_its_both_ends_and_is_no_wider_than_its_place(letter: str, most: int) -> None:
    label = f"1{letter * 60}9"
    kept = shortened(label)
    assert (kept[0], kept[-1]) == ("1", "9")
    assert most - 4 <= len(kept) <= most + 2
    assert shortened("a" * LABEL_MAX) == "a" * LABEL_MAX


def test_the_areas_of_a_condensed_picture_tell_failed_attempts_from_others_and_a_tall_chart_has_two_axes() -> None:
    many = [course(f"t{n}", (n, n + 1), (n + 2, n + 3)) for n in range(ROWS_MAX + 1)]
    areas = [
        mark.get("class") for mark in ET.fromstring(timeline_svg(timeline(*many, end=500))).iter() if "d" in mark.attrib
    ]
    assert {"success", "failed"} <= set(areas)
    tall = timeline_svg(timeline(*many[:300], end=500))
    short = timeline_svg(timeline(*many[:3], end=500))
    assert tall.count('class="tick"') == 2 * short.count('class="tick"')


def test_a_page_says_once_what_it_is_of() -> None:
    page = timeline_html(timeline(course("a", (0, 1)), end=1))
    assert page.split("</head>")[1].count("run-1") == 2, "in the heading, and for those who do not see the picture"
