"""What the engine and the tasks log, for people who run a command: on standard error, warnings and worse only."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

from synergymesh.cli.output import clean


def configure(*, verbose: bool = False) -> None:
    """Send what is logged to standard error, from `info` on when verbose, else from `warning` on."""
    import structlog

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.processors.format_exc_info,
            _clean,
            structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0, pad_level=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO if verbose else logging.WARNING),
        # looked up for every message: the live view takes the place of standard error while it draws
        logger_factory=lambda *arguments: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _clean(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {
        key: clean(value) if isinstance(value, str) and key != "exception" else value for key, value in event.items()
    }
