"""What an examination finds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """Say how bad a finding is."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing, and nothing has to be done at once."""
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """Say what was looked at, what was found, and what to do.

    Attributes:
        subject: what was looked at, in a word or two.
        said: what was found, one sentence.
        remedy: what to do, one sentence; empty when nothing has to be done.
    """

    subject: str
    level: Level
    said: str
    remedy: str = ""


def ok(subject: str, said: str) -> Finding:
    """Make a finding that is as it should be."""
    return Finding(subject, Level.OK, said)


def note(subject: str, said: str, remedy: str = "") -> Finding:
    """Make a finding that is worth knowing."""
    return Finding(subject, Level.NOTE, said, remedy)


def wrong(subject: str, said: str, remedy: str) -> Finding:
    """Make a finding about which something has to be done."""
    return Finding(subject, Level.WRONG, said, remedy)


def is_wrong(findings: Iterable[Finding]) -> bool:
    """Tell whether something has to be done."""
    return any(finding.level is Level.WRONG for finding in findings)
