"""Puts together what looks after the audit log."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from synergymesh.audit.auditing import Auditing
from synergymesh.audit.checkpoint_file import CheckpointFile
from synergymesh.audit.checkpoints import Checkpoints
from synergymesh.audit.key_ring import KeyRing
from synergymesh.audit.notes import Notes
from synergymesh.audit.sinks import read_sinks
from synergymesh.domain.audit.retention import Retention
from synergymesh.domain.tenants import NO_PLAN
from synergymesh.engine.acting import current_actor
from synergymesh.engine.committer import Committer
from synergymesh.engine.features import check_feature
from synergymesh.engine.tenants import Tenants
from synergymesh.errors import UnknownTenant
from synergymesh.ports.clock import Clock
from synergymesh.ports.store import Store
from synergymesh.settings import Settings
from synergymesh.store.sqlite import SqliteReader, SqliteStore


def assemble_auditing(
    store: Store, settings: Settings, committer: Committer, tenants: Tenants, clock: Clock
) -> Auditing:
    """Put together what looks after the audit log; nothing is read or written."""
    places = audit_places(settings, store.path if isinstance(store, SqliteStore | SqliteReader) else None)
    file = None if places.checkpoints is None else CheckpointFile(places.checkpoints)
    notes = Notes(committer.record, current_actor, clock)
    checkpoints = Checkpoints(
        store,
        file,
        KeyRing(places.key, file, notes, clock),
        clock,
        sinks=read_sinks(settings.audit_sinks),
        interval_seconds=settings.audit_checkpoint_seconds,
        interval_units=settings.audit_checkpoint_units,
        written=lambda: committer.units,
    )

    def retention(tenant_id: str) -> Retention:
        try:
            plan = tenants.plans.get(tenants.get(tenant_id).tier, NO_PLAN)
        except UnknownTenant:  # the mesh's own chain, or that of a tenant that is gone
            plan = NO_PLAN
        return Retention(days=plan.audit_days, sensitive_days=plan.audit_sensitive_days)

    return Auditing(
        store,
        checkpoints,
        clock,
        notes=notes,
        actor=current_actor,
        tenant=tenants.get,
        check_feature=lambda tenant, feature, what: check_feature(tenant, feature, what, tenants.plans),
        retention=retention,
    )


class AuditPlaces(NamedTuple):
    """Where the key and the checkpoints of an audit log are; None for a database in memory that names none."""

    key: Path | None
    checkpoints: Path | None


def audit_places(settings: Settings, database: Path | None) -> AuditPlaces:
    """Give where the key and the checkpoints are: as the settings say, or in `DATABASE.audit/`."""
    beside = None if database is None else database.with_name(f"{database.name}.audit")
    key = settings.audit_key_file
    checkpoints = settings.audit_checkpoint_file
    return AuditPlaces(
        Path(key).absolute() if key else None if beside is None else beside / "key.pem",
        Path(checkpoints).absolute() if checkpoints else None if beside is None else beside / "checkpoints.jsonl",
    )
