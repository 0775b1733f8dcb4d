"""Where SynergyMesh logs: to structlog if the program has configured it, else to the standard library's logging.

So a program that embeds SynergyMesh finds warnings on standard error, never anything on standard output, until it says
otherwise.
"""

from __future__ import annotations

import logging
from typing import Any

import structlog


class Log:
    """A structlog logger that is looked up when it is used, since programs configure logging after they import."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._standard = structlog.wrap_logger(
            logging.getLogger(name),
            processors=[
                structlog.stdlib.filter_by_level,
                structlog.processors.format_exc_info,
                structlog.processors.KeyValueRenderer(key_order=["event"]),
            ],
            wrapper_class=structlog.stdlib.BoundLogger,
        )

    def __getattr__(self, method: str) -> Any:
        """Give a method of the logger: info, warning, error, bind …"""
        logger = structlog.get_logger(self._name) if structlog.is_configured() else self._standard
        return getattr(logger, method)
