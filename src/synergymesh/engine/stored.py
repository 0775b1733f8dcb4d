"""What is read of a store and makes no sense: damage, with the name of the database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import msgspec

from synergymesh.errors import InvalidPayload, InvalidWorkflow, StoreCorrupt
from synergymesh.ports.records import WorkflowRecord


class Named(Protocol):
    """A store, or whoever only reads one."""

    @property
    def name(self) -> str: ...


class Versioned(Named, Protocol):
    """A store of workflow versions, or whoever only reads one."""

    @property
    def get_workflow(self) -> Callable[[str], Awaitable[WorkflowRecord | None]]: ...


async def version_of(store: Versioned, content_hash: str) -> WorkflowRecord:
    """Give the version of a workflow that a run refers to.

    Raises:
        StoreCorrupt: the store does not have it, or has another definition under its hash.
    """
    record = await store.get_workflow(content_hash)
    if record is None:
        raise StoreCorrupt(
            f"{store.name} is damaged: it has runs of the workflow version {content_hash}, but not the version. "
            f"Restore a backup that is sound."
        )
    return record


@contextmanager
def naming_damage(store: Named, *also: type[Exception]) -> Iterator[None]:
    """Call it damage when a stored value cannot be read inside this block.

    Args:
        store: whose values they are.
        also: errors that mean the same there, beyond those of JSON.

    Raises:
        StoreCorrupt: that is so.
    """
    kinds: tuple[type[Exception], ...] = (InvalidPayload, msgspec.DecodeError, *also)
    try:
        yield
    except InvalidWorkflow:
        raise  # a definition that another version made
    except kinds as error:
        raise StoreCorrupt(
            f"{store.name} is damaged: a stored value makes no sense ({type(error).__name__}: {error}). "
            f"Restore a backup that is sound."
        ) from error
