"""How far signing and publishing are behind what is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from synergymesh.audit.checkpoint_file import CheckpointFile
from synergymesh.audit.sinks import Follower
from synergymesh.domain.instants import SECOND, Instant
from synergymesh.ports.audit import AuditLog


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkLag:
    """Say how far a sink is behind the file of checkpoints.

    Attributes:
        name: as the setting says it.
        waiting_bytes: of lines that it does not have.
        waiting_seconds: how long the oldest of them has been waiting; 0 if none does.
        failures: how often the next one could not be delivered by this process, in a row.
    """

    name: str
    waiting_bytes: int
    waiting_seconds: float
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLag:
    """Say how far the audit log is signed and published.

    Attributes:
        entries: that were ever recorded, of all chains; pruned ones too.
        unsigned: of them, those behind the last checkpoint: only the chain speaks for them. 0 where no checkpoints are
            written.
        unsigned_seconds: how long the oldest of these has been waiting; 0 if none does.
        checkpoint: the number of the last one, 0 before the first.
        sinks: in the order of the setting.
    """

    entries: int
    unsigned: int
    unsigned_seconds: float
    checkpoint: int
    sinks: tuple[SinkLag, ...]


async def measure_lag(
    log: AuditLog, file: CheckpointFile | None, followers: Sequence[Follower], now: Instant
) -> AuditLag:
    """Compare what is recorded with what is signed and delivered.

    Args:
        log: as it is recorded.
        file: of checkpoints; None where none are written.
        followers: of the file.
        now: the present.

    Raises:
        StoreError: the log cannot be read.
        OSError: the file cannot be read.
        ValueError: the end of the file is no record.
    """
    if file is None:
        extent = await log.get_audit_extent(None)
        return AuditLag(entries=extent.entries, unsigned=0, unsigned_seconds=0.0, checkpoint=0, sinks=())
    await asyncio.to_thread(file.check_end)
    newest = await asyncio.to_thread(file.last_checkpoint)
    signed = 0 if newest is None else newest.checkpoint.entries
    extent = await log.get_audit_extent(signed)
    return AuditLag(
        entries=extent.entries,
        unsigned=max(0, extent.entries - signed),
        unsigned_seconds=_seconds(extent.waiting_since, now),
        checkpoint=0 if newest is None else newest.checkpoint.number,
        sinks=await asyncio.to_thread(lambda: tuple(_of_sink(each, now) for each in followers)),
    )


def _of_sink(follower: Follower, now: Instant) -> SinkLag:
    return SinkLag(
        name=follower.name,
        waiting_bytes=follower.waiting_bytes(),
        waiting_seconds=_seconds(follower.waiting_since(), now),
        failures=follower.failures,
    )


def _seconds(since: Instant | None, now: Instant) -> float:
    return 0.0 if since is None else max(0.0, (now - since) / SECOND)
