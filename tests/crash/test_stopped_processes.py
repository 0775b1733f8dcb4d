"""A process that is stopped and goes on (SIGSTOP, SIGCONT), and one that may open hardly any files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.crash, pytest.mark.timeout(240)]

STOPS = 5
STOPPED_SECONDS = 0.7
"""Longer than every timer that the engine has while it submits."""


def test_a_process_that_is_stopped_and_goes_on_loses_and_repeats_nothing_and_keeps_its_database(
    new_program: Callable[[], Any], look: Callable[[str], list[Any]], errors_of: Callable[[], str], tmp_path: Path
) -> None:
    first, second = new_program(), new_program()
    first.start("submit")
    assert first.becomes_ready(), errors_of()
    for stop in range(STOPS):
        assert not first.ends_within(0.2), errors_of()
        os.kill(first.pid, signal.SIGSTOP)
        if stop == 0:
            second.start("finish")
            assert not second.becomes_ready(), "nobody takes the database of a process that is only stopped"
            assert second.ends_within(30)
            assert second.returncode == 1
        else:
            time.sleep(STOPPED_SECONDS)
        os.kill(first.pid, signal.SIGCONT)
    assert not first.ends_within(0.2), errors_of()
    first.kill()
    first.start("finish")
    assert first.ends_within(120), errors_of()
    assert first.returncode == 0, errors_of()
    ends = set(look("SELECT workflow = 'trip', status FROM runs"))
    assert ends <= {(0, "success"), (1, "failed")}, "only trips fail, and are undone"
    effects = Counter((tmp_path / "effects").read_text().splitlines())
    assert effects.most_common(1)[0][1] == 1, "an attempt ran twice"
    runs = {run for (run,) in look("SELECT run_id FROM runs")}
    acknowledged = {line.split()[1] for line in (tmp_path / "acknowledged").read_text().splitlines()}
    assert acknowledged <= runs


FEW_FILES = """
import asyncio, resource, sys
from synergymesh import Orchestrator, Workflow
from synergymesh.errors import SynergyMeshError

async def work():
    return 7

async def main(database):
    async with Orchestrator(database) as mesh:
        tenant = (await mesh.create_tenant("A")).tenant_id
        await (await mesh.submit(Workflow("w").add(work), tenant=tenant)).result(10)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
        try:
            for _ in range(5):
                await (await mesh.submit(Workflow("w").add(work), tenant=tenant)).result(10)
            print("went on")
            try:
                await Orchestrator(database + ".other").start()
            except SynergyMeshError as error:
                print(type(error).__name__, error)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    async with Orchestrator(database) as mesh:
        print(len(await mesh.list_runs(status="success")))

asyncio.run(main(sys.argv[1]))
"""


def test_a_process_without_file_descriptors_goes_on_and_refuses_a_new_database_with_the_reason(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FEW_FILES, str(tmp_path / "mesh.db")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    went_on, refused, runs = done.stdout.splitlines()
    assert went_on == "went on"
    assert refused.startswith("StoreUnavailable")
    assert "mesh.db.other" in refused
    assert runs == "6"
