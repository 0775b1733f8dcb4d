"""What is learnt of durations is written when it says something new."""

from __future__ import annotations

from typing import Any

import pytest

from synergymesh import Orchestrator, Workflow


async def test_an_estimate_is_written_again_only_when_it_has_changed(
    mesh: Orchestrator, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> int:
        return 1

    built = Workflow("w").add(work, id="a")
    assert mesh._parts is not None
    parts = mesh._parts
    written: list[int] = []
    put = parts.committer.put

    def note(unit: Any, *rest: Any, **named: Any) -> None:
        written.extend(change.microseconds for change in unit if hasattr(change, "microseconds"))
        put(unit, *rest, **named)

    monkeypatch.setattr(parts.committer, "put", note)
    key = ("w", "a")

    async def learn(microseconds: int) -> None:
        await (await mesh.submit(built, tenant=tenant)).result(10)
        parts.dispatcher.scheduler.teach(tenant, {key: microseconds})
        parts.maintenance.record_learnt()

    for microseconds in (1_600, 1_600, 2_400, 2_401, 1_600, 1_200):
        await learn(microseconds)
    # half of 1,600 is 800, and of 2,401 it is 1,200
    assert written == [1_600, 2_401, 1_200]
