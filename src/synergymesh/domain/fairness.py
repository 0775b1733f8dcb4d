"""Fair shares in fixed point: what a dispatch costs a tenant, and when it is that tenant's turn again.

Start-time fair queueing (Goyal, Vin & Cheng, 1996): each tenant has a start tag S; the smallest goes first; a dispatch
moves S forward by cost / weight; virtual time V is the S of the tenant dispatched last; a tenant that becomes active
again starts from max(S, V), so that it can claim nothing for the past. Whole numbers only.
"""

from __future__ import annotations

SCALE = 720_720
"""Fixed point: divisible by every weight from 1 to 16, so that the usual weights lose nothing to rounding."""

COST_MIN_MICROSECONDS = 1_000
"""No dispatch is cheaper: starting a task costs something, and a weight of 0 must not make a tenant endless."""


def charge(cost_microseconds: int, weight: int) -> int:
    """Give what a dispatch of that cost moves the tenant's start tag forward."""
    return max(cost_microseconds, COST_MIN_MICROSECONDS) * SCALE // weight
