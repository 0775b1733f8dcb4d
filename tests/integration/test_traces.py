"""Runs, tasks and attempts leave spans in the trace of whoever submitted them, and none unless they are asked for."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
import structlog
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from synergymesh import (
    EnterpriseSynergyMeshOrchestrator,
    ExecutionStatus,
    Orchestrator,
    RetryLater,
    RetryPolicy,
    RunCancelled,
    RunFailed,
    Workflow,
    current_task,
    ref,
)
from synergymesh.engine.direct_calls import DirectCall
from synergymesh.engine.observability.observed_runs import ObservedRuns
from synergymesh.errors import InvalidRequest
from synergymesh.settings import read_settings
from synergymesh.telemetry.traces import Traces

S = ExecutionStatus
Open = Callable[..., Orchestrator]
NO = RetryPolicy(max_retries=0)
AT_ONCE = RetryPolicy(initial_delay=0)
HOUR_LATER = RetryPolicy(initial_delay=3_600, max_delay=3_600)


class Breaking(SpanProcessor):
    """A span processor with a fault."""

    broken = False

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if self.broken:
            raise RuntimeError("this processor is broken")


EXPORTER = InMemorySpanExporter()
BREAKING = Breaking()


@pytest.fixture(scope="module", autouse=True)
def _provider() -> None:
    """Be the program that sets up OpenTelemetry; that can be done once in a process."""
    provider = TracerProvider()
    provider.add_span_processor(BREAKING)
    provider.add_span_processor(SimpleSpanProcessor(EXPORTER))
    trace.set_tracer_provider(provider)


@pytest.fixture(autouse=True)
def _cleared() -> Iterator[None]:
    EXPORTER.clear()
    yield
    BREAKING.broken = False
    structlog.reset_defaults()


@pytest.fixture
def traced(open_mesh: Open) -> Open:
    """Give a function that makes an orchestrator with traces."""

    def make(*given: Any, **settings: Any) -> Orchestrator:
        return open_mesh(*given, settings=read_settings(traces=True), **settings)

    return make


def tracer() -> trace.Tracer:
    return trace.get_tracer("program")


def ended(name: str | None = None) -> list[ReadableSpan]:
    """Give the spans that have ended, by their start."""
    found = [span for span in EXPORTER.get_finished_spans() if name is None or span.name == f"synergymesh.{name}"]
    return sorted(found, key=lambda span: (span.start_time or 0, span.context.span_id))


def one(name: str) -> ReadableSpan:
    (span,) = ended(name)
    return span


def of(span: ReadableSpan, name: str) -> Any:
    return (span.attributes or {}).get(f"synergymesh.{name}")


def start_of(span: ReadableSpan) -> int:
    assert span.start_time is not None
    return span.start_time


def end_of(span: ReadableSpan) -> int:
    assert span.end_time is not None
    return span.end_time


def is_child(span: ReadableSpan, parent: Any) -> bool:
    above = parent.get_span_context()
    return (
        span.parent is not None
        and span.parent.span_id == above.span_id
        and span.context.trace_id == above.trace_id == span.parent.trace_id
    )


async def tenant_of(mesh: Orchestrator) -> str:
    return (await mesh.create_tenant("Acme", "enterprise")).tenant_id


async def test_a_run_is_a_child_of_its_caller_and_has_tasks_which_have_attempts(traced: Open) -> None:
    async def first() -> int:
        return 1

    async def second(one: int) -> int:
        return one + 1

    built = Workflow("sums").add(first, id="a").add(second, id="b", args=[ref("a")])
    async with traced() as mesh:
        tenant = await tenant_of(mesh)
        with tracer().start_as_current_span("request") as request:
            handle = await mesh.submit(built, tenant=tenant)
        assert await handle.result(10) == 2
    run = one("run")
    assert is_child(run, request)
    assert run.kind is SpanKind.CONSUMER
    assert dict(run.attributes or {}) == {
        "synergymesh.tenant.id": tenant,
        "synergymesh.run.id": handle.id,
        "synergymesh.workflow.name": "sums",
        "synergymesh.status": "success",
    }
    tasks, attempts = ended("task"), ended("attempt")
    assert [of(span, "task.id") for span in tasks] == [of(span, "task.id") for span in attempts] == ["a", "b"]
    for task, attempt in zip(tasks, attempts, strict=True):
        assert is_child(task, run)
        assert is_child(attempt, task)
        assert of(attempt, "attempt.number") == 1
        for span in (task, attempt):
            assert (of(span, "tenant.id"), of(span, "run.id"), of(span, "status")) == (tenant, handle.id, "success")
        starts = [start_of(span) for span in (run, task, attempt)]
        assert starts == sorted(starts)
        assert start_of(attempt) <= end_of(attempt) == end_of(task) <= end_of(run)
    assert all(span.status.status_code is StatusCode.UNSET for span in (run, *tasks, *attempts))
    assert not ended("submit")


async def test_a_run_that_nobody_traces_begins_a_trace_of_its_own(traced: Open) -> None:
    async def work() -> None: ...

    async with traced() as mesh:
        tenant = await tenant_of(mesh)
        handles = [await mesh.submit(Workflow("w").add(work, id="a"), tenant=tenant) for _ in range(2)]
        for handle in handles:
            await handle.result(10)
    submits, runs = ended("submit"), ended("run")
    assert len({span.context.trace_id for span in submits}) == 2
    for submit in submits:
        assert submit.parent is None
        assert submit.kind is SpanKind.PRODUCER
        (run,) = (run for run in runs if of(run, "run.id") == of(submit, "run.id"))
        assert is_child(run, submit)


@pytest.mark.parametrize("kind", ["loop", "thread", "direct", "direct in another loop"])
async def test_spans_of_the_task_itself_are_children_of_its_attempt(traced: Open, kind: str, tmp_path: Path) -> None:
    async def on_loop() -> None:
        with tracer().start_as_current_span("own"):
            await asyncio.sleep(0)

    def in_thread() -> None:
        assert threading.current_thread() is not threading.main_thread()
        with tracer().start_as_current_span("own"):
            pass

    if kind == "direct in another loop":
        settings = read_settings(traces=True, database=":memory:")
        with EnterpriseSynergyMeshOrchestrator(settings=settings) as face:
            tenant = face.create_tenant("Acme")
            with tracer().start_as_current_span("request") as request:
                await face.execute_with_retry(on_loop, "pay", tenant)
    else:
        async with traced() as mesh:
            tenant = await tenant_of(mesh)
            with tracer().start_as_current_span("request") as request:
                if kind == "direct":
                    await mesh.call([DirectCall(component_id="pay", function=on_loop)], tenant=tenant)
                else:
                    built = Workflow("w").add(on_loop if kind == "loop" else in_thread, id="a")
                    await (await mesh.submit(built, tenant=tenant)).result(10)
    (own,) = (span for span in ended() if span.name == "own")
    assert is_child(own, one("attempt"))
    assert is_child(one("run"), request)


async def test_a_direct_call_keeps_the_baggage_of_its_caller_and_other_tasks_see_nobodys(traced: Open) -> None:
    seen = []

    async def look() -> None:
        seen.append(baggage.get_baggage("customer"))

    async with traced() as mesh:
        tenant = await tenant_of(mesh)
        token = context.attach(baggage.set_baggage("customer", "7"))
        try:
            await mesh.call([DirectCall(component_id="pay", function=look)], tenant=tenant)
            await (await mesh.submit(Workflow("w").add(look, id="a"), tenant=tenant)).result(10)
        finally:
            context.detach(token)
    assert seen == ["7", None]
    assert not ended("submit") or one("submit").parent is None


async def test_every_attempt_has_its_span_and_a_failed_one_says_why(traced: Open) -> None:
    async def flaky() -> None:
        match current_task().attempt:
            case 1:
                raise ConnectionError("no route")
            case 2:
                raise RetryLater(0)

    async with traced() as mesh:
        tenant = await tenant_of(mesh)
        await (await mesh.submit(Workflow("w").add(flaky, id="a", retry=AT_ONCE), tenant=tenant)).result(10)
    failed, postponed, good = ended("attempt")
    task = one("task")
    assert all(is_child(attempt, task) for attempt in (failed, postponed, good))
    assert [of(span, "attempt.number") for span in (failed, postponed, good)] == [1, 2, 3]
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, "no route")
    assert [of(span, "retry.cause") for span in (failed, postponed, good)] == ["failure", "postponed", None]
    (event,) = failed.events
    noted = dict(event.attributes or {})
    assert event.name == "exception"
    assert (noted["exception.type"], noted["exception.message"]) == ("ConnectionError", "no route")
    assert 'raise ConnectionError("no route")' in str(noted["exception.stacktrace"])
    assert (failed.attributes or {})["error.type"] == "ConnectionError"
    for span in (postponed, good, task, one("run")):
        assert (span.status.status_code, span.events) == (StatusCode.UNSET, ())


async def test_a_failure_makes_attempt_task_and_run_errors_and_what_is_skipped_has_no_span(traced: Open) -> None:
    async def bad() -> None:
        raise ValueError("for good")

    async def never() -> None: ...

    built = Workflow("w").add(bad, id="a", retry=NO).add(never, id="b", depends_on=["a"])
    async with traced() as mesh:
        handle = await mesh.submit(built, tenant=await tenant_of(mesh))
        with pytest.raises(RunFailed):
            await handle.result(10)
    for span in (one("attempt"), one("task")):
        assert span.status.status_code is StatusCode.ERROR
        assert (of(span, "status"), (span.attributes or {})["error.type"]) == ("failed", "ValueError")
        assert [event.name for event in span.events] == ["exception"]
    run = one("run")
    assert (run.status.status_code, of(run, "status")) == (StatusCode.ERROR, "failed")
    assert run.status.description == "a: ValueError: for good"


async def test_runs_that_end_without_an_attempt_have_their_span_too(traced: Open) -> None:
    async def never() -> None: ...

    async with traced(execute=False) as mesh:
        tenant = await tenant_of(mesh)
        cancelled = await mesh.submit(Workflow("w").add(never, id="a"), tenant=tenant)
        await cancelled.cancel()
        with pytest.raises(RunCancelled):
            await cancelled.result(10)
        late = await mesh.submit(Workflow("v").add(never, id="a", queue_timeout=0.01), tenant=tenant)
        with pytest.raises(RunFailed):
            await late.result(10)
    first, second = ended("run")
    assert (of(first, "status"), first.status.status_code) == ("cancelled", StatusCode.UNSET)
    assert (of(second, "status"), second.status.status_code) == ("failed", StatusCode.ERROR)
    task = one("task")
    assert is_child(task, second)
    assert (of(task, "status"), task.status.status_code) == ("timeout", StatusCode.ERROR)
    assert not ended("attempt")


async def test_a_task_that_waits_for_a_retry_when_its_run_is_cancelled_ends_with_it(traced: Open) -> None:
    failed = asyncio.Event()

    async def bad() -> None:
        failed.set()
        raise ValueError

    async with traced() as mesh:
        handle = await mesh.submit(Workflow("w").add(bad, id="a", retry=HOUR_LATER), tenant=await tenant_of(mesh))
        async for event in handle.events():
            if event.status is S.RETRYING:
                break
        await handle.cancel()
        with pytest.raises(RunCancelled):
            await handle.result(10)
    assert failed.is_set()
    assert (of(one("task"), "status"), of(one("run"), "status")) == ("cancelled", "cancelled")


@pytest.mark.parametrize("called_in_a_trace", [True, False])
@pytest.mark.parametrize("clean", [True, False])
async def test_a_run_that_goes_on_after_a_restart_stays_in_its_trace(
    traced: Open, tmp_path: Path, called_in_a_trace: bool, clean: bool
) -> None:
    blocked, path = asyncio.Event(), tmp_path / "life-1.db"
    hold = True

    async def quick() -> None: ...

    async def work() -> None:
        if hold:
            blocked.set()
            await asyncio.sleep(3_600)

    built = Workflow("w").add(quick, id="a").add(work, id="b", depends_on=["a"])
    waiting = Workflow("v").add(quick, id="a")
    async with traced(path, max_concurrent_tasks=1) as mesh:
        tenant = await tenant_of(mesh)
        request = tracer().start_span("request") if called_in_a_trace else trace.INVALID_SPAN
        with trace.use_span(request, end_on_exit=True):
            begun = await mesh.submit(built, tenant=tenant)
            await blocked.wait()
            later = await mesh.submit(waiting, tenant=tenant)
        if not clean:
            path = tmp_path / "life-2.db"
            for suffix in ("", "-wal"):  # what a process that is killed now would leave
                shutil.copyfile(tmp_path / f"life-1.db{suffix}", f"{path}{suffix}")
    submits = {of(span, "run.id"): span for span in ended("submit")}
    assert len(submits) == (0 if called_in_a_trace else 2)
    before = ended("run")
    assert [(of(span, "run.id"), of(span, "interrupted")) for span in before] == [(begun.id, True)]
    (kept,) = (span for span in ended("task") if of(span, "task.id") == "b")
    assert of(kept, "interrupted") is True
    (stopped,) = (span for span in ended("attempt") if of(span, "task.id") == "b")
    assert (of(stopped, "retry.cause"), stopped.status.status_code) == ("shutdown", StatusCode.UNSET)
    EXPORTER.clear()
    hold = False
    async with traced(path, workflows=[built, waiting]) as mesh:
        for handle in (begun, later):
            await mesh.handle(handle.id, tenant=tenant).result(10)
    runs = {of(span, "run.id"): span for span in ended("run")}
    assert runs.keys() == {begun.id, later.id}
    for run_id, run in runs.items():
        assert is_child(run, request if called_in_a_trace else submits[run_id])
        assert of(run, "status") == "success"
    assert start_of(runs[begun.id]) >= end_of(before[0]) or not clean
    assert {(of(span, "run.id"), of(span, "task.id")) for span in ended("task")} == {(begun.id, "b"), (later.id, "a")}
    (again,) = (span for span in ended("attempt") if of(span, "run.id") == begun.id)
    assert of(again, "attempt.number") == 2


async def test_a_damaged_trace_context_in_the_database_only_costs_the_parent(traced: Open, tmp_path: Path) -> None:
    import sqlite3

    async def work() -> None: ...

    built, path = Workflow("w").add(work, id="a"), tmp_path / "mesh.db"
    async with traced(path, execute=False) as mesh:
        tenant = await tenant_of(mesh)
        handle = await mesh.submit(built, tenant=tenant)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE runs SET traceparent = '00-zz'")
    connection.commit()
    connection.close()
    async with traced(path, workflows=[built]) as mesh:
        await mesh.handle(handle.id, tenant=tenant).result(10)
    assert one("run").parent is None


async def test_what_a_span_processor_raises_does_no_harm_and_is_said_once(traced: Open) -> None:
    async def work() -> int:
        return 1

    BREAKING.broken = True
    with structlog.testing.capture_logs() as said:
        async with traced() as mesh:
            tenant = await tenant_of(mesh)
            for _ in range(2):
                assert await (await mesh.submit(Workflow("w").add(work, id="a"), tenant=tenant)).result(10) == 1
    assert [entry["error"] for entry in said if "span" in entry["event"]] == ["this processor is broken"]


async def test_nothing_is_kept_of_runs_that_have_ended(traced: Open) -> None:
    async def work() -> None: ...

    async with traced() as mesh:
        tenant = await tenant_of(mesh)
        await (await mesh.submit(Workflow("w").add(work, id="a"), tenant=tenant)).result(10)
        runs = mesh._running.runs
        assert isinstance(runs, ObservedRuns)
        observer = runs._observer
        assert isinstance(observer, Traces)
        assert observer._runs == {}
        assert observer.failures == 0


MARK: ContextVar[str] = ContextVar("mark", default="nobody's")


@pytest.mark.parametrize("in_thread", [True, False])
async def test_a_task_does_not_see_what_another_tenants_task_left_in_its_context(
    open_mesh: Open, in_thread: bool
) -> None:
    seen = []

    submitted, all_submitted = asyncio.Event(), threading.Event()

    async def leave() -> None:
        await submitted.wait()
        MARK.set("somebody's")

    async def look() -> None:
        seen.append(MARK.get())

    def leave_in_thread() -> None:
        all_submitted.wait(10)
        MARK.set("somebody's")

    async with open_mesh(max_concurrent_tasks=1) as mesh:
        first, second = await tenant_of(mesh), await tenant_of(mesh)
        left = Workflow("w").add(leave_in_thread if in_thread else leave, id="a")
        looking = Workflow("v").add(look, id="a")
        await (await mesh.submit(looking, tenant=second)).result(10)  # what it may start in this hour is reserved now
        handles = [await mesh.submit(left, tenant=first), await mesh.submit(looking, tenant=second)]
        for _ in range(10):  # turns in which nothing happens any more
            await asyncio.sleep(0)
        submitted.set()
        all_submitted.set()
        for handle in handles:
            await handle.result(10)
    assert seen == ["nobody's", "nobody's"]


async def test_nothing_leaves_spans_unless_it_is_asked_for(open_mesh: Open) -> None:
    async def work() -> None: ...

    async with open_mesh() as mesh:
        tenant = await tenant_of(mesh)
        with tracer().start_as_current_span("request"):
            handle = await mesh.submit(Workflow("w").add(work, id="a"), tenant=tenant)
        await handle.result(10)
        record = await mesh._database.get_run(handle.id, None)
        assert record is not None
        assert record.traceparent is None
    assert [span.name for span in ended()] == ["request"]


CLEAN = """
import asyncio, sys
import synergymesh
from synergymesh import Orchestrator, Workflow

