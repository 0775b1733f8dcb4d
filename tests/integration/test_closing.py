"""The end of the synchronous orchestrator: from wherever it is closed, and whatever is under way, it ends."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from synergymesh import EnterpriseSynergyMeshOrchestrator, ExecutionStatus, ResourceQuota, RetryPolicy, task, workflow
from synergymesh.errors import NotRunning
from synergymesh.portal import Portal

pytestmark = pytest.mark.timeout(40)

LONG = 30.0
"""Seconds of grace that no test may wait for: who waits for them runs into the test's timeout."""


@pytest.fixture
def mesh() -> Iterator[EnterpriseSynergyMeshOrchestrator]:
    opened = EnterpriseSynergyMeshOrchestrator(shutdown_grace_seconds=LONG, stop_grace_seconds=LONG)
    yield opened
    opened.close()


@pytest.fixture
def tenant_id(mesh: EnterpriseSynergyMeshOrchestrator) -> str:
    return mesh.create_tenant("Acme")


class Work:
    """A coroutine function that says how far it has come."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.end = ""

    async def __call__(self) -> str:
        self.begun.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.end = "cancelled"
            raise
        self.end = "done"
        return "done"


async def test_closing_in_the_loop_of_a_call_that_is_under_way_interrupts_it_at_once(
    mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
) -> None:
    work = Work()
    call = asyncio.create_task(mesh.execute_with_retry(work, "c", tenant_id))
    await work.begun.wait()
    mesh.close()
    with pytest.raises(NotRunning):
        await call
    assert work.end == "cancelled"


async def test_an_exception_inside_the_context_ends_it_with_calls_under_way() -> None:
    work = Work()
    calls = []

    async def program() -> None:
        with EnterpriseSynergyMeshOrchestrator(shutdown_grace_seconds=LONG) as mesh:
            calls.append(asyncio.create_task(mesh.execute_with_retry(work, "c", mesh.create_tenant("Acme"))))
            await work.begun.wait()
            raise LookupError

    with pytest.raises(LookupError):
        await program()
    with pytest.raises(NotRunning):
        await calls[0]
    assert work.end == "cancelled"


async def test_the_asynchronous_context_lets_the_calls_of_its_loop_end() -> None:
    work = Work()
    async with EnterpriseSynergyMeshOrchestrator(shutdown_grace_seconds=LONG) as mesh:
        call = asyncio.create_task(mesh.execute_with_retry(work, "c", mesh.create_tenant("Acme")))
        await work.begun.wait()
        asyncio.get_running_loop().call_soon(work.go_on.set)
    assert (await call).output == "done"
    with pytest.raises(NotRunning):
        mesh.get_metrics()


def test_a_call_whose_loop_is_gone_is_interrupted_at_once(
    mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
) -> None:
    work = Work()
    loop = asyncio.new_event_loop()
    call = loop.create_task(mesh.execute_with_retry(work, "c", tenant_id))
    loop.run_until_complete(work.begun.wait())
    loop.close()
    mesh.close()  # within the time of this test, which is not that of the grace
    assert not call.done()
    for left in asyncio.all_tasks(loop):  # that they never end is what this is about, so asyncio is not to report it
        left._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio has no other way to say so


async def test_a_tenant_is_deleted_by_force_in_the_loop_of_its_call(
    mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
) -> None:
    work = Work()
    call = asyncio.create_task(mesh.execute_with_retry(work, "c", tenant_id))
    await work.begun.wait()
    mesh.delete_tenant(tenant_id, force=True)
    assert (await call).status is ExecutionStatus.CANCELLED
    assert work.end == "cancelled"
    assert mesh.get_metrics()["active_tasks"] == 0


async def test_two_threads_that_close_at_the_same_time_both_wait_for_the_end(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/mesh.db"
    mesh = EnterpriseSynergyMeshOrchestrator(database, shutdown_grace_seconds=LONG)
    work = Work()
    call = asyncio.create_task(mesh.execute_with_retry(work, "c", mesh.create_tenant("Acme")))
    await work.begun.wait()
    closers = [asyncio.create_task(asyncio.to_thread(mesh.close)) for _ in range(3)]
    done, _ = await asyncio.wait(closers, timeout=0.1)
    assert not done
    work.go_on.set()
    await asyncio.gather(*closers)
    assert (await call).output == "done"
    with EnterpriseSynergyMeshOrchestrator(database) as again:
        assert again.get_metrics()["successful_executions"] == 1


def test_a_task_that_closes_the_orchestrator_that_runs_it_is_refused_and_nothing_ends(
    mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
) -> None:
    @task
    async def closes() -> str:
        try:
            mesh.close()
        except NotRunning as error:
            return str(error)
        return "closed"

    @workflow
    def ends() -> Any:
        return closes()

    assert "it would wait for itself" in mesh.result_of(mesh.submit(ends, tenant_id))
    assert mesh.get_metrics()["successful_executions"] == 1


def test_a_plain_task_that_closes_its_orchestrator_is_given_up(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/mesh.db"
    mesh = EnterpriseSynergyMeshOrchestrator(database, shutdown_grace_seconds=0)
    closed = threading.Event()

    @task
    def closes() -> None:
        mesh.close()
        closed.set()

    @workflow
    def ends() -> Any:
        return closes()

    mesh.submit(ends, mesh.create_tenant("Acme"))
    assert closed.wait(LONG)
    with pytest.raises(NotRunning):
        mesh.get_metrics()


async def test_a_function_may_close_the_orchestrator_that_called_it(
    mesh: EnterpriseSynergyMeshOrchestrator, tenant_id: str
) -> None:
    ends = []

    async def closes() -> None:
        mesh.close()
        ends.append("closed")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    with pytest.raises(NotRunning):
        await mesh.execute_with_retry(closes, "c", tenant_id)
    await asyncio.sleep(0)
    assert ends == ["closed", "cancelled"]


async def test_a_function_that_ignores_its_end_does_not_keep_the_orchestrator_open() -> None:
    mesh = EnterpriseSynergyMeshOrchestrator(shutdown_grace_seconds=0, stop_grace_seconds=0.05)
    begun, enough = asyncio.Event(), asyncio.Event()

    async def ignores() -> None:
        begun.set()
        while not enough.is_set():
            try:
                await enough.wait()
            except asyncio.CancelledError:
                continue

    call = asyncio.create_task(mesh.execute_with_retry(ignores, "c", mesh.create_tenant("Acme")))
    await begun.wait()
    await mesh.aclose()
    with pytest.raises(NotRunning):
        await call
    enough.set()


def test_a_coroutine_that_ignores_its_end_does_not_keep_the_orchestrator_open() -> None:
    mesh = EnterpriseSynergyMeshOrchestrator(shutdown_grace_seconds=0, stop_grace_seconds=0.05)
    begun, enough = threading.Event(), threading.Event()

    @task
    async def ignores() -> None:
        begun.set()
        until = time.monotonic() + 0.5  # less than the portal waits for, so that the coroutine ends before its loop
        while time.monotonic() < until:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                continue
        enough.set()

    @workflow
    def lingers() -> Any:
        return ignores()

    mesh.submit(lingers, mesh.create_tenant("Acme"))
    assert begun.wait(LONG)
    mesh.close()
    assert enough.is_set()


def test_who_interrupts_the_end_can_wait_for_it_again(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/mesh.db"
    mesh = EnterpriseSynergyMeshOrchestrator(database, shutdown_grace_seconds=LONG)
    begun, go_on = threading.Event(), threading.Event()

    @task
    def holds() -> None:
        begun.set()
        go_on.wait()

    @workflow
    def waits() -> Any:
        return holds()

    def press_ctrl_c() -> None:
        while mesh._closing is None:
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    mesh.submit(waits, mesh.create_tenant("Acme"))
    assert begun.wait(LONG)
    pressing = threading.Thread(target=press_ctrl_c)
    pressing.start()
    with pytest.raises(KeyboardInterrupt):
        mesh.close()
    pressing.join()
    go_on.set()
    mesh.close()
    with EnterpriseSynergyMeshOrchestrator(database) as again:
        assert again.get_metrics()["successful_executions"] == 1


FORKS = """
import os, signal, sys
from synergymesh import EnterpriseSynergyMeshOrchestrator
from synergymesh.errors import NotRunning, StoreError
mesh = EnterpriseSynergyMeshOrchestrator(sys.argv[1])
child = os.fork()
if child == 0:
    signal.alarm(20)  # ends this process also when it hangs
    try:
        mesh.create_tenant("Acme")
    except NotRunning as error:
        print(error, flush=True)
    mesh.close()
    try:
        EnterpriseSynergyMeshOrchestrator()
    except StoreError as error:
        print(error, flush=True)
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(mesh.tenants[mesh.create_tenant("Acme")].tenant_name)
"""

FORKS_WHEN_ALL_IS_CLOSED = """
import os, signal, sys
from synergymesh import EnterpriseSynergyMeshOrchestrator
with EnterpriseSynergyMeshOrchestrator(sys.argv[1]) as mesh:
    mesh.create_tenant("Acme")
