"""Reason codes, their remedies, and estimates that are honest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from synergymesh.domain.scheduling.explain import REMEDIES, Blocker, Pace, Reason, estimate_start, format_reasons

NOW = 10**18


def test_every_reason_has_a_meaning_and_a_remedy_of_one_line() -> None:
    assert set(REMEDIES) == set(Reason)
    for remedy in REMEDIES.values():
        for text in (remedy.meaning, remedy.remedy):
            assert text.endswith(".")
            assert "\n" not in text


def test_the_table_for_the_docs_has_a_row_for_each_reason() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .+ \| .+ \|$", format_reasons(), flags=re.MULTILINE)
    assert rows == [reason.value for reason in Reason]
    assert rows == [
        "dependency",
        "retry_delay",
        "rate_limit",
        "hour_limit",
        "concurrency",
        "memory",
        "cpu",
        "fair_share",
        "capacity",
        "circuit_open",
        "paused",
        "backlog",
    ]


def test_a_blocker_reads_as_a_line() -> None:
    blocker = Blocker(reason=Reason.MEMORY, level="acme", resource="memory_mb", limit=2_048, used=2_000, asked=64)
    assert str(blocker) == "memory of acme (memory_mb: limit 2,048, used 2,000, asked 64)"
    assert blocker.remedy == REMEDIES[Reason.MEMORY].remedy
    assert not blocker.is_hopeless
    assert Blocker(reason=Reason.MEMORY, limit=10, used=0, asked=11).is_hopeless
    assert str(Blocker(reason=Reason.PAUSED, level="acme")) == "paused of acme"


CONCURRENCY = Blocker(reason=Reason.CONCURRENCY, limit=2, used=2, asked=1)
HOUR_FULL = Blocker(reason=Reason.HOUR_LIMIT, until=NOW + 500)


@pytest.mark.parametrize(
    ("blockers", "ahead", "pace", "expected"),
    [
        ([], 0, Pace(ends=[], duration_ns=None, parallel=0), NOW),
        ([CONCURRENCY], 0, Pace(ends=[NOW + 70, NOW + 40], duration_ns=None, parallel=2), NOW + 40),
        ([CONCURRENCY], 4, Pace(ends=[NOW + 70, NOW + 40], duration_ns=100, parallel=2), NOW + 240),
        ([CONCURRENCY], 0, Pace(ends=[NOW - 70], duration_ns=100, parallel=2), NOW),
        ([HOUR_FULL], 0, Pace(ends=[], duration_ns=None, parallel=0), NOW + 500),
        ([HOUR_FULL, CONCURRENCY], 0, Pace(ends=[NOW + 9_000], duration_ns=None, parallel=1), NOW + 9_000),
        # what is not known is not guessed
        ([CONCURRENCY], 0, Pace(ends=[NOW + 70, None], duration_ns=None, parallel=2), None),
        ([CONCURRENCY], 0, Pace(ends=[], duration_ns=None, parallel=0), None),
        ([], 3, Pace(ends=[], duration_ns=None, parallel=2), None),
        ([Blocker(reason=Reason.PAUSED)], 0, Pace(ends=[NOW], duration_ns=5, parallel=2), None),
        ([Blocker(reason=Reason.CPU, limit=1, used=0, asked=2)], 0, Pace(ends=[NOW], duration_ns=5, parallel=2), None),
    ],
)
def test_the_estimated_start_follows_from_what_is_known(
    blockers: list[Blocker], ahead: int, pace: Pace, expected: int | None
) -> None:
    assert estimate_start(blockers, ahead, pace, NOW) == expected


def test_the_domain_uses_no_reason_that_is_not_in_the_table() -> None:
    folder = Path(__file__).parents[2] / "src" / "synergymesh" / "domain"
    used = {name for path in folder.rglob("*.py") for name in re.findall(r"\bReason\.([A-Z_]+)\b", path.read_text())}
    assert used
    assert used <= set(Reason.__members__)
