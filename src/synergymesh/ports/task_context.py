"""What a task may know of itself while it runs: `current_task()`."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any

from synergymesh.domain.observability.captured import CapturedOutput
from synergymesh.errors import InvalidRequest, NotRunning
from synergymesh.logs import Log

_log = Log("synergymesh.task")


class TaskContext:
    """Tell a running task who it is; get it with `current_task()`.

    Attributes:
        run_id: the run, `run-…`.
        task_id: the component's id in the workflow.
        tenant_id: the tenant, `tenant-…`.
        attempt: the number of this attempt, from 1; crashes of the process count too.
        cancelled: whether the attempt should end soon. A task on the event loop is also interrupted at its next await;
            a plain function in a thread has to look here.
        progress: what `heartbeat` was told last, 0 to 1, or None.
        output: what it has printed and logged, None for nothing.
        beats: how often `heartbeat` was called.
        entered: is called where the task's code begins, in its context: the event loop, a thread, the loop of a direct
            call. None if nobody asks for it.
    """

    __slots__ = ("attempt", "beats", "cancelled", "entered", "output", "progress", "run_id", "task_id", "tenant_id")

    def __init__(self, run_id: str, task_id: str, tenant_id: str, attempt: int) -> None:
        self.run_id = run_id
        self.task_id = task_id
        self.tenant_id = tenant_id
        self.attempt = attempt
        self.cancelled = False
        self.progress: float | None = None
        self.beats = 0
        self.output: CapturedOutput | None = None
        self.entered: Callable[[], object] | None = None

    @property
    def idempotency_token(self) -> str:
        """Give a text that is the same for every attempt of this task, and for no other task.

        Hand it to the services that the task calls, so that they recognise a repeated request.
        """
        return f"{self.run_id}/{self.task_id}"

    @property
    def logger(self) -> Any:
        """Give a structlog logger bound to tenant, run, task and attempt."""
        return _log.bind(tenant_id=self.tenant_id, run_id=self.run_id, task_id=self.task_id, attempt=self.attempt)

    def heartbeat(self, progress: float | None = None) -> None:
        """Say that the task is alive, and how far it is; a task with a `heartbeat_timeout` has to, again and again.

        Args:
            progress: 0 to 1.

        Raises:
            InvalidRequest: progress is outside that range.
        """
        if progress is not None:
            if not 0 <= progress <= 1:
                raise InvalidRequest(f"progress must be between 0 and 1, not {progress!r}.", field="progress")
            self.progress = float(progress)
        self.beats += 1


_current: ContextVar[TaskContext | None] = ContextVar("synergymesh_current_task", default=None)


def current_task() -> TaskContext:
    """Give the context of the task that runs here.

    Raises:
        NotRunning: no task runs here (a plain call of the function, in a unit test say).
    """
    context = _current.get()
    if context is None:
        raise NotRunning("current_task() was called outside a running task. Submit the task's workflow to run it.")
    return context


def running_task() -> TaskContext | None:
    """Give the task that runs here, None if none does."""
    return _current.get()


def task_in(context: Context) -> TaskContext | None:
    """Give the task that runs in a context, if one does."""
    return context.get(_current)


def enter_task(context: TaskContext) -> None:
    """Make `context` the current task of this asyncio task or thread context; for executors."""
    _current.set(context)
    if context.entered is not None:
        context.entered()
