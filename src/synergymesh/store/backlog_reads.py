"""What can be asked about runs that wait: the next of a tenant in the order of starting, and how many there are."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

import msgspec
import sqlalchemy as sa

from synergymesh.domain.instants import Instant
from synergymesh.ports.records import RunRecord, WaitingRecord
from synergymesh.store.reads import Query, select, visible
from synergymesh.store.schema import LATER_RUN, OVERDUE_RUN, WAITING_RUN, runs
from synergymesh.store.statements import compile_query

_FIELDS = RunRecord.__struct_fields__
_LEVEL, _RUN_ID, _NOT_BEFORE = _FIELDS.index("level"), _FIELDS.index("run_id"), _FIELDS.index("not_before")
_LISTED = sa.select(sa.func.json_each(sa.bindparam("list")).table_valued("value").c.value)


def _of_waiting(query: sa.Select[Any]) -> sa.Select[Any]:
    return visible(query, runs, True).where(sa.text(WAITING_RUN))


@lru_cache
def _waiting_query(after: bool, excepting: bool) -> Query[RunRecord]:
    query = _of_waiting(select(runs, RunRecord)).where(runs.c.not_before <= sa.bindparam("due_by"))
    if after:
        query = query.where(sa.tuple_(runs.c.level, runs.c.run_id) > sa.tuple_(*_place()))
    if excepting:
        query = query.where(runs.c.content_hash.not_in(_LISTED))
    query = query.order_by(runs.c.level, runs.c.run_id).limit(sa.bindparam("limit"))
    return Query(RunRecord, query, order=itemgetter(_LEVEL, _RUN_ID))


def _place() -> tuple[sa.BindParameter[int], sa.BindParameter[str]]:
    return sa.bindparam("level", type_=sa.BigInteger), sa.bindparam("run_id", type_=sa.Text)


_LATER = Query(
    RunRecord,
    _of_waiting(select(runs, RunRecord))
    .where(sa.text(LATER_RUN), runs.c.not_before > sa.bindparam("after"))
    .order_by(runs.c.not_before, runs.c.run_id)
    .limit(sa.bindparam("limit")),
    order=itemgetter(_NOT_BEFORE, _RUN_ID),
)

_BEFORE = compile_query(
    _of_waiting(sa.select(sa.func.count()).select_from(runs)).where(
        sa.tuple_(runs.c.level, runs.c.run_id) < sa.tuple_(*_place())
    )
)

_counted = (
    visible(sa.select(runs.c.tenant_id, sa.func.count().label("runs"), sa.func.sum(runs.c.tasks)), runs, False)
    .where(sa.text(WAITING_RUN))
    .group_by(runs.c.tenant_id)
    .subquery("counted")
)
_COUNTS = compile_query(sa.select(sa.func.json_group_array(sa.func.json_array(*_counted.columns))))
_decode_counts = msgspec.json.Decoder(list[tuple[str, int, int]]).decode


_OVERDUE = compile_query(
    visible(sa.select(runs.c.run_id), runs, False)
    .where(sa.text(OVERDUE_RUN), runs.c.start_by <= sa.bindparam("now"))
    .order_by(runs.c.start_by, runs.c.run_id)
    .limit(sa.bindparam("limit"))
)


def list_overdue_runs(connection: sqlite3.Connection, now: Instant, limit: int) -> list[str]:
    """Give the ids of runs that are not begun and had to be by now, those most overdue first."""
    return [run_id for (run_id,) in connection.execute(_OVERDUE, {"now": now, "limit": max(0, limit)})]


def list_waiting_runs(
    connection: sqlite3.Connection,
    tenant_id: str,
    due_by: Instant,
    after: tuple[int, str] | None,
    limit: int,
    except_versions: Sequence[str],
) -> list[RunRecord]:
    """Give the tenant's runs that are not begun and may start by `due_by`, by (level, id), those behind `after`."""
    level, run_id = after or (0, "")
    return _waiting_query(after is not None, bool(except_versions)).run(
        connection,
        {
            "tenant_id": tenant_id,
            "due_by": due_by,
            "level": level,
            "run_id": run_id,
            "limit": max(0, limit),
            "list": json.dumps(list(except_versions)),
        },
    )


def list_later_runs(connection: sqlite3.Connection, tenant_id: str, after: Instant, limit: int) -> list[RunRecord]:
    """Give the tenant's waiting runs that may not start before a moment behind `after`, by (that moment, id)."""
    return _LATER.run(connection, {"tenant_id": tenant_id, "after": after, "limit": max(0, limit)})


def count_waiting_before(connection: sqlite3.Connection, tenant_id: str, level: int, run_id: str) -> int:
    """Count the tenant's waiting runs whose (level, id) is smaller than this."""
    arguments = {"tenant_id": tenant_id, "level": level, "run_id": run_id}
    return int(connection.execute(_BEFORE, arguments).fetchone()[0])


def list_waiting_counts(connection: sqlite3.Connection) -> list[WaitingRecord]:
    """Give how much waits of every tenant that has waiting runs, ordered by tenant."""
    return [WaitingRecord(*row) for row in sorted(_decode_counts(connection.execute(_COUNTS).fetchone()[0]))]
