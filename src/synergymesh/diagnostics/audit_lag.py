"""Examines how far the audit log is signed and published."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from synergymesh.audit.checkpoint_file import CheckpointFile
from synergymesh.audit.lag import AuditLag, measure_lag
from synergymesh.audit.sinks import Follower, read_sinks
from synergymesh.audit_assembly import audit_places
from synergymesh.diagnostics.findings import Finding, note, ok, wrong
from synergymesh.diagnostics.owner import find_holder
from synergymesh.domain.instants import Instant
from synergymesh.errors import SynergyMeshError
from synergymesh.settings import read_settings
from synergymesh.store.sqlite import SqliteReader

LATE_INTERVALS = 5
"""Intervals between checkpoints after which something is wrong: one is usual, and a busy disk may cost another."""

LATE_SECONDS_MIN = 60.0


async def examine_audit_lag(path: Path, now: Instant) -> list[Finding]:
    """Say how far the audit log of a database is signed, and how far its checkpoints are delivered to sinks."""
    try:
        settings = read_settings(database=str(path))
        places = audit_places(settings, path)
        assert places.checkpoints is not None
        file = CheckpointFile(places.checkpoints)
        followers = [Follower(file, sink) for sink in read_sinks(settings.audit_sinks)]
        reader = SqliteReader(path)
        await reader.open()
        try:
            lag = await measure_lag(reader, file, followers, now)
        finally:
            await reader.close()
    except (SynergyMeshError, OSError) as error:
        return [note("audit log", f"it could not be looked at: {error}", "See above.")]
    except ValueError as error:
        remedy = "Put the file away as evidence; `synergymesh audit verify` says what it and the log still prove."
        return [wrong("audit log", f"{file.path} does not end with a checkpoint: {error}.", remedy)]
    late = max(LATE_SECONDS_MIN, LATE_INTERVALS * settings.audit_checkpoint_seconds)
    is_owned = find_holder(path.with_name(path.name + ".lock")) is not None
    return [_signed(lag, late, is_owned=is_owned), *_delivered(lag, late)]


def _signed(lag: AuditLag, late: float, *, is_owned: bool) -> Finding:
    if not lag.unsigned:
        return ok("audit log", f"all {lag.entries:,} entries are signed (checkpoint {lag.checkpoint:,}).")
    said = (
        f"{lag.unsigned:,} of {lag.entries:,} entries are not signed yet, the oldest for {lag.unsigned_seconds:,.0f} "
        "seconds."
    )
    if not is_owned:
        return note("audit log", said, "The next orchestrator that starts on the database signs them.")
    if lag.unsigned_seconds <= late:
        return ok("audit log", said)
    return wrong(
        "audit log",
        said,
        "Look in the owner's log for `the audit log could not be signed`: the key or the directory of the checkpoints "
        "cannot be used.",
    )


def _delivered(lag: AuditLag, late: float) -> Iterator[Finding]:
    behind = [sink for sink in lag.sinks if sink.waiting_bytes]
    for sink in behind:
        said = (
            f"{sink.name} does not have {sink.waiting_bytes:,} bytes of checkpoints, the oldest for "
            f"{sink.waiting_seconds:,.0f} seconds."
        )
        if sink.waiting_seconds <= late:
            yield ok("audit sinks", said)
        else:
            yield wrong(
                "audit sinks",
                said,
                "Look in the owner's log for `a checkpoint could not be delivered`; it goes on where it stopped.",
            )
    if lag.sinks and not behind:
        yield ok("audit sinks", f"all {len(lag.sinks):,} have every checkpoint.")
