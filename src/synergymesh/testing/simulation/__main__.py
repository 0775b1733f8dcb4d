"""Replay one world, or try as many as the time allows.

python -m synergymesh.testing.simulation replay SEED
python -m synergymesh.testing.simulation soak SECONDS [FIRST_SEED]
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from random import SystemRandom

from synergymesh.testing.simulation.options import Options
from synergymesh.testing.simulation.violation import Violation
from synergymesh.testing.simulation.world import World, simulate

USAGE = 2


def replay(seed: int) -> int:
    """Show one world as it happens."""
    print(f"seed {seed}, {Options.from_seed(seed)}")
    try:
        report = World(seed, watch=print).run()
    except Violation as violation:
        print(f"\n{violation.invariant} is broken: {str(violation).splitlines()[0]}")
        return 1
    print(
        f"everything held: {report.lives} lives, {report.runs} runs, {report.attempts} attempts, {report.commits} "
        f"commits, {report.seconds:.0f} virtual seconds, trace {report.digest[:16]}"
    )
    return 0


def soak(seconds: float, first: int | None = None) -> int:
    """Try one world after the other; stop at the first that breaks something."""
    seed = begin = SystemRandom().randrange(2**40) if first is None else first
    began = time.monotonic()
    said = began
    deaths: Counter[str] = Counter()
    while (now := time.monotonic()) - began < seconds:
        try:
            deaths.update(simulate(seed).deaths)
        except Violation as violation:
            print(violation)
            return 1
        seed += 1
        if now - said > 10:
            said = now
            print(f"{seed - begin:,} seeds from {begin}, {(seed - begin) / (now - began):.1f} seeds/s", flush=True)
    spent = time.monotonic() - began
    print(f"{seed - begin:,} seeds from {begin} in {spent:.0f} s: {(seed - begin) / spent:.1f} seeds/s, all held")
    print("deaths: " + ", ".join(f"{count} at {point}" for point, count in deaths.most_common()))
    return 0


def main(arguments: list[str]) -> int:
    """Do what is asked for."""
    match arguments:
        case ["replay", seed]:
            return replay(int(seed))
        case ["soak", seconds]:
            return soak(float(seconds))
        case ["soak", seconds, first]:
            return soak(float(seconds), int(first))
    print(__doc__, file=sys.stderr)
    return USAGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
