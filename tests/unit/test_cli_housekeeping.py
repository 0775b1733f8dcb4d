"""`synergymesh backup`, `restore`, `prune`, `compact`, and the retention of a tenant, as typed by a user."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from synergymesh.cli.app import main

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Give a function that runs a command in a directory with a database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SYNERGYMESH_DATABASE", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert isinstance(ended.value.code, int)
        return ended.value.code, *capsys.readouterr()

    assert run("tenants", "create", "Acme")[0] == 0
    return run


def test_a_database_is_backed_up_and_restored(cli: Cli) -> None:
    code, out, _ = cli("backup", "copy.db", "--json")
    made = json.loads(out)
    assert (code, Path(made["file"]).name, made["bytes"]) == (0, "copy.db", Path("copy.db").stat().st_size)
    assert cli("tenants", "create", "Later")[0] == 0
    assert cli("restore", "copy.db")[0] == 2
    code, out, _ = cli("restore", "copy.db", "--force")
    assert code == 0
    assert "the database that was there is" in out
    assert [tenant["tenant_name"] for tenant in json.loads(cli("tenants", "list", "--json")[1])] == ["Acme"]
    code, out, _ = cli("restore", "copy.db", "--database", "new.db", "--json")
    assert (code, json.loads(out)) == (0, {"database": "new.db", "kept": None})


def test_what_cannot_be_done_is_said_with_the_remedy(cli: Cli) -> None:
    Path("copy.db").write_text("precious")
    code, _, err = cli("backup", "copy.db")
    assert (code, "--force" in err) == (2, True)
    code, _, err = cli("restore", "copy.db", "--force")
    assert (code, "is not a SQLite database" in err) == (3, True)
    code, _, err = cli("backup", "nowhere/copy.db")
    assert (code, "does not exist" in err) == (3, True)
    for command in (("backup", "b.db"), ("prune",), ("compact",)):
        assert cli(*command, "--database", "missing.db")[0] == 3
    assert not Path("missing.db").exists()


def test_a_database_is_pruned_and_written_anew(cli: Cli) -> None:
    code, out, _ = cli("prune", "--json")
    assert (code, json.loads(out)) == (0, {"runs": 0, "rows": 0, "workflow_versions": 0, "pages": 0})
    assert cli("prune")[1] == "0 runs (0 rows) and 0 workflow versions\n"
    code, out, _ = cli("compact", "--json")
    assert (code, json.loads(out)["bytes_after"]) == (0, Path("synergymesh.db").stat().st_size)


@pytest.mark.parametrize(("days", "kept"), [("90", 90), ("0.5", 0.5), ("0", 0), ("plan", 30)])
def test_a_tenants_retention_is_changed(cli: Cli, days: str, kept: float) -> None:
    code, out, _ = cli("tenants", "change", "Acme", "--retention-days", days, "--json")
    assert (code, json.loads(out)["retention_days"]) == (0, kept)


@pytest.mark.parametrize("days", ["-1", "nan", "inf", "36501", "month", ""])
def test_a_retention_that_makes_no_sense_is_refused(cli: Cli, days: str) -> None:
    code, _, err = cli("tenants", "change", "Acme", f"--retention-days={days}")
    assert (code, "retention" in err) == (2, True)
