"""The command line: one module per command group."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit code."""
    from synergymesh.cli.app import main as run

    run(arguments)


__all__ = ["main"]
