"""The counts of tenants' work: read, summed, and old hours added up."""

from __future__ import annotations

import json
import sqlite3
from operator import itemgetter

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from synergymesh.domain.observability.tallies import Measure
from synergymesh.domain.states import TenantStatus
from synergymesh.ports.records import StatisticRecord
from synergymesh.store.reads import Query
from synergymesh.store.schema import statistics, tenants
from synergymesh.store.statements import compile_query, has_status
from synergymesh.store.transactions import transaction

_KEY = [statistics.c.tenant_id, statistics.c.hour, statistics.c.measure, statistics.c.bucket]
_VISIBLE = statistics.c.tenant_id.not_in(
    sa.select(tenants.c.tenant_id).where(has_status(tenants, [TenantStatus.DELETED]))
)
_IS_MOMENT = statistics.c.measure == sa.literal_column(f"'{Measure.LAST_END.value}'")
_SUM = sa.case((_IS_MOMENT, sa.func.max(statistics.c.total)), else_=sa.func.sum(statistics.c.total))

_SUMS = Query(
    StatisticRecord,
    sa.select(
        statistics.c.tenant_id,
        sa.literal_column("0").label("hour"),
        statistics.c.measure,
        statistics.c.bucket,
        sa.func.sum(statistics.c["count"]).label("count"),
        _SUM.label("total"),
    )
    .where(_VISIBLE)
    .group_by(statistics.c.tenant_id, statistics.c.measure, statistics.c.bucket),
    order=itemgetter(0, 2, 3),
)


def _since(*conditions: sa.ColumnElement[bool]) -> Query[StatisticRecord]:
    query = sa.select(*statistics.columns).where(_VISIBLE, statistics.c.hour >= sa.bindparam("since"), *conditions)
    return Query(StatisticRecord, query, order=itemgetter(0, 1, 2, 3))


_SINCE = _since()
_SINCE_OF_TENANT = _since(statistics.c.tenant_id == sa.bindparam("tenant_id"))

_OLD = compile_query(
    sa.select(*statistics.columns)
    .where(statistics.c.hour > sa.literal_column("0"), statistics.c.hour < sa.bindparam("before"))
    .limit(sa.bindparam("limit"))
)
_LIST = sa.func.json_each(sa.bindparam("list")).table_valued("value")
_DELETE = compile_query(
    sa.delete(statistics).where(
        sa.tuple_(*_KEY).in_(
            sa.select(*(sa.func.json_extract(_LIST.c.value, sa.literal_column(f"'$[{n}]'")) for n in range(4)))
        )
    )
)
_row = sqlite.insert(statistics)
_ADD = compile_query(
    _row.values(
        tenant_id=sa.bindparam("tenant_id"),
        hour=sa.literal_column("0"),
        measure=sa.bindparam("measure"),
        bucket=sa.bindparam("bucket"),
        count=sa.bindparam("count"),
        total=sa.bindparam("total"),
    ).on_conflict_do_update(
        index_elements=["tenant_id", "hour", "measure", "bucket"],
        set_={
            "count": statistics.c["count"] + _row.excluded["count"],
            "total": sa.case(
                (_IS_MOMENT, sa.func.max(statistics.c.total, _row.excluded.total)),
                else_=statistics.c.total + _row.excluded.total,
            ),
        },
    )
)


def sum_statistics(connection: sqlite3.Connection) -> list[StatisticRecord]:
    """Give what was counted in all hours together, as of hour 0, ordered by (tenant, measure, bucket)."""
    return _SUMS.run(connection, {})


def list_statistics(connection: sqlite3.Connection, tenant_id: str | None, since_hour: int) -> list[StatisticRecord]:
    """Give what was counted in this hour and later ones, ordered by (tenant, hour, measure, bucket)."""
    query = _SINCE if tenant_id is None else _SINCE_OF_TENANT
    return query.run(connection, {"tenant_id": tenant_id, "since": since_hour})


def add_up_statistics(connection: sqlite3.Connection, before_hour: int, limit: int) -> int:
    """Add at most `limit` rows of hours before this one to hour 0 and delete them; give how many."""
    with transaction(connection):
        old = connection.execute(_OLD, {"before": before_hour, "limit": max(0, limit)}).fetchall()
        columns = ("tenant_id", "hour", "measure", "bucket", "count", "total")
        connection.executemany(_ADD, [dict(zip(columns, row, strict=True)) for row in old]).close()
        connection.execute(_DELETE, {"list": json.dumps([row[:4] for row in old])}).close()
    return len(old)