child = os.fork()
if child == 0:
    signal.alarm(20)
    with EnterpriseSynergyMeshOrchestrator(sys.argv[1]) as mesh:
        print([tenant.tenant_name for tenant in mesh.tenants.values()], flush=True)
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def run_program(program: str, tmp_path: Path) -> list[str]:
    """Give the lines that a program of its own says on a database; Python's own warning of forks is left out."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, f"sqlite:///{tmp_path}/mesh.db"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()


def test_a_forked_process_is_refused_and_ends_and_leaves_the_orchestrator_to_the_other_one(tmp_path: Path) -> None:
    used, opened, code, name = run_program(FORKS, tmp_path)
    assert used.startswith("this process was forked off, and the orchestrator stayed with the other one.")
    assert opened.startswith("this process was forked off while a database was open")
    assert '"spawn"' in used
    assert '"spawn"' in opened
    assert (code, name) == ("7", "Acme")


def test_a_process_that_is_forked_when_all_is_closed_opens_an_orchestrator_of_its_own(tmp_path: Path) -> None:
    assert run_program(FORKS_WHEN_ALL_IS_CLOSED, tmp_path) == ["['Acme']", "7"]


async def test_arguments_that_do_not_fit_are_a_failure_and_take_no_slot() -> None:
    async def price(order: str) -> str:
        return order

    async with EnterpriseSynergyMeshOrchestrator(shutdown_grace_seconds=LONG) as mesh:
        tenant_id = mesh.create_tenant("Acme", custom_quota=ResourceQuota(max_concurrent_tasks=1))
        for wrong in ({"ordr": "1"}, {}):
            failed = await mesh.execute_with_retry(price, "price", tenant_id, max_retries=0, **wrong)
            assert failed.status is ExecutionStatus.FAILED
            assert "TypeError" in str(failed.error)
        mesh.retry_policies["price"] = RetryPolicy(max_retries=0)
        results = await mesh.execute_components(tenant_id, {"price": price})
        assert results["price"].status is ExecutionStatus.FAILED
        assert (await mesh.execute_with_retry(price, "price", tenant_id, order="1")).output == "1"


async def test_a_call_that_nobody_answers_ends_with_the_portal() -> None:
    portal = Portal("test", lambda: None)
    begun = threading.Event()
    withdrawn: list[str] = []

    def begin(*_: Any) -> str:
        begun.set()
        return "what was begun"

    asking = asyncio.create_task(portal.ask(begin, withdrawn.append))
    await asyncio.to_thread(begun.wait)
    await asyncio.to_thread(portal.close)
    with pytest.raises(NotRunning, match="closed meanwhile"):
        await asking
    with pytest.raises(NotRunning, match="is closed"):
        await portal.ask(begin, withdrawn.append)
    assert withdrawn == []


async def test_who_goes_away_withdraws_what_was_begun_for_him_and_nothing_is_begun_after_that() -> None:
    portal = Portal("test", lambda: None)
    begun, go_on, withdrawn = threading.Event(), threading.Event(), threading.Event()
    names: list[str] = []

    def begin(*_: Any) -> str:
        names.append("begun")
        begun.set()
        go_on.wait()
        return "it"

    def withdraw(name: str) -> None:
        names.append(f"{name} is withdrawn")
        withdrawn.set()

    first = asyncio.create_task(portal.ask(begin, withdraw))
    await asyncio.to_thread(begun.wait)
    second = asyncio.create_task(portal.ask(begin, withdraw))
    await asyncio.sleep(0)  # it has asked, and the portal is busy
    for asking in (first, second):
        asking.cancel()
    assert [type(each) for each in await asyncio.gather(first, second, return_exceptions=True)] == [
        asyncio.CancelledError,
        asyncio.CancelledError,
    ]
    go_on.set()
    await asyncio.to_thread(withdrawn.wait)
    await asyncio.to_thread(portal.close)
    assert names == ["begun", "it is withdrawn"]
