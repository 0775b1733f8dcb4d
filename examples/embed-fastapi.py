"""A web application that runs work for its customers: each customer is a tenant, each request a task of it.

pip install fastapi uvicorn
uvicorn --app-dir examples embed-fastapi:app
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.responses import JSONResponse

from synergymesh import EnterpriseSynergyMeshOrchestrator, SynergyMeshError, TenantTier
from synergymesh.telemetry.endpoint import MetricsEndpoint

# In an application of your own: from your database of customers, by a key that is not guessed.
CUSTOMERS = {"key-of-ann": ("Ann's bakery", TenantTier.PROFESSIONAL), "key-of-bob": ("Bob's garage", TenantTier.BASIC)}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with EnterpriseSynergyMeshOrchestrator(os.environ.get("SYNERGYMESH_DATABASE", ":memory:")) as mesh:
        known = {tenant.tenant_name: tenant.tenant_id for tenant in mesh.tenants.values()}
        app.state.tenants = {
            key: known.get(name) or mesh.create_tenant(name, tier) for key, (name, tier) in CUSTOMERS.items()
        }
        app.state.mesh = mesh
        yield


app = FastAPI(lifespan=lifespan)


def customer(x_api_key: Annotated[str, Header()]) -> str:
    """Give the tenant of a request: from its credential, never from its body."""
    tenant_id = app.state.tenants.get(x_api_key)
    if tenant_id is None:
        raise HTTPException(401, "there is no customer with that key")
    return str(tenant_id)


Customer = Annotated[str, Depends(customer)]


@app.exception_handler(SynergyMeshError)
async def refused(request: Any, error: SynergyMeshError) -> JSONResponse:
    return JSONResponse({"code": error.code, "detail": str(error)}, 409)


@app.post("/reports")
async def make_report(rows: list[int], tenant_id: Customer) -> dict[str, Any]:
    """Compute a report as a task of the customer: inside its quota, retried, recorded."""
    mesh: EnterpriseSynergyMeshOrchestrator = app.state.mesh
    if not mesh.acquire_rate_limit(tenant_id):
        raise HTTPException(429, "too many requests for your plan")

    async def report() -> dict[str, float]:
        return {"rows": len(rows), "mean": sum(rows) / len(rows)}

    result = await mesh.execute_with_retry(report, "report", tenant_id, max_retries=1)
    return {"status": result.status, "report": result.output, "error": result.error}


@app.get("/health")
async def health(tenant_id: Customer) -> dict[str, Any]:
    """Say how the customer's work is doing."""
    mesh: EnterpriseSynergyMeshOrchestrator = app.state.mesh
    return mesh.get_tenant_health(tenant_id)


class _Metrics:
    """Serve the metrics once the mesh is there; mount it where only your monitoring comes."""

    async def metrics_text(self) -> str:
        mesh: EnterpriseSynergyMeshOrchestrator = app.state.mesh
        return mesh.metrics_text()


app.mount("/metrics", MetricsEndpoint(_Metrics()))
