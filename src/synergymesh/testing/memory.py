"""Compare what a running mesh goes by with what its store says: at rest there is no difference."""

from __future__ import annotations

from synergymesh.domain.scheduling.limits import limits_of
from synergymesh.domain.states import TenantStatus
from synergymesh.engine.observability.views import tenant_view
from synergymesh.orchestrator import Orchestrator
from synergymesh.ports.store import Store


async def differences(mesh: Orchestrator, store: Store) -> list[str]:
    """Give what a mesh takes for otherwise than its store: its tenants, and what is paused; nothing when all is well.

    Args:
        mesh: started, while nobody changes anything.
        store: is asked directly, behind whatever the mesh sees it through.
    """
    parts = mesh._running
    found: list[str] = []
    recorded = {record.tenant_id: tenant_view(record, parts.tenants.plans) for record in await store.list_tenants()}
    known = {tenant.tenant_id: tenant for tenant in parts.tenants}
    for tenant_id in sorted(recorded.keys() | known.keys()):
        if known.get(tenant_id) != recorded.get(tenant_id):
            found.append(f"{known.get(tenant_id)} is recorded as {recorded.get(tenant_id)}")
    members = parts.dispatcher.scheduler._members
    if members.keys() != known.keys():
        found.append(f"the scheduler has {sorted(members)}, and there are {sorted(known)}")
    for tenant_id in known.keys() & members.keys():
        tenant, member = known[tenant_id], members[tenant_id]
        has = (member.limits, member.weight, member.throttle, member.share, member.paused)
        policy = tenant.policy
        paused = tenant.status is TenantStatus.SUSPENDED
        limits = limits_of(tenant.quota, parts.tenants.capacity)
        if has != (limits, tenant.weight, policy.throttle_percent, policy.share, paused):
            found.append(f"the scheduler has {has} for {tenant}")
    pauses = {(record.tenant_id or None, record.workflow) for record in await store.list_pauses()}
    known_pauses = {(each.tenant_id, each.workflow) for each in parts.pausing.workflows(None)}
    if pauses != known_pauses:
        found.append(f"{sorted(map(str, pauses ^ known_pauses))} are paused in memory or in the store, not in both")
    for run in parts.runs:
        record = await store.get_run(run.run_id, None)
        if record is not None and not record.status.is_final and (record.paused_at is not None) is not run.paused:
            found.append(f"{run.run_id} is {'' if run.paused else 'not '}paused in memory")
    return found
