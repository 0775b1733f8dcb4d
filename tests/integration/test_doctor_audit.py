"""The doctor looks at the audit log: what failed, what is sensitive, what is missing, and what is not signed yet."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synergymesh import Orchestrator, ResourceQuota, RetryPolicy, Workflow
from synergymesh.cli.app import main
from synergymesh.diagnostics.audit import AuditExamination, examine_audit
from synergymesh.diagnostics.doctor import examine
from synergymesh.diagnostics.findings import Finding, Level
from synergymesh.errors import InvalidRequest, RateLimitExceeded, RunNotSuccessful
from synergymesh.ports.clock import SystemClock
from synergymesh.settings import read_settings
from synergymesh.store.sqlite import SqliteStore
from synergymesh.testing.store_changes import created, finished, tenant, workflow

OpenMesh = Callable[..., Orchestrator]

DAY = 24 * 3_600 * 1_000_000_000


async def fails() -> None:
    raise ValueError("no such order")


FAILING = Workflow("failing").add(fails, id="book", retry=RetryPolicy(max_retries=1, initial_delay=0.001))


async def fill(open_mesh: OpenMesh) -> str:
    """Let a tenant fail twice, run into a limit three times, and change its plan."""
    async with open_mesh() as mesh:
        quota = ResourceQuota(rate_limit_per_second=2)
        acme = (await mesh.create_tenant("Acme", "professional", quota=quota)).tenant_id
        for _ in range(2):
            with pytest.raises(RunNotSuccessful):
                await (await mesh.submit(FAILING, tenant=acme)).result()
        denied = 0
        while denied < 3:
            try:
                await mesh.submit(FAILING, tenant=acme)
            except RateLimitExceeded:
                denied += 1
        await mesh.set_tier(acme, "enterprise")
    return acme


async def look(path: Path, **wanted: Any) -> AuditExamination:
    now = SystemClock().now()
    return await examine_audit(str(path), now, **({"since": now - DAY} | wanted))


def of(findings: tuple[Finding, ...] | list[Finding], subject: str) -> list[Finding]:
    return [finding for finding in findings if finding.subject == subject]


async def test_failures_denials_and_sensitive_actions_are_counted_by_tenant_and_reason(
    open_mesh: OpenMesh, tmp_path: Path
) -> None:
    acme = await fill(open_mesh)
    found = await look(tmp_path / "mesh.db")
    counts = {(each.tenant_id, each.action, each.reason): each.count for each in found.unsuccessful}
    assert counts[acme, "limit.hit", "rate_limit_exceeded"] == 3
    assert counts[acme, "task.finished", "builtins.ValueError"] >= 2
    assert counts[acme, "task.retried", "builtins.ValueError"] >= 2
    assert {"tenant.plan_changed", "tenant.created", "mesh.started"} <= {entry.action for entry in found.sensitive}
    assert all(finding.level is not Level.WRONG for finding in found.findings)
    (failures,) = of(found.findings, "failures")
    (denials,) = of(found.findings, "denials")
    assert failures.level is denials.level is Level.NOTE
    assert acme in failures.said
    assert "3 submissions" in denials.said
    assert failures.remedy
    assert denials.remedy


async def test_what_is_older_or_of_others_is_not_counted(open_mesh: OpenMesh, tmp_path: Path) -> None:
    await fill(open_mesh)
    later = await look(tmp_path / "mesh.db", since=SystemClock().now() + DAY)
    assert (later.unsuccessful, later.sensitive) == ((), ())
    assert later.entries > 10  # the chains are verified as a whole all the same
    of_mesh = await look(tmp_path / "mesh.db", tenant_id="")
    assert {entry.tenant_id for entry in of_mesh.sensitive} == {""}
    assert {"mesh.started", "mesh.stopped"} <= {entry.action for entry in of_mesh.sensitive}
    assert (of_mesh.unsuccessful, of_mesh.chains) == ((), 1)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("DELETE FROM audit_entries WHERE tenant_id <> '' AND seq = 4", "missing"),
        ("UPDATE audit_entries SET actor = 'user/eve' WHERE tenant_id <> '' AND seq = 4", "changed"),
        ("DELETE FROM audit_entries WHERE tenant_id = ''", "missing"),
    ],
)
async def test_gaps_and_changes_are_named_with_what_to_do(
    open_mesh: OpenMesh, tmp_path: Path, damage: str, named: str
) -> None:
    await fill(open_mesh)
    edited = sqlite3.connect(tmp_path / "mesh.db")
    edited.execute(damage)
    edited.commit()
    edited.close()
    gaps = of((await look(tmp_path / "mesh.db")).findings, "gaps")
    assert gaps
    assert all(finding.level is Level.WRONG and finding.remedy for finding in gaps)
    assert any(finding.said.startswith(named) for finding in gaps)


async def test_a_payload_that_is_no_json_is_counted_and_named(open_mesh: OpenMesh, tmp_path: Path) -> None:
    await fill(open_mesh)
    edited = sqlite3.connect(tmp_path / "mesh.db")
    edited.execute("UPDATE audit_entries SET payload = x'ff00' WHERE outcome <> 'success'")
    edited.commit()
    edited.close()
    found = await look(tmp_path / "mesh.db")
    assert sum(each.count for each in found.unsuccessful) > 5
    assert of(found.findings, "gaps")[0].level is Level.WRONG


async def test_checkpoints_that_cannot_be_read_are_named(open_mesh: OpenMesh, tmp_path: Path) -> None:
    await fill(open_mesh)
    file = tmp_path / "mesh.db.audit" / "checkpoints.jsonl"
    file.unlink()
    file.mkdir()
    with pytest.raises(InvalidRequest, match="checkpoints"):
        await look(tmp_path / "mesh.db")
    (finding,) = await lag_of(tmp_path / "mesh.db")
    assert finding.level is not Level.OK


async def test_who_restored_pruned_or_deleted_is_noted(open_mesh: OpenMesh, tmp_path: Path) -> None:
    async with open_mesh() as mesh:
        tenant_id = (await mesh.create_tenant("Acme")).tenant_id
        await mesh.hold_audit(tenant_id, "case 7")
        await mesh.release_audit(tenant_id)
        await mesh.delete_tenant(tenant_id)
        await mesh.rotate_audit_key()
    found = await look(tmp_path / "mesh.db")
    for subject in ("tenant.deleted", "audit.released", "key.rotated"):
        (finding,) = of(found.findings, subject)
        assert finding.level is Level.NOTE
        assert finding.remedy


# --- what is not signed ---------------------------------------------------------------------------------------------


async def unsigned(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.commit([[tenant(), workflow()]])
    await store.commit([[created("run-1"), finished("run-1")]])
    await store.close()


async def lag_of(path: Path) -> list[Finding]:
    found = await examine(str(path), SystemClock().now())
    return [finding for finding in found if finding.subject.startswith("audit")]


async def test_the_doctor_says_that_everything_is_signed(open_mesh: OpenMesh, tmp_path: Path) -> None:
    await fill(open_mesh)
    (finding,) = await lag_of(tmp_path / "mesh.db")
    assert finding.level is Level.OK
    assert "signed" in finding.said


async def test_entries_that_a_dead_process_did_not_sign_are_a_note(tmp_path: Path) -> None:
    await unsigned(tmp_path / "mesh.db")
    (finding,) = await lag_of(tmp_path / "mesh.db")
    assert finding.level is Level.NOTE
    assert finding.remedy
    examined = await look(tmp_path / "mesh.db")
    assert of(examined.findings, "gaps")[0].level is Level.NOTE  # nothing vouches for the chains


async def test_entries_that_an_owner_does_not_sign_for_long_are_wrong(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    await unsigned(path)
    store = SqliteStore(path)
    await store.open()
    try:
        (finding,) = await lag_of(path)
    finally:
        await store.close()
    assert finding.level is Level.WRONG  # the entries are of 1970
    assert "could not be signed" in finding.remedy


async def test_sinks_that_are_behind_are_named(
    open_mesh: OpenMesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(open_mesh)
    path = tmp_path / "mesh.db"
    sink = f"command:{sys.executable} -c pass"
    monkeypatch.setenv("SYNERGYMESH_AUDIT_SINKS", json.dumps([sink]))
    _, finding = await lag_of(path)
    assert (finding.level, finding.subject) == (Level.OK, "audit sinks")  # it has had a second only
    assert sink in finding.said
    later = SystemClock().now() + DAY
    found = [each for each in await examine(str(path), later) if each.subject == "audit sinks"]
    assert found[0].level is Level.WRONG
    async with Orchestrator(settings=read_settings(database=f"sqlite:///{path}")):
        pass  # it delivers what is there before it ends
    assert (await lag_of(path))[1].said == "all 1 have every checkpoint."


async def test_a_file_that_does_not_end_with_a_checkpoint_is_wrong(open_mesh: OpenMesh, tmp_path: Path) -> None:
    await fill(open_mesh)
    with (tmp_path / "mesh.db.audit" / "checkpoints.jsonl").open("ab") as file:
        file.write(b"nonsense\n")
    (finding,) = await lag_of(tmp_path / "mesh.db")
    assert finding.level is Level.WRONG


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_shows_it_and_ends_with_1_when_something_is_wrong(
    open_mesh: OpenMesh, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(fill(open_mesh))
    database = f"sqlite:///{tmp_path}/mesh.db"

    def cli(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["doctor", "audit", *arguments, "--database", database])
        assert isinstance(ended.value.code, int)
        return ended.value.code, capsys.readouterr().out

    before = (tmp_path / "mesh.db").read_bytes()
    code, out = cli()
    assert code == 0
    assert "builtins.ValueError" in out
    assert "limit.hit" in out
    assert "tenant.plan_changed" in out
    code, out = cli("--tenant", "Acme", "--since", "2h", "--json")
    said = json.loads(out)
    assert (code, said["chains"]) == (0, 1)
    assert said["unsuccessful"][0].keys() >= {"tenant_id", "action", "outcome", "reason", "count", "last_at"}
    assert {finding["subject"] for finding in said["findings"]} >= {"gaps", "audit log", "failures", "denials"}
    assert (tmp_path / "mesh.db").read_bytes() == before
    assert cli("--since", "yesterday-ish")[0] == 2
    edited = sqlite3.connect(tmp_path / "mesh.db")
    edited.execute("DELETE FROM audit_entries WHERE seq = 2")
    edited.commit()
    edited.close()
    code, out = cli()
    assert (code, "WRONG  gaps" in out) == (1, True)
    assert cli("--json")[0] == 1


async def test_a_database_in_memory_cannot_be_examined() -> None:
    with pytest.raises(InvalidRequest):
        await examine_audit(":memory:", 1, since=0)
