"""How entries get into their chains: numbered, hashed and written in the transaction of their changes.

The thread that writes is the only one that adds to a chain, and it has every entry of its transaction in memory anyway.
So it chains them there and then: there is nothing that a sealer would have to find, and nothing unsealed after a crash.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections import defaultdict
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from synergymesh.domain.audit import chain_hashes, genesis_hash
from synergymesh.domain.states import TenantStatus
from synergymesh.errors import StoreCorrupt
from synergymesh.ports.store import Change, Noted, TenantStatusChanged
from synergymesh.store import statements as sql
from synergymesh.store.audited import Entry, entries_of, tenant_deleted
from synergymesh.store.schema import NOT_A_TASK_DONE, audit_entries, audit_heads, meta

LOG_ID = "audit_log_id"

_COLUMNS = [column.name for column in audit_entries.columns if column.name != "entry_id"]
_INSERT = sql.insert(sqlite.insert(audit_entries).on_conflict_do_nothing(index_elements=["tenant_id", "seq"]), _COLUMNS)
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
            sa.func.json_array(audit_heads.c.tenant_id, audit_heads.c.seq, sa.func.hex(audit_heads.c.hash))
        ),
        sa.select(meta.c.value).where(meta.c.name == sa.literal_column(f"'{LOG_ID}'")).scalar_subquery(),
    ).where(audit_heads.c.tenant_id.in_(sa.select(_LIST.c.value)))
)
_HEAD = sql.compile_query(
    sa.select(audit_heads.c.seq, audit_heads.c.hash).where(audit_heads.c.tenant_id == sa.bindparam("tenant_id"))
)
_MAKE_LOG_ID = sql.compile_query(sqlite.insert(meta).values(name=sa.bindparam("entry"), value=sa.bindparam("number")))
_HAS_NOTE = sql.compile_query(
    sa.select(audit_entries.c.seq)
    .where(
        audit_entries.c.tenant_id == sa.bindparam("tenant_id"),
        audit_entries.c.entity == sa.bindparam("entity"),
        sa.text(NOT_A_TASK_DONE),
        audit_entries.c.action == sa.bindparam("note_action"),
        audit_entries.c.version == sa.bindparam("number"),
    )
    .limit(sa.literal_column("1"))
)


def log_id_text(number: int) -> str:
    """Give the id of a log as the chains and checkpoints name it."""
    return f"{number:016x}"


class Trail:
    """Gather the entries of a transaction, and chain them at its end."""

    __slots__ = ("_connection", "_entries", "_notes")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._entries: dict[str, list[Entry]] = defaultdict(list)
        self._notes: set[tuple[str, str, str, int]] = set()

    def add(self, entries: Sequence[Entry]) -> None:
        """Take entries, behind those that are here already."""
        gathered = self._entries
        for entry in entries:
            gathered[entry[0]].append(entry)

    def add_changes(self, changes: Sequence[Change]) -> None:
        """Take the entries of changes of one kind that took effect."""
        self.add(entries_of(changes))

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
        if not self._entries:
            return
        connection = self._connection
        document, number = connection.execute(_HEADS, {"list": json.dumps([*self._entries])}).fetchone()
        if number is None:
            number = secrets.randbits(63)
            connection.execute(_MAKE_LOG_ID, {"entry": LOG_ID, "number": number}).close()
        known = {tenant_id: (seq, bytes.fromhex(digest)) for tenant_id, seq, digest in json.loads(document)}
        rows: list[tuple[object, ...]] = []
        heads: list[tuple[object, ...]] = []
        for tenant_id, entries in self._entries.items():
            seq, head = known.get(tenant_id) or (0, genesis_hash(log_id_text(number), tenant_id))
            for entry, digest in zip(
                entries, chain_hashes(tenant_id, seq + 1, head, [entry[7] for entry in entries]), strict=True
            ):
                seq += 1
                rows.append((tenant_id, seq, *entry[1:], digest))
                head = digest
            heads.append((tenant_id, seq, head))
        if _INSERT.execute_rows(connection, rows) != len(rows):
            raise StoreCorrupt(
                "the audit log has entries behind the end of a chain, so nothing can be added to it. Look into it "
                "with `synergymesh audit verify`, and restore the database from a backup."
            )
        _SET_HEADS.execute_rows(connection, heads)
        self._entries.clear()
