"""Every example runs, and shows what it says."""

import importlib.util
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

SHOWN = {
    "order-pipeline": ["charge    retrying", "shipped: 2 items reserved, 42 euros charged"],
    "flaky-service": ["30 payments wait and hold no slot", "waits for: circuit_open", "30 payments done"],
    "saga": ["cancelled: hotel of Ann\ncancelled: flight of Ann\n", "undo:book_hotel   success"],
    "noisy-neighbour": ["a call of Quiet beside 1,000 of Noisy", "Noisy may use a tenth"],
}
WITH_TESTS_OF_THEIR_OWN = {"embed-fastapi", "verify-packages", "package_report", "shop"}


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_an_example_runs_and_shows_what_it_says(name: str) -> None:
    ended = subprocess.run([sys.executable, EXAMPLES / f"{name}.py"], capture_output=True, text=True, timeout=100)
    assert (ended.returncode, ended.stderr) == (0, "")
    for text in SHOWN[name]:
        assert text in ended.stdout


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == SHOWN.keys() | WITH_TESTS_OF_THEIR_OWN


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    spec = importlib.util.spec_from_file_location("embed_fastapi", EXAMPLES / "embed-fastapi.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    async with (
        module.app.router.lifespan_context(module.app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=module.app), base_url="http://shop") as opened,
    ):
        yield opened


async def test_a_web_application_works_for_its_customers_and_keeps_them_apart(client: httpx.AsyncClient) -> None:
    ann, bob = {"X-Api-Key": "key-of-ann"}, {"X-Api-Key": "key-of-bob"}
    answer = await client.post("/reports", json=[1, 2, 6], headers=ann)
    assert (answer.status_code, answer.json()["report"]) == (200, {"rows": 3, "mean": 3.0})
    failed = (await client.post("/reports", json=[], headers=ann)).json()
    assert failed["status"] == "failed"
    assert "division by zero" in failed["error"]
    assert (await client.get("/health", headers=ann)).json()["total_executions"] == 2
    assert (await client.get("/health", headers=bob)).json()["total_executions"] == 0
    assert (await client.post("/reports", json=[1], headers={"X-Api-Key": "guessed"})).status_code == 401
    assert "synergymesh_tenants 2.0" in (await client.get("/metrics/")).text


async def test_a_customer_beyond_the_rate_of_its_plan_is_told_so(client: httpx.AsyncClient) -> None:
    bob = {"X-Api-Key": "key-of-bob"}
    codes = [(await client.post("/reports", json=[1], headers=bob)).status_code for _ in range(60)]
    assert codes[0] == 200
    assert 429 in codes
