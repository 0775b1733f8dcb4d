"""Signs now and then what the log is, and publishes it outside the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from synergymesh.audit.checkpoint_file import CheckpointFile
from synergymesh.audit.key_ring import KeyRing
from synergymesh.audit.keys import SigningKey, load, verify_signature
from synergymesh.audit.sinks import Follower, Sink
from synergymesh.domain.audit.forms import (
    CHECKPOINT_TAG,
    NOTHING,
    Checkpoint,
    Head,
    KeyLink,
    heads_root,
)
from synergymesh.domain.audit.trust import SignedCheckpoint, SignedLink, Trust
from synergymesh.errors import AuditKeyError, SynergyMeshError
from synergymesh.logs import Log
from synergymesh.ports.audit import AuditLog
from synergymesh.ports.clock import Clock

FULL_EVERY = 1_000
"""Every so many checkpoints name all heads, so that old lines can be put away without losing what new ones rest on."""

log = Log("synergymesh.audit")


class Checkpoints:
    """Write a checkpoint when enough time has passed or enough was written since the last one, and heads changed.

    Attributes:
        file: where they go; None where none is written.
        keys: give the key that signs.
        followers: deliver them to the sinks.
        last: the last one; None before the first.
        trouble: why the last try failed, or None.
    """

    def __init__(
        self,
        entries: AuditLog,
        file: CheckpointFile | None,
        keys: KeyRing,
        clock: Clock,
        *,
        sinks: Sequence[Sink] = (),
        interval_seconds: float,
        interval_units: int,
        written: Callable[[], int],
    ) -> None:
        """Say where and how often.

        Args:
            entries: the log.
            file: where checkpoints are appended; None to write none.
            keys: give the key that signs.
            clock: where the time comes from.
            sinks: where else they go.
            interval_seconds: between two checkpoints.
            interval_units: units that are committed between two checkpoints at most.
            written: counts the committed units.
        """
        self.file = file
        self.keys = keys
        self.last: Checkpoint | None = None
        self.trouble: str | None = None
        self._entries = entries
        self._clock = clock
        self.followers = [] if file is None else [Follower(file, sink) for sink in sinks]
        self._interval = int(interval_seconds * 1e9)
        self._interval_units = interval_units
        self._written = written
        self._heads: dict[str, Head] | None = None  # those of the last checkpoint, once it is one of this process
        self._tried_at = clock.now()
        self._tried_units = written()
        self._writing = asyncio.Lock()

    def start(self) -> None:
        """Begin to deliver what is not delivered yet."""
        for follower in self.followers:
            follower.start()

    async def tick(self) -> None:
        """Write a checkpoint if one is due; a failure is logged and tried again."""
        now, units = self._clock.now(), self._written()
        if now - self._tried_at < self._interval and units - self._tried_units < self._interval_units:
            return
        self._tried_at, self._tried_units = now, units
        await self.write_if_possible()

    async def write_if_possible(self) -> None:
        """Write a checkpoint; a failure is logged, once until it works again."""
        try:
            await self.write()
        except (OSError, ValueError, SynergyMeshError) as error:
            if self.trouble is None:
                log.error("the audit log could not be signed; tried again", error=str(error))
            self.trouble = str(error)
        else:
            self.trouble = None

    async def write(self) -> Checkpoint | None:
        """Write a checkpoint if a head has changed since the last one; give it.

        Raises:
            AuditKeyError: the key cannot be used, or the end of the file is no checkpoint.
            OSError: the file cannot be written.
            StoreError: the heads cannot be read, or a new key cannot be recorded.
        """
        file = self.file
        if file is None:
            return None
        async with self._writing:
            key = await self.keys.key()  # before the heads: that it was made is an entry
            log_id = await self._entries.get_audit_log_id()
            heads = {
                record.tenant_id: Head(record.tenant_id, record.seq, record.hash)
                for record in await self._entries.list_audit_heads()
            }
            if not heads or heads == self._heads:
                return None
            written = await asyncio.to_thread(self._write, file, key, log_id, heads)
        for follower in self.followers:
            follower.wake()
        return written

    async def rotate(self) -> KeyLink:
        """Replace the key, between two checkpoints; see `KeyRing.rotate`."""
        async with self._writing:
            last = await asyncio.to_thread(self._newest)
            link = await self.keys.rotate(await self._entries.get_audit_log_id(), last)
        for follower in self.followers:
            follower.wake()
        return link

    async def signing(self) -> tuple[SigningKey, Checkpoint | None]:
        """Give the signing key, and the checkpoint behind which something is signed with it; None before the first.

        Raises:
            AuditKeyError: the key cannot be used, or the end of the file is no checkpoint.
            StoreError: a new key cannot be recorded.
        """
        async with self._writing:
            key = await self.keys.key()
            return key, await asyncio.to_thread(self._newest)

    async def close(self) -> None:
        """Write the last checkpoint and deliver what can be delivered."""
        await self.write_if_possible()
        for follower in self.followers:
            await asyncio.to_thread(follower.close)

    # --- in a thread ----------------------------------------------------------------------------------------------

    def _write(self, file: CheckpointFile, key: SigningKey, log_id: str, heads: dict[str, Head]) -> Checkpoint | None:
        last = self._newest()
        root = heads_root(heads.values())
        if last is not None and last.root == root and last.log_id == log_id:
            self._heads = heads
            return None
        if last is not None and last.log_id != log_id:
            raise AuditKeyError(
                f"{file.path} has the checkpoints of another log ({last.log_id}, this one is {log_id}). Name "
                "another file, or move that one away."
            )
        number = 1 if last is None else last.number + 1
        before = self._heads
        full = before is None or number % FULL_EVERY == 0
        if before is None or full:
            changed = list(heads.values())
        else:
            changed = [head for head in heads.values() if before.get(head.tenant_id) != head]
            changed += [Head(tenant_id, 0, NOTHING) for tenant_id in before if tenant_id not in heads]
        checkpoint = Checkpoint(
            log_id=log_id,
            number=number,
            at=self._clock.now(),
            root=root,
            heads=len(heads),
            entries=sum(head.seq for head in heads.values()),
            previous=NOTHING if last is None else last.hash(),
            key_id=key.key_id,
        )
        signature = key.sign(CHECKPOINT_TAG, checkpoint.content())
        signed = SignedCheckpoint(checkpoint=checkpoint, signature=signature, heads=tuple(sorted(changed)), full=full)
        file.append(signed.line())
        self.last, self._heads = checkpoint, heads
        return checkpoint

    def _newest(self) -> Checkpoint | None:
        if self.last is None and self.file is not None:
            try:
                newest = self.file.last_checkpoint()
            except (OSError, ValueError) as error:
                raise AuditKeyError(
                    f"{self.file.path} cannot be continued: {error}. `synergymesh audit verify` says more."
                ) from None
            self.last = None if newest is None else newest.checkpoint
        return self.last

    def present_key(self) -> bytes | None:
        """Give the public key that signs now, which vouches for those before it; None before the first use.

        Raises:
            AuditKeyError: the key cannot be used.
        """
        key_file, key = self.keys.key_file, self.keys.present
        if key_file is None:
            return None if key is None else key.public
        return present_key(key_file)

    def public_keys(self) -> list[bytes]:
        """Give the public keys that led to the present one through links, that one last; none before the first use.

        Raises:
            AuditKeyError: the key cannot be used.
        """
        present = self.present_key()
        if present is None:
            return []
        trust = Trust([present], verify_signature)
        trust.follow(self.links())
        return [*(key for key in reversed(trust.keys.values()) if key != present), present]

    def links(self) -> list[SignedLink]:
        """Give the links between keys that are published, oldest first."""
        return [] if self.file is None else self.file.links()

    def lines(self) -> Iterator[bytes]:
        """Give what is published, line by line."""
        if self.file is not None:
            for _, line in self.file.lines():
                yield line


def present_key(key_file: Path) -> bytes | None:
    """Give the public half of a key file; None when there is none.

    What a file of checkpoints says of other keys counts only as far as links lead to them from this one.

    Raises:
        AuditKeyError: the key cannot be used.
    """
    try:
        return load(key_file).public
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AuditKeyError(f"the audit key {key_file} cannot be read: {error.strerror}.") from None
