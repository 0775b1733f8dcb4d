"""Short names for long ids, so that a trace can be read and compared."""

from __future__ import annotations


class Names:
    """Name tenants T1, T2 …, and runs R1, R2 … in the order in which they are seen."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._counts = {"T": 0, "R": 0}

    def of(self, full: str | None) -> str:
        """Give the short name of a tenant's or a run's id."""
        if full is None:
            return "-"
        name = self._names.get(full)
        if name is None:
            letter = "R" if full.startswith("run-") else "T"
            self._counts[letter] += 1
            name = self._names[full] = f"{letter}{self._counts[letter]}"
        return name
