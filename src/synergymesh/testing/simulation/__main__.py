"""Replay one world, or try as many as the time allows.

python -m synergymesh.testing.simulation replay SEED
python -m synergymesh.testing.simulation soak SECONDS [FIRST_SEED]
python -m synergymesh.testing.simulation seeds COUNT [FIRST_SEED]
python -m synergymesh.testing.simulation bugs [GUIDE]
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from math import inf
from pathlib import Path
from random import SystemRandom

from synergymesh.testing.simulation.options import Options
from synergymesh.testing.simulation.planted import BUGS
from synergymesh.testing.simulation.planting import hunt
from synergymesh.testing.simulation.violation import Violation
from synergymesh.testing.simulation.world import World, simulate

USAGE = 2

SAID_SECONDS = 10.0
"""Pause between two lines about how far it is."""

SEEDS_PER_BUG = 1_000
"""Worlds in which a planted bug is looked for, from seed 0 on."""

BEGIN, END = "<!-- planted bugs -->\n", "<!-- /planted bugs -->"


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


def soak(seconds: float, count: float, first: int | None = None) -> int:
    """Try one world after the other, for so long or so many; stop at the first that breaks something."""
    seed = begin = SystemRandom().randrange(2**40) if first is None else first
    began = said = time.monotonic()
    deaths: Counter[str] = Counter()
    lives = runs = attempts = 0
    while (now := time.monotonic()) - began < seconds and seed - begin < count:
        try:
            report = simulate(seed)
        except Violation as violation:
            print(violation)
            return 1
        deaths.update(report.deaths)
        lives, runs, attempts = lives + report.lives, runs + report.runs, attempts + report.attempts
        seed += 1
        if now - said > SAID_SECONDS:
            said = now
            print(f"{seed - begin:,} seeds from {begin}, {(seed - begin) / (now - began):.1f} seeds/s", flush=True)
    spent = time.monotonic() - began
    print(f"{seed - begin:,} seeds from {begin} in {spent:.0f} s: {(seed - begin) / spent:.1f} seeds/s, all held")
    print(f"{lives:,} lives, {deaths.total():,} deaths, {runs:,} runs, {attempts:,} attempts")
    print("deaths: " + ", ".join(f"{count} at {point}" for point, count in deaths.most_common()))
    return 0


def bugs(path: Path | None) -> int:
    """Plant every bug and look for the first world that catches it; write the table into a document."""
    rows = ["| planted bug | caught by | after seeds |", "|---|---|---|"]
    missed = 0
    for bug in BUGS:
        catch = hunt(bug, range(SEEDS_PER_BUG))
        missed += catch is None
        found = "**missed** | " if catch is None else f"{catch.invariant} | {catch.seeds}"
        rows.append(f"| {bug.what} | {found} |")
        print(f"{bug.name}: {'missed' if catch is None else f'{catch.invariant} after {catch.seeds}'}", flush=True)
    if path is not None:
        before, rest = path.read_text(encoding="utf-8").split(BEGIN)
        after = rest.split(END)[1]
        made = f"Made with Python {version()}; another one may need more or fewer seeds.\n"
        path.write_text(before + BEGIN + "\n".join(rows) + "\n\n" + made + END + after, encoding="utf-8")
    return 1 if missed else 0


def version() -> str:
    """Give the version of Python; its event loop decides about the order of things."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        print(f"{name} must be a whole number, as in {name}=7, not {text!r:.50}.", file=sys.stderr)
        sys.exit(USAGE)


def main(arguments: list[str]) -> int:
    """Do what is asked for."""
    match arguments:
        case ["replay", seed]:
            return replay(_number("SEED", seed))
        case ["soak", seconds, *first] if len(first) < 2:
            return soak(_number("SECONDS", seconds), inf, *(_number("FIRST_SEED", each) for each in first))
        case ["seeds", count, *first] if len(first) < 2:
            return soak(inf, _number("COUNT", count), *(_number("FIRST_SEED", each) for each in first))
        case ["bugs", *file]:
            return bugs(Path(file[0]) if file else None)
    print(__doc__, file=sys.stderr)
    return USAGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
