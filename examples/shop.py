"""A checkout: fetch an order, price it, write the invoice. The shop does not answer the first time.

synergymesh run examples/shop.py --tenant Acme --tier professional --input '{"order_id": 42}'
"""

from synergymesh import RetryPolicy, current_task, task, workflow


@task(retry=RetryPolicy(max_retries=5, initial_delay=0.2), timeout=30.0)
async def fetch(order_id: int) -> dict:
    """Get the order from the shop."""
    if current_task().attempt == 1:
        raise ConnectionError("the shop did not answer")  # retried after 0.2 seconds
    return {"id": order_id, "lines": [19.90, 5.10]}


@task(weight=2.0)
def price(order: dict) -> float:
    """Add up the lines of an order."""
    return sum(order["lines"])


@task
def invoice(order: dict, total: float) -> str:
    """Write the invoice."""
    return f"order {order['id']}: {total:.2f} EUR"


@workflow
def checkout(order_id: int):
    """Describe what is done for one order."""
    order = fetch(order_id)
    total = price(order)
    return invoice(order, total)
