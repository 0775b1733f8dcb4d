"""Every shell example of the guide to the command line runs, in its order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "command-line.md"


def examples() -> list[str]:
    """Give the commands of the shell blocks."""
    blocks = re.findall(r"^```shell\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert all(line.startswith("$ ") for line in lines), "a command is written on one line, after a prompt"
    return [line.removeprefix("$ ") for line in lines]


def test_the_shell_examples_of_the_guide_run_in_their_order(tmp_path: Path) -> None:
    commands = examples()
    assert len(commands) > 15
    script = "set -o pipefail\n" + "".join(f"{command} || {{ echo FAILED: $? >&2; exit 1; }}\n" for command in commands)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "-x", "-c", script],
        cwd=ROOT,
        env=os.environ | {"PATH": path, "TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert ended.returncode == 0, ended.stderr[-2_000:]
    assert ended.stdout.count("result: ") >= 4
