"""Every shell example of these guides runs, in its order, in an empty directory of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDES = ("configuration", "monitoring", "troubleshooting")


def examples(guide: str) -> list[str]:
    """Give the commands of the shell blocks."""
    text = (ROOT / "docs" / "guides" / f"{guide}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```shell\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert all(line.startswith("$ ") for line in lines), "a command is written on one line, after a prompt"
    return [line.removeprefix("$ ") for line in lines]


@pytest.mark.parametrize("guide", GUIDES)
def test_the_shell_examples_of_a_guide_run_in_their_order(guide: str, tmp_path: Path) -> None:
    commands = examples(guide)
    assert len(commands) >= 3
    script = "set -o pipefail\n" + "".join(f"{command} || {{ echo FAILED: $? >&2; exit 1; }}\n" for command in commands)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    ended = subprocess.run(
        ["bash", "-x", "-c", script],
        cwd=tmp_path,
        env=os.environ
        | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert ended.returncode == 0, ended.stderr[-2_000:]
