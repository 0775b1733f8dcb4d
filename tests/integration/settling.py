"""Waiting until an orchestrator has done all that it can do without anything from outside, and without more time."""

from __future__ import annotations

import asyncio

from synergymesh import Orchestrator

TURNS = 10
"""Turns of the loop in which nothing happens: more than anything takes that writes, reads and starts nothing."""


async def settled(mesh: Orchestrator, *, looks_again: bool = False) -> None:
    """Wait until nothing is being written, read or started, by tasks that run in the event loop.

    Args:
        mesh: an orchestrator that is started.
        looks_again: whether it is told to look what may start, because a clock was set of which nothing tells it.
    """
    parts = mesh._running
    calm = 0
    while calm < TURNS:
        before = parts.committer.units, parts.dispatcher.starts
        if looks_again:
            parts.dispatcher.pump_soon()
        await asyncio.sleep(0)
        await parts.committer.drained()
        readers = list(parts.window._readers)
        if readers:
            await asyncio.wait(readers)
        is_calm = not readers and (parts.committer.units, parts.dispatcher.starts) == before
        calm = calm + 1 if is_calm else 0
