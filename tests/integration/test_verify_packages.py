"""`make demo`: a real job on real input, which finds what is not as it was installed."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "verify-packages.py"


class Ended(NamedTuple):
    code: int
    out: str
    err: str
    report: dict[str, Any]


Verify = Callable[..., Ended]


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(EXAMPLE), *arguments]


@pytest.fixture
def verify(tmp_path: Path) -> Verify:
    """Give a function that runs the example."""

    def run(*arguments: str) -> Ended:
        report = tmp_path / "report.json"
        report.unlink(missing_ok=True)
        ended = subprocess.run(
            command(*arguments, "--report", str(report)), cwd=tmp_path, capture_output=True, text=True, timeout=100
        )
        found = json.loads(report.read_text()) if report.exists() else {}
        return Ended(ended.returncode, ended.stdout, ended.stderr, found)

    return run


def install(root: Path, name: str, *requires: str) -> None:
    """Make a distribution of three files as an installer leaves it."""
    files = {f"{name}/__init__.py": f"# {name}\n", f"{name}/data, more.txt": "x" * 3_000, f"{name}/empty.py": ""}
    info = root / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (root / name).mkdir()
    rows = []
    for path, text in files.items():
        (root / path).write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f'"{path}",sha256={digest},{len(text)}')
    rows += [f"{name}-1.0.dist-info/RECORD,,", f"{name}/__pycache__/__init__.pyc,,"]
    (info / "RECORD").write_text("\n".join(rows) + "\n")
    needs = "\n".join(f"Requires-Dist: {each}" for each in requires)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}\n")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Give a site-packages directory: app needs lib and base, lib needs base; alone needs nobody."""
    root = tmp_path / "site"
    install(root, "app", "lib>=1", "base")
    install(root, "lib", "base; python_version > '3'")
    install(root, "base")
    install(root, "alone")
    return root


def test_an_intact_environment_is_verified_for_three_tenants(verify: Verify, site: Path) -> None:
    ended = verify("--environment", str(site))
    assert (ended.code, ended.err) == (0, "")
    report = ended.report
    assert report["intact"] is True
    assert [(t["tier"], t["tasks"], t["status"]) for t in report["tenants"]] == [
        ("basic", 4, "success"),
        ("professional", 4, "success"),
        ("enterprise", 4, "success"),
    ]
    counts = {name: (d["checked"], d["not_checked"], d["bytes"]) for name, d in report["distributions"].items()}
    assert counts == {name: (3, 2, 3_000 + len(f"# {name}\n")) for name in ("app", "lib", "base", "alone")}
    for tenant in report["tenants"]:
        durations = {n: d["seconds"] for n, d in report["distributions"].items()}
        assert tenant["sequential_seconds"] > 0
        assert tenant["critical_path"][-1] in durations
        assert tenant["critical_path_seconds"] <= tenant["sequential_seconds"] + 1e-9
    assert "✓ every file is as it was installed" in ended.out
    assert all(len(line) <= 80 for line in ended.out.splitlines() if not line.startswith("report:"))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda file: file.write_text("y" * 3_000), "changed"),
        (lambda file: file.write_text("x" * 2_999), "2,999 bytes instead of 3,000"),
        (lambda file: file.unlink(), "missing"),
        (lambda file: (file.unlink(), file.mkdir()), "unreadable: Is a directory"),
    ],
)
def test_a_damaged_file_is_found(verify: Verify, site: Path, damage: Callable[[Path], Any], problem: str) -> None:
    damage(site / "base" / "data, more.txt")
    ended = verify("--environment", str(site))
    assert ended.code == 1
    assert ended.report["problems"] == [{"distribution": "base", "file": "base/data, more.txt", "problem": problem}]
    assert f"✗ base: {problem}: base/data, more.txt" in ended.out
    assert "2 more distributions are built on these" in ended.out
    assert ended.report["distributions"]["app"]["unsafe"] == ["base"]
    assert ended.report["distributions"]["alone"]["unsafe"] == []
    assert all(t["retries"] == 0 for t in ended.report["tenants"])


def test_a_file_that_cannot_be_read_is_tried_again_and_then_reported(verify: Verify, site: Path) -> None:
    looping = site / "lib" / "empty.py"
    looping.unlink()
    looping.symlink_to(looping)
    ended = verify("--environment", str(site), "--distributions", "app")
    assert ended.code == 1
    assert [t["retries"] for t in ended.report["tenants"]] == [3, 3, 3]
    assert [list(t["errors"]) for t in ended.report["tenants"]] == [["lib"]] * 3
    assert "lib could not be checked: OSError: [Errno 40]" in ended.out
    assert list(ended.report["distributions"]) == ["base"]


def test_circles_are_cut_and_reported(verify: Verify, tmp_path: Path) -> None:
    install(tmp_path / "site", "ying", "yang")
    install(tmp_path / "site", "yang", "ying")
    ended = verify("--environment", str(tmp_path / "site"))
    assert ended.code == 0
    assert ended.report["circles_cut"] == [{"distribution": "ying", "requires": "yang"}]
    assert "left out, since it closes a circle: ying requires yang" in ended.out


def test_killed_in_the_middle_the_same_command_goes_on(verify: Verify, site: Path, tmp_path: Path) -> None:
    file = site / "lib" / "data, more.txt"
    content = file.read_text()
    file.unlink()
    os.mkfifo(file)
    arguments = ["--environment", str(site), "--database", str(tmp_path / "verify.db"), "--workers", "2"]
    process = subprocess.Popen(command(*arguments), cwd=tmp_path, stdout=subprocess.DEVNULL)
    with file.open("w"):  # opens once a task reads it
        process.kill()
        process.wait()
    file.unlink()
    file.write_text(content)
    ended = verify(*arguments)
    assert (ended.code, ended.err) == (0, "")
    assert "goes on with run-" in ended.out
    assert max(t["recoveries"] for t in ended.report["tenants"]) == 1
    listed = subprocess.run(
        [sys.executable, "-m", "synergymesh.cli", "runs", "--json", "--database", str(tmp_path / "verify.db")],
        capture_output=True,
        check=True,
    )
    runs = json.loads(listed.stdout)
    assert {run["id"] for run in runs} == {t["run_id"] for t in ended.report["tenants"]}  # none was submitted twice
    assert [run["status"] for run in runs] == ["success"] * 3
    again = verify(*arguments)
    assert (again.code, "goes on" in again.out) == (0, False)


def test_the_real_environment_is_verified(verify: Verify) -> None:
    ended = verify("--distributions", "Typer", "structlog")
    assert ended.code == 0
    assert {"typer", "rich", "pygments", "structlog"} <= set(ended.report["distributions"])
    assert sum(d["checked"] for d in ended.report["distributions"].values()) > 100


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--distributions", "no-such-thing"], "no-such-thing is not installed"),
        (["--environment", "no-such-directory"], "there is no directory no-such-directory"),
        (["--workers", "0"], "max_concurrent_tasks"),
        (["--distributions", "structlog", "--database", "mysql://x"], "database must be"),
    ],
)
def test_wrong_usage_ends_with_2(verify: Verify, arguments: list[str], part: str) -> None:
    ended = verify(*arguments)
    assert (ended.code, part in ended.err, "Traceback" in ended.err) == (2, True, False)


def test_a_file_that_is_no_database_ends_with_3(verify: Verify, tmp_path: Path, site: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database")
    ended = verify("--environment", str(site), "--database", str(tmp_path / "notes.txt"))
    assert (ended.code, ended.err.startswith("error: ")) == (3, True)
