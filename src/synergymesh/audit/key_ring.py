"""The key that signs the log: made and replaced so that neither can come apart from its entry.

A key that is new lies beside the file of the key, as `FILE.next`, and takes its place only when the log says that it
was made. So what a crash has interrupted is recorded and finished, or undone, when the key is needed next.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import NamedTuple

from synergymesh.audit.checkpoint_file import CheckpointFile
from synergymesh.audit.keys import SigningKey, load, load_or_create, sync_directory, write_key
from synergymesh.audit.notes import Notes
from synergymesh.domain.audit.actions import Action
from synergymesh.domain.audit.forms import KEY_LINK_TAG, MESH, NOTHING, Checkpoint, KeyLink, key_id
from synergymesh.domain.audit.trust import SignedLink
from synergymesh.errors import AuditKeyError
from synergymesh.logs import Log
from synergymesh.ports.changes import Noted
from synergymesh.ports.clock import Clock

ONCE = 1
"""A key is made once, revoked once, and replaces another one once: its entries need no other number."""

log = Log("synergymesh.audit")


class _Found(NamedTuple):
    key: SigningKey
    is_new: bool
    link: KeyLink | None
    """From the key that it replaces."""


class KeyRing:
    """Give the key that signs, and replace it.

    Attributes:
        key_file: of the key; None for one that is forgotten at the end.
        present: the key in use; None before it is first asked for.
    """

    def __init__(self, key_file: Path | None, file: CheckpointFile | None, notes: Notes, clock: Clock) -> None:
        """Say where.

        Args:
            key_file: of the signing key, made when it is first used; None for a key that is forgotten at the end.
            file: where links between keys are published.
            notes: records what happens to keys.
            clock: where the time comes from.
        """
        self.key_file = key_file
        self.present: SigningKey | None = None
        self._file = file
        self._notes = notes
        self._clock = clock
        self._changing = asyncio.Lock()

    async def key(self) -> SigningKey:
        """Give the signing key; it is made, and recorded, when there is none.

        Raises:
            AuditKeyError: it cannot be used.
            StoreError: that it was made or replaced cannot be recorded now; it is not used before.
        """
        async with self._changing:
            return await self._take() if self.present is None else self.present

    async def rotate(self, log_id: str, last: Checkpoint | None) -> KeyLink:
        """Make a new key and publish the link from the old one to it; both sign. The old one is revoked by it.

        Args:
            log_id: of the log.
            last: the newest checkpoint, with which the old key ends; None before the first.

        Raises:
            AuditKeyError: the present key cannot be used.
            OSError: a file cannot be written.
            StoreError: the key is replaced, but that cannot be recorded now; nothing is signed before it is.
        """
        file, key_file = self._file, self.key_file
        if file is None or key_file is None:
            raise AuditKeyError("a database in memory has no audit key in a file, so there is none to replace.")
        async with self._changing:
            old = await self._take() if self.present is None else self.present
            self.present = None  # first, since the link may be there even where it could not be written durably
            link = await asyncio.to_thread(self._publish, file, key_file, old, log_id, last)
            await self._take()
        return link

    async def _take(self) -> SigningKey:
        found = await asyncio.to_thread(self._find)
        key = found.key
        if found.is_new:
            await self._notes.record(*self._noted(found))
            key = await asyncio.to_thread(self._put_in_place, found)
            log.info("the audit log has a new key", file=str(self.key_file), key_id=key.key_id)
        self.present = key
        return key

    def _noted(self, found: _Found) -> list[Noted]:
        new = found.key.key_id
        created = self._notes.noted(
            MESH, Action.KEY_CREATED, f"key/{new}", {"public_key": found.key.public.hex()}, number=ONCE
        )
        if found.link is None:
            return [created]
        old = key_id(found.link.old)
        return [
            created,
            self._notes.noted(MESH, Action.KEY_ROTATED, f"key/{new}", {"new": new, "old": old}, number=ONCE),
            self._notes.noted(MESH, Action.KEY_REVOKED, f"key/{old}", {"replaced_by": new}, number=ONCE),
        ]

    # --- in a thread ----------------------------------------------------------------------------------------------

    def _find(self) -> _Found:
        key_file = self.key_file
        if key_file is None:
            return _Found(SigningKey.generate(), is_new=True, link=None)
        following = next_key_file(key_file)
        try:
            with contextlib.suppress(FileNotFoundError):
                key = load(following)
                link = self._link_to(key)
                if link is not None or not key_file.exists():
                    return _Found(key, is_new=True, link=link)
                following.unlink()  # the link to it was not published, so nobody knows it
            with contextlib.suppress(FileNotFoundError):
                return _Found(load(key_file), is_new=False, link=None)
        except OSError as error:
            raise AuditKeyError(f"the audit key {key_file} cannot be read: {error.strerror or error}.") from None
        key, _ = load_or_create(following)
        return _Found(key, is_new=True, link=None)

    def _link_to(self, key: SigningKey) -> KeyLink | None:
        links = [] if self._file is None else self._file.links()
        return next((signed.link for signed in links if signed.link.new == key.public), None)

    def _put_in_place(self, found: _Found) -> SigningKey:
        """Let a new key take its place; give the key that is there then."""
        key_file = self.key_file
        if key_file is None:
            return found.key
        following = next_key_file(key_file)
        try:
            if found.link is not None:
                following.replace(key_file)
            else:
                with contextlib.suppress(FileExistsError):  # another process that uses the file was faster
                    key_file.hardlink_to(following)
                following.unlink(missing_ok=True)
            sync_directory(key_file.parent)
            return load(key_file)
        except OSError as error:
            raise AuditKeyError(f"the audit key {key_file} cannot be written: {error.strerror or error}.") from None

    def _publish(
        self, file: CheckpointFile, key_file: Path, old: SigningKey, log_id: str, last: Checkpoint | None
    ) -> KeyLink:
        new = SigningKey.generate()
        link = KeyLink(
            log_id=log_id,
            old=old.public,
            new=new.public,
            checkpoint=0 if last is None else last.number,
            previous=NOTHING if last is None else last.hash(),
            at=self._clock.now(),
        )
        content = link.content()
        signed = SignedLink(
            link=link,
            signature=old.sign(KEY_LINK_TAG, content),
            signature_of_new=new.sign(KEY_LINK_TAG, content),
        )
        # The new key is kept before the link is published, and the link published before the old key goes.
        write_key(next_key_file(key_file), new, replace=True)
        file.append(signed.line())
        return link


def next_key_file(key_file: Path) -> Path:
    """Give where a key lies that is to take the place of the one in a file, or to be the first one there."""
    return key_file.with_name(f"{key_file.name}.next")
