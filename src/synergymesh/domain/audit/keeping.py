"""What a chain itself says of its holds and its pruning, and whether the tables beside it say the same.

Pure, and the standard library only. Every pruning is an entry that names its tombstones, and is kept as long as they
are. So whether it was under a hold is a question of the order in the chain, which no clock can falsify.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from synergymesh.domain.audit.actions import Action
from synergymesh.domain.audit.forms import Tombstone
from synergymesh.domain.audit.verification import Damage, Finding, Row

TOLD_OF = frozenset({Action.AUDIT_HELD.value, Action.AUDIT_RELEASED.value, Action.AUDIT_PRUNED.value})
"""The actions that are looked at."""


_TOLD = b'{"action":"audit.'


def tombstone_name(content: bytes) -> str:
    """Give the name by which the entry about a pruning names a tombstone: the hash of its content, as hex."""
    return sha256(content).hexdigest()


def _object(payload: bytes) -> dict[str, Any]:
    """Read a payload; one that is none says nothing of what is looked for here."""
    try:
        said = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A legal hold as the chain has it: the number of its entry, why, and since when."""

    seq: int
    reason: object
    held_at: int


class Keeping:
    """Follow the entries of one chain about holds and pruning.

    Attributes:
        hold: the one that is on; None when there is none.
        is_hold_known: whether the chain has said so.
    """

    def __init__(self, *, is_whole: bool) -> None:
        """Begin.

        Args:
            is_whole: whether the chain is followed from its genesis; what was before is not known otherwise.
        """
        self.hold: Hold | None = None
        self.is_hold_known = is_whole
        self._is_whole = is_whole
        self._named: dict[str, tuple[int, bool]] = {}

    def see(self, action: str, seq: int, at: int, payload: bytes) -> None:
        """Take an entry with one of the actions `TOLD_OF`."""
        details = _object(payload).get("details")
        told = details if isinstance(details, dict) else {}
        if action == Action.AUDIT_PRUNED:
            names = told.get("tombstones")
            for name in names if isinstance(names, list) else ():
                self._named.setdefault(str(name), (seq, self.hold is not None))
            return
        self.is_hold_known = True
        self.hold = None
        if action == Action.AUDIT_HELD:
            self.hold = Hold(seq=seq, reason=told.get("reason"), held_at=at)

    def see_payload(self, row: Row) -> None:
        """Take an entry of which there is only the payload."""
        payload: bytes = row[2]
        if payload.startswith(_TOLD):
            action = _object(payload).get("action")
            if action in TOLD_OF:
                self.see(action, row[0], 0, payload)

    def compare_tombstones(
        self, tenant_id: str, tombstones: Sequence[Tombstone], contents: Iterable[bytes]
    ) -> list[Finding]:
        """Compare with the tombstones of the chain.

        Args:
            tenant_id: whose chain.
            tombstones: those with a good signature.
            contents: of all tombstones.
        """
        findings = []
        for tombstone in tombstones:
            finding = self._judge(tenant_id, tombstone)
            if finding is not None:
                findings.append(finding)
        there = {tombstone_name(content) for content in contents}
        for name, (seq, _) in self._named.items():
            if name not in there:
                detail = f"a tombstone that entry {seq:,} names is gone."
                findings.append(Finding(damage=Damage.MISSING, tenant_id=tenant_id, seq=seq, detail=detail))
        return findings

    def compare_hold(self, tenant_id: str, held: tuple[object, object] | None) -> list[Finding]:
        """Compare with reason and time of the hold that is recorded beside the chain; None when none is."""
        if not self.is_hold_known:
            return []
        expected = None if self.hold is None else (self.hold.reason, self.hold.held_at)
        return [] if held == expected else [self._of_hold(tenant_id, held)]

    def _judge(self, tenant_id: str, tombstone: Tombstone) -> Finding | None:
        seq, was_held = self._named.get(tombstone_name(tombstone.content()), (0, False))
        if not seq and not self._is_whole:
            return None
        first, count = tombstone.gaps[0].first, tombstone.count
        many = f"entry {first:,}" + (f" and {count - 1:,} more" if count > 1 else "")
        if was_held or (not seq and self.hold is not None):
            damage, detail = Damage.PRUNED_UNDER_HOLD, f"{many} went while a legal hold forbade it."
        elif not seq:
            damage, detail = Damage.INSERTED, f"{many} went by a tombstone that no entry of the chain names."
        else:
            return None
        return Finding(damage=damage, tenant_id=tenant_id, seq=first, detail=detail)

    def _of_hold(self, tenant_id: str, held: tuple[object, object] | None) -> Finding:
        if self.hold is None:
            return Finding(
                damage=Damage.INSERTED,
                tenant_id=tenant_id,
                seq=None,
                detail="a legal hold is recorded that the chain does not have.",
            )
        what = "is gone" if held is None else "is recorded otherwise"
        return Finding(
            damage=Damage.MISSING if held is None else Damage.CHANGED,
            tenant_id=tenant_id,
            seq=self.hold.seq,
            detail=f"the legal hold of entry {self.hold.seq:,} {what}.",
        )
