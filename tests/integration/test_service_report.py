"""The report of a tenant's service level: what it compares, over which spans, and who may ask for it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from synergymesh import Orchestrator
from synergymesh.cli.app import main
from synergymesh.domain.observability.service_levels import ServiceLevel
from synergymesh.engine.maintenance import KEPT_HOURS
from synergymesh.engine.observability.statistics import HOUR
from synergymesh.errors import FeatureNotEnabled, UnknownTenant
from synergymesh.ports.changes import StatisticCounted
from synergymesh.ports.clock import SystemClock

AGO_HOURS = {0: 100, 5: 1_000, 24 * 20: 10_000, 24 * 40: 50_000}
"""How many tasks succeeded so many hours ago; one in a hundred as many failed."""


async def fill(mesh: Orchestrator, tenant_id: str) -> None:
    """Record what would have been counted in hours that are over, and load it."""
    now = mesh._clock.now() // HOUR
    rows = [
        StatisticCounted(tenant_id, now - ago, f"task.{status}", 0, count // share, 0)
        for ago, count in AGO_HOURS.items()
        for status, share in (("success", 1), ("failed", 100))
    ]
    await mesh._running.committer.record(rows)


def counts(levels: list[ServiceLevel]) -> list[tuple[str, int, int]]:
    return [(level.span, level.executions, level.failed) for level in levels]


async def test_each_span_has_what_lies_in_it_also_after_old_hours_were_added_up(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/mesh.db"
    async with Orchestrator(database) as mesh:
        tenant_id = (await mesh.create_tenant("Acme", "professional")).tenant_id
        await fill(mesh, tenant_id)
    expected = [("1h", 101, 1), ("24h", 1_111, 11), ("30d", 11_211, 111)]
    async with Orchestrator(database) as mesh:
        assert counts(await mesh.sla_report(tenant_id)) == expected
        hour = SystemClock().now() // HOUR
        assert await mesh._running.store.add_up_statistics(hour - KEPT_HOURS, 100) == 2
        levels = await mesh.sla_report(tenant_id)
        assert counts(levels) == expected
        month = levels[2]
        assert (month.target_percent, month.is_kept) == (99.9, False)
        assert month.budget == pytest.approx(11.211)
        assert month.budget_left == pytest.approx(1 - 111 / 11.211)
        assert month.burn_rate == pytest.approx(111 / 11_211 / 0.001)
        assert (await mesh.get_metrics()).executions == 61_711  # what is older counts for ever


async def test_a_tenant_needs_the_feature_and_the_operator_does_not() -> None:
    async with Orchestrator(":memory:") as mesh:
        basic = (await mesh.create_tenant("Small")).tenant_id
        professional = (await mesh.create_tenant("Large", "professional")).tenant_id
        assert len(await mesh.sla_report(basic)) == 3
        assert len(await mesh.sla_report(professional, as_tenant=True)) == 3
        with pytest.raises(FeatureNotEnabled, match=r"sla_monitoring.*professional"):
            await mesh.sla_report(basic, as_tenant=True)
        await mesh.set_tier(basic, "professional")
        assert len(await mesh.sla_report(basic, as_tenant=True)) == 3
        with pytest.raises(UnknownTenant):
            await mesh.sla_report("tenant-unknown", as_tenant=True)


def test_the_command_shows_the_report_of_any_tenant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = f"sqlite:///{tmp_path}/mesh.db"

    async def make() -> None:
        async with Orchestrator(database) as mesh:
            await fill(mesh, (await mesh.create_tenant("Acme")).tenant_id)

    asyncio.run(make())
    with pytest.raises(SystemExit) as ended:
        main(["sla", "Acme", "--database", database, "--json"])
    assert ended.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert [(level["span"], level["failed"]) for level in said] == [("1h", 1), ("24h", 11), ("30d", 111)]
