"""What all tests have in common."""

from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

# How long an example takes says more about the machine than about the code: machines are shared.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


@pytest.fixture(autouse=True)
def _logs_go_where_they_go_by_default() -> Iterator[None]:
    """Let no command that a test runs in this process say where the logs of the next tests go."""
    yield
    structlog.reset_defaults()
