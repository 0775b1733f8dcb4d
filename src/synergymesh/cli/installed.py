"""Reads which Python distributions an environment has, and which of them need which.

The format of an installed distribution is "Recording installed projects" of the Python packaging specifications (PEP
376, 427, 627), names are compared as PEP 503 says, requirements are those of PEP 508.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from typing import Any

SECONDS_PER_FILE = 0.000_1
BYTES_PER_SECOND = 500_000_000
"""Opening a file and hashing it with SHA-256, on a machine of the 2020s; only the proportions matter."""

_NAME = re.compile(r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[([^\]]*)\])?")
_EXTRA_IN_MARKER = re.compile(r"\bextra\b")


def canonical(name: str) -> str:
    """Give the name as it is compared: `Foo_Bar` and `foo.bar` are `foo-bar`."""
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """Describe an installed distribution.

    Attributes:
        name: canonical.
        root: the directory that the paths of its RECORD start from.
        files: in its RECORD; 0 when it has none.
        bytes: their size, as far as the RECORD tells it.
        needs: canonical names of the installed distributions that it requires.
    """

    name: str
    version: str
    root: str
    files: int
    bytes: int
    needs: tuple[str, ...]

    @property
    def estimated_seconds(self) -> float:
        """Estimate how long reading its files takes."""
        return self.files * SECONDS_PER_FILE + self.bytes / BYTES_PER_SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Hold the distributions of an environment, those that are required before those that require them.

    Attributes:
        distributions: by name.
        cut: requirements that were left out because they would close a circle: (distribution, what it requires).
    """

    distributions: Mapping[str, Installed]
    cut: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Say what a line of a RECORD says: path, hash as `algorithm=value` or empty, size or None."""

    path: str
    hash: str
    size: int | None


def read_record(distribution: Distribution) -> list[FileRecord] | None:
    """Read the RECORD of a distribution; None if it has none."""
    text = distribution.read_text("RECORD")
    if text is None:
        return None
    records = []
    for row in csv.reader(text.splitlines()):
        if row and row[0]:
            size = row[2].strip() if len(row) > 2 else ""
            hash_ = row[1].strip() if len(row) > 1 else ""
            records.append(FileRecord(row[0], hash_, int(size) if size.isdigit() else None))
    return records


def find_distribution(name: str, root: str) -> Distribution | None:
    """Find one distribution below a directory, by its canonical name."""
    return next(iter(distributions(name=name, path=[root])), None)


def read_environment(paths: Sequence[str] | None = None) -> Environment:
    """Read the distributions of an environment, with the requirements between them.

    Args:
        paths: its directories, `site-packages` say; where this interpreter looks when None.
    """
    found: dict[str, tuple[Distribution, str]] = {}
    requirements: dict[str, list[str]] = {}
    for distribution in distributions(path=list(paths)) if paths is not None else distributions():
        metadata = distribution.metadata  # parsed at each access
        raw_name: Any = metadata["Name"]
        name = canonical(raw_name or "")
        if name and name not in found:  # the first on the path is the one that is imported
            found[name] = (distribution, str(metadata["Version"] or "?"))
            requirements[name] = list(metadata.get_all("Requires-Dist") or ())
    needs = _needs(requirements)
    order, cut = _cut_circles(needs)
    return Environment(
        distributions={name: _describe(name, *found[name], needs[name]) for name in order},
        cut=tuple(cut),
    )


def _describe(name: str, distribution: Distribution, version: str, needs: Iterable[str]) -> Installed:
    records = read_record(distribution) or []
    return Installed(
        name=name,
        version=version,
        root=str(distribution.locate_file("")),
        files=len(records),
        bytes=sum(record.size or 0 for record in records),
        needs=tuple(needs),
    )


# --- requirements ---------------------------------------------------------------------------------------------------


def _needs(requirements: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Give by name what each distribution needs of the others, for the extras that others ask of it too."""
    wanted: dict[str, set[str]] = {name: set() for name in requirements}
    needs: dict[str, list[str]] = {}
    open_ = list(requirements)
    while open_:
        name = open_.pop()
        required: dict[str, None] = {}
        for text in requirements[name]:
            for other, extras in parse_requirement(text, wanted[name]):
                if other not in wanted or other == name:
                    continue
                required[other] = None
                if not extras <= wanted[other]:
                    wanted[other] |= extras
                    open_.append(other)
        needs[name] = sorted(required)
    return needs


def parse_requirement(text: str, extras: Iterable[str] = ()) -> Iterator[tuple[str, frozenset[str]]]:
    """Give (canonical name, its extras) of a requirement if its marker holds here, for any of the extras or none.

    Without the package `packaging` only the extras of a marker are evaluated: a distribution that another system needs
    is not installed, and then the requirement means nothing.
    """
    try:
        from packaging.requirements import InvalidRequirement, Requirement
    except ModuleNotFoundError:
        yield from _parse_by_hand(text, extras)
        return
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        yield from _parse_by_hand(text, extras)
        return
    marker = requirement.marker
    if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
        yield canonical(requirement.name), frozenset(map(canonical, requirement.extras))


def _parse_by_hand(text: str, extras: Iterable[str]) -> Iterator[tuple[str, frozenset[str]]]:
    match = _NAME.match(text)
    if match is None:
        return
    marker = text.partition(";")[2]
    if _EXTRA_IN_MARKER.search(marker):
        quoted = {canonical(value) for value in re.findall(r"""extra\s*==\s*['"]([^'"]+)['"]""", marker)}
        if quoted.isdisjoint(map(canonical, extras)):
            return
    asked = (match.group(2) or "").split(",")
    yield canonical(match.group(1)), frozenset(canonical(extra.strip()) for extra in asked if extra.strip())


def _cut_circles(needs: Mapping[str, list[str]]) -> tuple[list[str], list[tuple[str, str]]]:
    """Order names, those that are needed first; take out of `needs` what would close a circle.

    Depth-first search, without recursion: an edge to a name that is still open closes a circle (Tarjan 1972).
    """
    order: list[str] = []
    cut: list[tuple[str, str]] = []
    state: dict[str, bool] = {}
    for start in sorted(needs):
        if start in state:
            continue
        state[start] = False
        path = [(start, iter(list(needs[start])))]
        while path:
            name, left = path[-1]
            other = next(left, None)
            if other is None:
                path.pop()
                state[name] = True
                order.append(name)
            elif other not in state:
                state[other] = False
                path.append((other, iter(list(needs[other]))))
            elif not state[other]:
                cut.append((name, other))
                needs[name].remove(other)
    return order, cut
