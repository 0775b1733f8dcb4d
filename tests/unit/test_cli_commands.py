"""Every command in one process: what it prints, and its exit code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from synergymesh.cli.app import main

SHOP = """
from synergymesh import RetryPolicy, current_task, task, workflow

@task(retry=RetryPolicy(max_retries=2, initial_delay=0.001))
async def fetch(order_id: int) -> dict:
    if current_task().attempt == 1:
        raise ConnectionError("no\\x1b[31m answer")
    return {"id": order_id}

@task(retry=RetryPolicy(max_retries=0))
def price(order: dict) -> float:
    print("a task prints")
    if order["id"] < 0:
        raise ValueError("a negative order\\x1b]0;x\\x07")
    return order["id"] * 1.5

@workflow
def checkout(order_id: int):
    return price(fetch(order_id))
"""


class Ended(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Cli = Callable[..., Ended]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Give a function that runs a command in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SYNERGYMESH_DATABASE", raising=False)

    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def shop(tmp_path: Path) -> str:
    """Give the name of a workflow file that `import` cannot name."""
    (tmp_path / "the-shop.py").write_text(SHOP)
    return "the-shop.py"


COMMANDS = [
    "run",
    "resume",
    "runs",
    "show",
    "cancel",
    "retry",
    "replay",
    "graph",
    "dead-letters",
    "pause",
    "unpause",
    "tenants",
]
TENANT_COMMANDS = ["list", "show", "create", "suspend", "resume", "delete"]


# --- help and usage -------------------------------------------------------------------------------------------------


def test_no_command_shows_the_help(cli: Cli) -> None:
    shown = cli()
    assert shown.code == 0
    assert "Usage: synergymesh" in shown.out
    assert all(re.search(rf"^  {command} ", shown.out, re.MULTILINE) for command in COMMANDS)
    assert "Exit codes:" in shown.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_with_examples(cli: Cli, command: str) -> None:
    for option in ("--help", "-h"):
        shown = cli(command, option)
        assert shown.code == 0
        assert "Examples:" in shown.out
        assert f"  synergymesh {command}" in shown.out


@pytest.mark.parametrize("command", TENANT_COMMANDS)
def test_every_tenant_command_has_a_help(cli: Cli, command: str) -> None:
    assert cli("tenants", command, "--help").code == 0


def test_the_version_is_shown(cli: Cli) -> None:
    assert re.fullmatch(r"synergymesh \d+\.\d+\.\d+\S*\n", cli("--version").out)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["run"], "Missing argument"),
        (["runs", "--limit", "0"], "--limit"),
        (["runs", "--status", "odd"], "--status"),
        (["tenants", "create", "X", "--tier", "gold"], "tier must be one of"),
        (["graph"], "give a FILE, or --installed"),
        (["graph", "x.py", "--installed"], "give a FILE, or --installed"),
        (["run", "missing.py"], "there is no file"),
        (["run", "no_such_module:x"], "no module 'no_such_module'"),
        (["run", "the-shop.py:chekout"], "Did you mean 'checkout'?"),
        (["run", "the-shop.py", "--input", "{"], "--input is no JSON"),
        (["run", "the-shop.py", "--input", "[" * 100_000], "--input is no JSON"),
        (["run", "the-shop.py", "--input", "[1]"], "--input must be a JSON object"),
        (["run", "the-shop.py", "--input", "@missing.json"], "missing.json"),
        (["run", "the-shop.py"], "needs the input 'order_id'"),
        (["run", "the-shop.py", "--input", '{"order_id": 1, "ordr": 2}'], "has no input 'ordr'"),
        (["run", "the-shop.py", "--input", '{"order_id": 1}', "--tenant", "tenant-x"], "there is no tenant 'tenant-x'"),
        (["run", "the-shop.py", "--input", '{"order_id": 1}', "--priority", "5000"], "priority"),
        (["run", "the-shop.py", "--input", '{"order_id": 1}', "--database", "mysql://x"], "database must be"),
        (["tenants", "create", " "], "tenant_name"),
        (["tenants", "create", "Acme", "--max-cpu-percent", "101"], "max_cpu_percent"),
    ],
)
def test_wrong_usage_and_bad_input_end_with_2_and_one_line(
    cli: Cli, shop: str, arguments: list[str], part: str
) -> None:
    ended = cli(*arguments)
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert part in ended.err
    assert "Traceback" not in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_broken_workflow_file_is_described(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import synergymesh\n1 / 0\n")
    ended = cli("run", "broken.py")
    assert (ended.code, "line 2" in ended.err, "ZeroDivisionError" in ended.err) == (2, True, True)


@pytest.mark.parametrize(
    "arguments",
    [["runs"], ["show", "run-1"], ["cancel", "run-1"], ["resume"], ["tenants", "list"], ["tenants", "suspend", "x"]],
)
def test_a_missing_database_ends_with_3_and_is_not_made(cli: Cli, tmp_path: Path, arguments: list[str]) -> None:
    ended = cli(*arguments)
    assert ended.code == 3
    assert ended.err.startswith("error: there is no database")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_ends_with_3_and_stays_as_it_is(cli: Cli, shop: str, tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("my notes, nothing else")
    for arguments in (["runs"], ["run", shop, "--input", '{"order_id": 1}'], ["tenants", "create", "A"]):
        ended = cli(*arguments, "--database", "notes.db")
        assert (ended.code, ended.err.startswith("error: ")) == (3, True)
    assert (tmp_path / "notes.db").read_text() == "my notes, nothing else"


# --- run ------------------------------------------------------------------------------------------------------------


def test_a_run_is_shown_line_by_line_and_summed_up(cli: Cli, shop: str) -> None:
    ended = cli("run", shop, "--tenant", "Acme", "--tier", "professional", "--input", '{"order_id": 42}')
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d run-\w+ submitted: checkout for Acme, 2 tasks", lines[0])
    assert any("fetch attempt 1 failed" in line and r"no\x1b[31m answer" in line for line in lines)
    assert any(re.search(r" fetch success.*\(attempt 2\)", line) for line in lines)
    assert re.fullmatch(r"run-\w+ success in .*", lines[-3])
    assert lines[-2:] == ["  2 tasks: 2 success; 1 retry", "result: 63.0"]
    assert "\x1b" not in ended.out + ended.err


def test_a_failed_run_ends_with_1_and_says_why(cli: Cli, shop: str) -> None:
    ended = cli("run", shop, "--input", '{"order_id": -1}')
    assert ended.code == 1
    assert ended.out.splitlines()[-1] == r"  price: ValueError: a negative order\x1b]0;x\x07"


def test_json_output_is_one_object_a_line_and_the_run_at_the_end(cli: Cli, shop: str) -> None:
    ended = cli("run", shop, "--input", '{"order_id": 2}', "--json")
    assert ended.code == 0
    first, *events, last = ended.json_lines
    assert (first["type"], first["workflow"], first["tasks"]) == ("followed", "checkout", 2)
    assert {each["type"] for each in events} == {"event"}
    assert [e["attempt"] for e in events if (e["task_id"], e["status"]) == ("fetch", "retrying")] == [1]
    assert [e["status"] for e in events if e["task_id"] is None][-1] == "success"
    assert (last["type"], last["run"]["status"], last["run"]["result"]) == ("run", "success", 3.0)
    assert [task["task_id"] for task in last["run"]["tasks"]] == ["fetch", "price"]
    assert "a task prints" in ended.err


def test_input_is_read_from_a_file(cli: Cli, shop: str, tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text('{"order_id": 4}')
    assert "result: 6.0" in cli("run", shop, "--input", "@order.json").out


def test_the_same_key_gives_the_same_run_and_another_input_a_conflict(cli: Cli, shop: str) -> None:
    first = cli("run", shop, "--input", '{"order_id": 1}', "--key", "k", "--json").json_lines[-1]["run"]["id"]
    again = cli("run", shop, "--input", '{"order_id": 1}', "--key", "k", "--json")
    assert (again.code, again.json_lines[-1]["run"]["id"]) == (0, first)
    other = cli("run", shop, "--input", '{"order_id": 2}', "--key", "k")
    assert (other.code, first in other.err) == (2, True)


def test_a_tenants_plan_limits_weight_and_throttle_are_changed(cli: Cli) -> None:
    cli("tenants", "create", "Acme", "--burst", "3")
    changed = cli("tenants", "change", "Acme", "--tier", "professional", "--max-concurrent-tasks", "7", "--json")
    assert (changed.json["tier"], changed.json["quota"]["max_concurrent_tasks"]) == ("professional", 7)
    assert changed.json["quota"]["max_memory_mb"] == 2_048, "the rest is the new plan's"
    changed = cli("tenants", "change", "Acme", "--weight", "9", "--throttle", "50", "--json")
    assert (changed.json["weight"], changed.json["policy"]["throttle_percent"]) == (9, 50)
    assert cli("tenants", "change", "Acme", "--throttle", "100", "--json").json["policy"]["throttle_percent"] is None
    for option, value in (("--weight", "0"), ("--throttle", "101"), ("--max-memory-mb", "0"), ("--tier", "gold")):
        refused = cli("tenants", "change", "Acme", option, value)
        assert refused.code == 2
        assert refused.err.startswith("error: ")


def test_an_own_tier_of_the_configuration_can_be_used(cli: Cli, shop: str, tmp_path: Path, monkeypatch: Any) -> None:
    config = tmp_path / "own.toml"
    config.write_text("[tiers.gold]\nmax_concurrent_tasks = 3\nweight = 5\n", encoding="utf-8")
    monkeypatch.setenv("SYNERGYMESH_CONFIG", str(config))
    made = cli("tenants", "create", "Acme", "--tier", "gold", "--json").json
    assert (made["tier"], made["weight"], made["quota"]["max_concurrent_tasks"]) == ("gold", 5, 3)
    config.write_text("[tiers.gold]\nweight = -5\n", encoding="utf-8")
    refused = cli("tenants", "list")
    assert refused.code == 2
    assert "tiers.gold.weight" in refused.err


def test_a_sub_tenant_is_made_shown_and_changed(cli: Cli) -> None:
    cli("tenants", "create", "Acme", "--tier", "enterprise")
    made = cli(
        "tenants", "create", "Sales", "--parent", "Acme", "--nominal", "6,400,0.5", "--lending", "5,400,0.5", "--json"
    )
    parent = cli("tenants", "show", "Acme", "--json").json["tenant_id"]
    assert made.json["parent_id"] == parent
    assert made.json["policy"]["share"] == {"nominal": [6, 400, 500], "borrowing": None, "lending": [5, 400, 500]}
    changed = cli("tenants", "change", "Sales", "--nominal", "3,40,1", "--borrowing", "1,2,3").out
    assert re.search(r"^nominal: +3 slots, 40 MiB, 1 CPUs$", changed, re.MULTILINE)
    assert re.search(r"^borrowing: +1 slots, 2 MiB, 3 CPUs$", changed, re.MULTILINE)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--nominal", "3"], "--nominal must be SLOTS,MIB,CPUS"),
        (["--nominal", "3,4,nan"], "--nominal must be SLOTS,MIB,CPUS"),
        (["--nominal", "3,4,inf"], "--nominal must be SLOTS,MIB,CPUS"),
        (["--nominal", "3,4,-1"], "share.nominal.cpu_millis"),
        (["--borrowing", "1,1,1"], "Say --nominal too"),
        (["--nominal", "1,1,1", "--lending", "2,1,1"], "share.lending is a part of share.nominal"),
    ],
)
def test_a_share_that_cannot_be_meant_is_refused(cli: Cli, options: list[str], said: str) -> None:
    cli("tenants", "create", "Acme", "--tier", "enterprise")
    refused = cli("tenants", "create", "Sales", "--parent", "Acme", *options)
    assert (refused.code, said in refused.err) == (2, True)
    assert cli("tenants", "create", "Own", *options).code == 2
    assert cli("tenants", "create", "Own", "--parent", "Nobody").code != 0
    assert [tenant["tenant_name"] for tenant in cli("tenants", "list", "--json").json] == ["Acme"]


def test_an_existing_tenant_keeps_its_tier(cli: Cli, shop: str) -> None:
    cli("tenants", "create", "Acme", "--tier", "enterprise")
    assert cli("run", shop, "--tenant", "Acme", "--input", '{"order_id": 1}').code == 0
    refused = cli("run", shop, "--tenant", "Acme", "--tier", "basic", "--input", '{"order_id": 1}')
    assert (refused.code, refused.err) == (2, "error: the tenant 'Acme' is enterprise, not basic. Leave --tier out.\n")
    assert len(cli("tenants", "list", "--json").json) == 1


def test_the_database_can_be_named_by_the_environment(
    cli: Cli, shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNERGYMESH_DATABASE", "sqlite:///elsewhere.db")
    assert cli("run", shop, "--input", '{"order_id": 1}').code == 0
    assert (tmp_path / "elsewhere.db").exists()


def test_a_run_whose_time_is_over_ends_with_124_and_resume_finishes_it(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import asyncio, pathlib\nfrom synergymesh import task, workflow\n"
        "@task\nasync def first():\n    await asyncio.sleep(0.2)\n    return 1\n"
        "@task\nasync def second(n):\n    pathlib.Path('second').touch()\n    return n + 1\n"
        "@workflow\ndef slow():\n    return second(first())\n"
    )
    ended = cli("run", "slow.py", "--timeout", "0")
    assert ended.code == 124
    assert ended.err.splitlines()[-1] == "synergymesh resume"
    assert not (tmp_path / "second").exists()
    resumed = cli("resume", "--json")
    assert (resumed.code, resumed.json_lines[-1]["run"]["result"]) == (0, 2)
    assert cli("resume").out.endswith("no run is open\n")


def test_resume_names_runs_that_wait_for_their_code(cli: Cli, shop: str, tmp_path: Path) -> None:
    assert cli("run", shop, "--input", '{"order_id": 2}', "--timeout", "0").code == 124
    (tmp_path / shop).rename(tmp_path / "moved.py")
    waiting = cli("resume")
    assert waiting.code == 1
    assert re.search(r"run-\w+ waits: workflow 'checkout' cannot be loaded", waiting.out)
    assert waiting.out.endswith("the-shop.py. Give its file: synergymesh resume FILE\n")
    resumed = cli("resume", "moved.py")
    assert (resumed.code, "result: 3.0" in resumed.out) == (0, True)


# --- looking --------------------------------------------------------------------------------------------------------


def test_runs_are_listed_filtered_and_paged(cli: Cli, shop: str) -> None:
    for order, tenant in ((1, "Acme"), (-1, "Acme"), (3, "Bree")):
        cli("run", shop, "--tenant", tenant, "--input", json.dumps({"order_id": order}))
    every = cli("runs", "--json").json
    assert [run["status"] for run in every] == ["success", "failed", "success"]
    assert [run["input"] for run in cli("runs", "--tenant", "Acme", "--status", "failed", "--json").json] == [
        {"order_id": -1}
    ]
    assert cli("runs", "--workflow", "other").err == "there is no such run\n"
    page = cli("runs", "--limit", "1")
    assert page.err == f"for older ones: --cursor {every[0]['id']}\n"
    assert cli("runs", "--limit", "1", "--cursor", every[0]["id"], "--json").json[0]["id"] == every[1]["id"]
    heading, first, *_ = cli("runs").out.splitlines()
    assert heading.split() == ["RUN", "STATUS", "WORKFLOW", "TENANT", "SUBMITTED", "TOOK"]
    assert first.split()[:4] == [every[0]["id"], "success", "checkout", "Bree"]
    unknown = cli("runs", "--tenant", "Nobody")
    assert (unknown.code, "there is no tenant 'Nobody'" in unknown.err) == (2, True)


def test_a_run_is_shown_with_its_tasks_attempts_and_errors(cli: Cli, shop: str) -> None:
    cli("run", shop, "--input", '{"order_id": -1}')
    shown = cli("show", "last")
    assert shown.code == 0
    assert "\x1b" not in shown.out
    lines = shown.out.splitlines()
    assert re.search(r"^status: +failed$", shown.out, re.MULTILINE)
    assert any(re.match(r"fetch +success +2 ", line) for line in lines)
    assert any(re.match(r"price +failed +1 .*ValueError: a negative order", line) for line in lines)
    assert any(re.match(r"fetch +1 +failed +.*ConnectionError", line) for line in lines)
    assert any(line.startswith("price failed for good (its retries are used up)") for line in lines)
    run = cli("show", "last", "--json").json
    assert cli("show", run["id"], "--json").json == run
    assert run["tasks"][0]["failures"][0]["error"]["message"] == "no\x1b[31m answer"


def test_an_unknown_run_ends_with_2(cli: Cli, shop: str) -> None:
    cli("tenants", "create", "Acme")
    for arguments in (["show", "run-1"], ["show", "last"], ["cancel", "run-1"]):
        ended = cli(*arguments)
        assert (ended.code, "there is no run" in ended.err) == (2, True)


def test_an_open_run_is_cancelled_without_executing_anything(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "marks.py").write_text(
        "import pathlib\nfrom synergymesh import RetryPolicy, task, workflow\n"
        "@task\nasync def first():\n    pathlib.Path('first').touch()\n"
        "@task(retry=RetryPolicy(max_retries=1, initial_delay=60))\nasync def second(n):\n"
        "    with pathlib.Path('second').open('a') as file:\n        file.write('x')\n    raise OSError\n"
        "@workflow\ndef marks():\n    return second(first())\n"
    )
    assert cli("run", "marks.py", "--timeout", "0.3").code == 124
    ran = {path.name: path.read_text() for path in tmp_path.glob("[fs]*") if path.suffix == ""}
    run_id = cli("runs", "--json").json[0]["id"]
    assert cli("cancel", run_id).out == f"{run_id} is cancelled\n"
    assert cli("show", run_id, "--json").json["status"] == "cancelled"
    assert cli("cancel", run_id).out == f"{run_id} was over already\n"
    assert {path.name: path.read_text() for path in tmp_path.glob("[fs]*") if path.suffix == ""} == ran


# --- tenants --------------------------------------------------------------------------------------------------------


def test_a_tenant_lives_and_is_deleted(cli: Cli, shop: str) -> None:
    made = cli("tenants", "create", "Acme", "--tier", "professional", "--max-concurrent-tasks", "7", "--json").json
    assert (made["tenant_name"], made["tier"], made["status"]) == ("Acme", "professional", "active")
    assert (made["quota"]["max_concurrent_tasks"], made["quota"]["max_memory_mb"]) == (7, 2_048)
    assert "advanced_retry" in made["features_enabled"]
    assert cli("tenants", "create", "Acme").code == 2
    keyed = cli("tenants", "create", "Keyed", "--key", "signup-1", "--json").json
    assert cli("tenants", "create", "Keyed", "--key", "signup-1", "--json").json == keyed
    refused = cli("tenants", "create", "Keyed", "--tier", "enterprise", "--key", "signup-1")
    assert refused.code == 2
    assert keyed["tenant_id"] in refused.err
    cli("tenants", "delete", "Keyed")
    shown = cli("tenants", "show", "Acme").out
    assert made["tenant_id"] in shown
    assert re.search(r"^max_concurrent_tasks: +7$", shown, re.MULTILINE)
    assert cli("tenants", "suspend", "Acme", "--json").json["status"] == "suspended"
    refused = cli("run", shop, "--tenant", "Acme", "--input", '{"order_id": 1}')
    assert (refused.code, "is suspended" in refused.err) == (2, True)
    assert cli("tenants", "resume", made["tenant_id"], "--json").json["status"] == "active"
    assert made["tenant_id"] in cli("tenants", "list").out
    assert cli("tenants", "delete", "Acme").out == "Acme is deleted\n"
    assert cli("tenants", "list").err == "there is no tenant\n"


def test_a_tenant_with_open_runs_is_deleted_only_by_force(cli: Cli, shop: str) -> None:
    assert cli("run", shop, "--tenant", "Acme", "--input", '{"order_id": 1}', "--timeout", "0").code == 124
    refused = cli("tenants", "delete", "Acme")
    assert (refused.code, "1 open runs" in refused.err) == (2, True)
    assert cli("tenants", "delete", "Acme", "--force").code == 0
    assert cli("runs", "--json").json == []


def test_runs_of_a_suspended_tenant_are_not_waited_for(cli: Cli, shop: str) -> None:
    assert cli("run", shop, "--tenant", "Acme", "--input", '{"order_id": 1}', "--timeout", "0").code == 124
    cli("tenants", "suspend", "Acme")
    ended = cli("resume")
    assert (ended.code, "its tenant Acme is suspended" in ended.out) == (1, True)


# --- graph ----------------------------------------------------------------------------------------------------------


def test_a_graph_is_shown_as_tables(cli: Cli, shop: str) -> None:
    shown = cli("graph", shop)
    assert shown.code == 0
    assert shown.out.startswith("workflow checkout\n2 components, 1 dependencies")
    assert re.search(r"critical path, 2.00 s in 2 components:\n +1.00 s  fetch\n +1.00 s  price\n", shown.out)
    assert "recommendations:" in shown.out


@pytest.mark.parametrize(
    ("name", "start"), [("dot", "digraph"), ("mermaid", "flowchart"), ("svg", "<svg"), ("json", "{")]
)
def test_a_graph_is_written_in_every_format(cli: Cli, shop: str, tmp_path: Path, name: str, start: str) -> None:
    printed = cli("graph", shop, "--format", name).out
    assert start in printed[:200]
    written = cli("graph", shop, "--format", name, "--output", "graph.out")
    assert (written.code, written.out, (tmp_path / "graph.out").read_text()) == (0, "", printed)


def test_the_json_of_a_graph_has_everything_and_can_be_read_back(cli: Cli, shop: str) -> None:
    from synergymesh.resolver import DependencyResolver

    shown = cli("graph", shop, "--format", "json", "--workers", "3", "--workers", "5").json
    assert shown["critical_path"] == ["fetch", "price"]
    assert [phase["components"] for phase in shown["phases"]] == [["fetch"], ["price"]]
    assert [row["workers"] for row in shown["parallelization"]["schedules"]] == [3, 5]
    assert DependencyResolver.from_json(shown).get_critical_path() == ["fetch", "price"]


def test_the_installed_distributions_are_analysed(cli: Cli) -> None:
    shown = cli("graph", "--installed", "--format", "json").json
    names = {node["id"] for node in shown["nodes"]}
    assert {"synergymesh", "rich", "sqlalchemy"} <= names
    assert {("synergymesh", "rich"), ("rich", "pygments")} <= {(e["from"], e["to"]) for e in shown["edges"]}


def test_a_file_that_cannot_be_written_ends_with_2(cli: Cli, shop: str) -> None:
    ended = cli("graph", shop, "--output", "missing/graph.txt")
    assert (ended.code, "cannot be written" in ended.err) == (2, True)
