"""Where SynergyMesh logs."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog

from synergymesh.logs import Log


@pytest.fixture(autouse=True)
def _unconfigured() -> Iterator[None]:
    """Other tests may have configured structlog; commands do."""
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


def test_a_program_that_configures_nothing_gets_warnings_on_standard_error_and_nothing_on_standard_output() -> None:
    code = "from synergymesh.logs import Log; log = Log('x'); log.info('quiet'); log.warning('loud', run_id='run-1')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert "loud" in done.stderr
    assert "run-1" in done.stderr
    assert "quiet" not in done.stderr


def test_the_standard_library_decides_the_level(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="synergymesh.test"):
        Log("synergymesh.test").bind(tenant_id="tenant-1").info("said")
    assert "said" in caplog.text
    assert "tenant-1" in caplog.text


def test_a_program_that_configures_structlog_gets_everything_there() -> None:
    log = Log("synergymesh.test")
    with structlog.testing.capture_logs() as seen:
        structlog.configure(processors=structlog.get_config()["processors"])
        log.warning("said", run_id="run-1")
    assert [(entry["event"], entry["run_id"]) for entry in seen] == [("said", "run-1")]
