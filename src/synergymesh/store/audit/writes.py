"""How entries get into their chains: numbered, hashed and written in the transaction of their changes.

The thread that writes is the only one that adds to a chain, and it has every entry of its transaction in memory anyway.
So it chains them there and then: there is nothing that a sealer would have to find, and nothing unsealed after a crash.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from synergymesh.domain.audit.actions import Action
from synergymesh.domain.audit.forms import chain_hashes, genesis_hash, is_place
from synergymesh.domain.states import TenantStatus
from synergymesh.errors import StoreCorrupt
from synergymesh.ports.changes import Change, Noted, RunCreated, RunFinished, TaskFinished, TenantStatusChanged
from synergymesh.store import statements as sql
from synergymesh.store.audit.chain_ends import End, known_ends
from synergymesh.store.audit.entries import Entry, entries_of, run_done, task_done, tenant_deleted
from synergymesh.store.audit.rows import COLUMNS, Group, pack
from synergymesh.store.schema import HAS_ENTITY, audit_entries, audit_heads, meta

LOG_ID = "audit_log_id"

_INSERT = sql.ManyRows(
    f"INSERT INTO {audit_entries.name} ({', '.join(COLUMNS)}) VALUES ",
    f"({', '.join('?' * len(COLUMNS))})",
    " ON CONFLICT DO NOTHING",
    COLUMNS,
)
_head = sqlite.insert(audit_heads)
_SET_HEADS = sql.insert(
    _head.on_conflict_do_update(
        index_elements=["tenant_id"], set_={"seq": _head.excluded.seq, "hash": _head.excluded.hash}
    ),
    ["tenant_id", "seq", "hash"],
)

_LIST = sa.func.json_each(sa.bindparam("list")).table_valued("value")
# One row, as every row may cost a wait for the interpreter lock.
_HEADS = sql.compile_query(
    sa.select(
        sa.func.json_group_array(
            sa.func.json_array(
                _LIST.c.value,
                audit_heads.c.seq,
                sa.func.hex(audit_heads.c.hash),
                sa.select(sa.func.max(audit_entries.c.seq) > sa.func.coalesce(audit_heads.c.seq, 0))
                .where(audit_entries.c.tenant_id == _LIST.c.value)
                .scalar_subquery(),
            )
        ),
        sa.select(meta.c.value).where(meta.c.name == sa.literal_column(f"'{LOG_ID}'")).scalar_subquery(),
    ).select_from(_LIST.outerjoin(audit_heads, audit_heads.c.tenant_id == _LIST.c.value))
)
_HEAD = sql.compile_query(
    sa.select(audit_heads.c.seq, audit_heads.c.hash).where(audit_heads.c.tenant_id == sa.bindparam("tenant_id"))
)
_LAST_PLACE = sql.compile_query(sa.select(sa.func.coalesce(sa.func.max(audit_entries.c.entry_id), 0)))
_MAKE_LOG_ID = sql.compile_query(sqlite.insert(meta).values(name=sa.bindparam("entry"), value=sa.bindparam("number")))
_HAS_NOTE = sql.compile_query(
    sa.select(audit_entries.c.seq)
    .where(
        audit_entries.c.tenant_id == sa.bindparam("tenant_id"),
        audit_entries.c.entity == sa.bindparam("entity"),
        sa.text(HAS_ENTITY),
        audit_entries.c.action == sa.bindparam("note_action"),
        audit_entries.c.version == sa.bindparam("number"),
    )
    .limit(sa.literal_column("1"))
)


def log_id_text(number: int) -> str:
    """Give the id of a log as the chains and checkpoints name it."""
    return f"{number:016x}"


_QUICK: dict[type[Change] | None, tuple[str, Callable[[Any], bytes]]] = {
    TaskFinished: (Action.TASK_FINISHED.value, task_done),
    RunFinished: (Action.RUN_FINISHED.value, run_done),
}
"""What is added to a group without becoming an entry first, if it succeeded: its action, and what gives its payload."""


class Trail:
    """Gather the entries of a transaction, and chain them at its end."""

    __slots__ = ("_connection", "_groups", "_notes")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._groups: dict[str, list[Group]] = {}
        self._notes: set[tuple[str, str, str, int]] = set()

    def add(self, entries: Iterable[Entry]) -> None:
        """Take entries, behind those that are here already."""
        gathered = self._groups
        for entry in entries:
            groups = gathered.get(entry[0])
            if groups is None:
                gathered[entry[0]] = [Group(entry)]
            elif not groups[-1].takes(entry):
                groups.append(Group(entry))

    def add_changes(self, changes: Sequence[Change]) -> None:
        """Take the entries of changes of one kind that took effect."""
        kind = type(changes[0]) if changes else None
        if kind is RunCreated:
            self._add_submissions(cast(Sequence[RunCreated], changes))
            return
        quick = _QUICK.get(kind)
        if quick is None:
            self.add(entries_of(changes))
            return
        action, payload_of = quick
        gathered = self._groups
        for change in cast(Sequence[TaskFinished], changes):  # or runs, which is the same here
            groups = gathered.get(change.tenant_id)
            if groups is None or not groups[-1].takes_done(change, action, payload_of):
                self.add(entries_of((change,)))

    def _add_submissions(self, changes: Sequence[RunCreated]) -> None:
        gathered = self._groups
        for change in changes:
            groups = gathered.get(change.tenant_id)
            if groups is None or not groups[-1].takes_submitted(change):
                self.add(entries_of((change,)))
                gathered[change.tenant_id][-1].by = change.by

    def add_tenant_status(self, change: TenantStatusChanged) -> None:
        """Take the entry of a tenant's new status; that of a deletion names the end of the tenant's own chain."""
        if change.status is not TenantStatus.DELETED:
            self.add_changes([change])
            return
        self.seal()
        head = self._connection.execute(_HEAD, {"tenant_id": change.tenant_id}).fetchone()
        seq, digest = head or (0, b"")
        self.add([tenant_deleted(change, seq, digest)])

    def note(self, noted: Noted) -> None:
        """Take a note, unless it was taken before."""
        key = (noted.tenant_id, noted.action.value, noted.entity, noted.number)
        if key in self._notes:
            return
        self._notes.add(key)
        arguments = dict(zip(("tenant_id", "note_action", "entity", "number"), key, strict=True))
        if self._connection.execute(_HAS_NOTE, arguments).fetchone() is None:
            self.add(entries_of([noted]))

    def seal(self) -> None:
        """Chain what was gathered, and write it.

        Raises:
            StoreCorrupt: the end of a chain is not where its head says; nothing can be added to it.
        """
        if not self._groups:
            return
        connection = self._connection
        known = known_ends(connection)
        ends = known.of_chains
        unknown = [tenant_id for tenant_id in self._groups if tenant_id not in ends]
        if unknown:
            self._read_ends(unknown, ends)
        place = connection.execute(_LAST_PLACE).fetchone()[0] if known.place is None else known.place
        rows: list[tuple[object, ...]] = []
        heads: list[tuple[object, ...]] = []
        for tenant_id, groups in self._groups.items():
            seq, head = ends[tenant_id]
            payloads = groups[0].payloads if len(groups) == 1 else [p for group in groups for p in group.payloads]
            hashes = chain_hashes(tenant_id, seq + 1, head, payloads)
            rows += pack(tenant_id, groups, seq, place, hashes)
            place += len(hashes)
            ends[tenant_id] = end = (seq + len(hashes), hashes[-1])
            heads.append((tenant_id, *end))
        if _INSERT.execute_rows(connection, rows) != len(rows):
            raise _entries_behind("a chain")
        _SET_HEADS.execute_rows(connection, heads)
        known.place = place
        self._groups.clear()

    def _read_ends(self, tenant_ids: list[str], ends: dict[str, End]) -> None:
        """Add the ends of these chains; those without entries begin with the genesis of this log."""
        connection = self._connection
        document, number = connection.execute(_HEADS, {"list": json.dumps(tenant_ids)}).fetchone()
        if number is None:
            number = secrets.randbits(63)
            connection.execute(_MAKE_LOG_ID, {"entry": LOG_ID, "number": number}).close()
        for tenant_id, seq, digest, is_behind in json.loads(document):
            if is_behind:
                raise _entries_behind(f"the chain of {tenant_id or 'the mesh'}")
            if seq is None:
                ends[tenant_id] = (0, genesis_hash(log_id_text(number), tenant_id))
                continue
            if not is_place(seq, bytes.fromhex(digest)):
                raise StoreCorrupt(
                    f"where the audit log of {tenant_id or 'the mesh'} ends is recorded as {seq!r:.50}, which is no "
                    "place, so nothing can be added to it. Look into it with `synergymesh audit verify`, and restore "
                    "the database from a backup."
                )
            ends[tenant_id] = (seq, bytes.fromhex(digest))


def _entries_behind(whose: str) -> StoreCorrupt:
    return StoreCorrupt(
        f"the audit log has entries behind the end of {whose}, so nothing can be added to it. Look into it with "
        "`synergymesh audit verify`, and restore the database from a backup."
    )