async def work(): pass

async def main():
    async with Orchestrator(":memory:") as mesh:
        tenant = (await mesh.create_tenant("A")).tenant_id
        await (await mesh.submit(Workflow("w").add(work, id="a"), tenant=tenant)).result(10)

asyncio.run(main())
print([name for name in sys.modules if name.partition(".")[0] == "opentelemetry"])
"""

MISSING = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
from synergymesh import Orchestrator
from synergymesh.errors import InvalidRequest
from synergymesh.settings import read_settings

Orchestrator(":memory:")
try:
    read_settings(traces=True)
except InvalidRequest as error:
    print(error.field, error)
"""


def output_of(code: str, where: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=where, check=True)
    assert done.stderr == ""
    return done.stdout


def test_opentelemetry_is_not_imported_when_traces_are_off(tmp_path: Path) -> None:
    assert output_of(CLEAN, tmp_path) == "[]\n"


def test_traces_without_opentelemetry_are_refused_with_the_name_of_the_extra(tmp_path: Path) -> None:
    said = output_of(MISSING, tmp_path)
    assert said.startswith("traces setting traces: ")
    assert "pip install 'synergymesh[otel]'" in said
    assert "SYNERGYMESH_TRACES" in said


def test_a_setting_that_is_no_yes_or_no_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="setting traces"):
        read_settings(traces="perhaps")
