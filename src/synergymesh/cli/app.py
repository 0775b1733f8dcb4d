"""The commands put together, and what every command has in common: errors, exit codes, the end of a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from synergymesh.cli import audit, breakers, dead_letters, doctor, output, pauses, tenants
from synergymesh.cli.endings import (
    INTERNAL,
    INTERRUPTED,
    PIPE_CLOSED,
    SUCCESS,
    USAGE,
    Ended,
    PipeClosed,
    code_of,
    leave,
)
from synergymesh.cli.graph import graph
from synergymesh.cli.housekeeping import backup, compact, prune, restore
from synergymesh.cli.monitoring import health, metrics, sla
from synergymesh.cli.printed import logs
from synergymesh.cli.queue import queue, top
from synergymesh.cli.reruns import replay, retry
from synergymesh.cli.run import resume, run
from synergymesh.cli.runs import cancel, runs, show
from synergymesh.cli.timeline import timeline
from synergymesh.cli.what_if import what_if
from synergymesh.cli.why import why
from synergymesh.errors import SynergyMeshError

PROGRAM = "synergymesh"

EXIT_CODES = """\
\b
Exit codes:
  0    done; a run ended as success or partial
  1    a run failed or was cancelled, or waits for something
  2    wrong usage, bad input, nothing of that name, or not possible now
  3    the database cannot be used
  70   a fault of SynergyMesh itself
  124  the time of --timeout is over; the run can be continued
  130  Ctrl-C; the run can be continued (143 after SIGTERM)
  141  nobody reads the output any more"""

app = typer.Typer(
    name=PROGRAM,
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        output.say(f"{PROGRAM} {version('synergymesh')}")
        raise typer.Exit


@app.callback()
def synergymesh(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Run durable workflows for many tenants: in dependency order, with retries, within quotas."""
    if context.invoked_subcommand is None:
        output.write(context.get_help() + "\n")


def _add(group: typer.Typer, command: Callable[..., None], *examples: str) -> None:
    group.command(
        command.__name__.replace("_", "-"), epilog="\b\nExamples:\n" + "\n".join(f"  {example}" for example in examples)
    )(command)


_add(
    app,
    run,
    "synergymesh run checkout.py --tenant Acme --input '{\"order_id\": 42}'",
    "synergymesh run flows.py:checkout --tenant Acme --tier professional --key order-42",
    "synergymesh run trace.json --speed 100 --json",
)
_add(app, resume, "synergymesh resume", "synergymesh resume checkout.py --database sqlite:///mesh.db")
_add(
    app,
    runs,
    "synergymesh runs --tenant Acme --status failed",
    "synergymesh runs --limit 100 --json",
)
_add(app, show, "synergymesh show last", "synergymesh show run-18c3a5f0e1b2c3d4aabbccdd --json")
_add(app, why, "synergymesh why last", "synergymesh why run-18c3a5f0e1b2c3d4aabbccdd --json")
_add(app, queue, "synergymesh queue", "synergymesh queue --limit 1000 --json")
_add(app, top, "synergymesh top", "synergymesh top --limit 20 --database sqlite:///mesh.db")
_add(
    app,
    what_if,
    "synergymesh what-if --tenant Acme --tier professional",
    "synergymesh what-if --tenant Acme --max-concurrent-tasks 50 --last 7d --json",
    "synergymesh what-if --slots 512 --workload next-year.json",
)
_add(app, cancel, "synergymesh cancel run-18c3a5f0e1b2c3d4aabbccdd")
_add(app, logs, "synergymesh logs last", "synergymesh logs run-18c3a5f0e1b2c3d4aabbccdd charge --json")
_add(app, health, "synergymesh health", "synergymesh health Acme --json")
_add(app, sla, "synergymesh sla Acme")
_add(app, metrics, "synergymesh metrics", "synergymesh metrics --database sqlite:///mesh.db > mesh.prom")
_add(
    app, retry, "synergymesh retry run-18c3a5f0e1b2c3d4aabbccdd", "synergymesh retry run-18c3a5f0e1b2c3d4aabbccdd --all"
)
_add(
    app,
    replay,
    "synergymesh replay run-18c3a5f0e1b2c3d4aabbccdd",
    "synergymesh replay run-18c3a5f0e1b2c3d4aabbccdd --input '{\"order_id\": 43}'",
)
_add(
    app,
    timeline,
    "synergymesh timeline last",
    "synergymesh timeline run-18c3a5f0e1b2c3d4aabbccdd --output run.svg",
    "synergymesh timeline last --output run.html",
)
_add(
    app,
    graph,
    "synergymesh graph checkout.py",
    "synergymesh graph trace.json --format svg --output trace.svg",
    "synergymesh graph --installed --workers 4",
)
_add(
    app,
    backup,
    "synergymesh backup mesh-monday.db",
    "synergymesh backup latest.db --force --database sqlite:///mesh.db",
)
_add(app, restore, "synergymesh restore mesh-monday.db --force")
_add(app, prune, "synergymesh prune")
_add(app, compact, "synergymesh compact")
app.add_typer(
    breakers.app,
    name="breakers",
    epilog="\b\nExamples:\n"
    "  synergymesh breakers --tenant Acme\n"
    "  synergymesh breakers --json\n"
    "  synergymesh breakers reset Acme payments-api\n"
    "  synergymesh breakers reset Acme --workflow checkout --component pay",
)
app.add_typer(
    doctor.app,
    name="doctor",
    epilog="\b\nExamples:\n"
    "  synergymesh doctor --database sqlite:///mesh.db\n"
    "  synergymesh doctor graph checkout.py\n"
    "  synergymesh doctor performance last\n"
    "  synergymesh doctor tenants",
)
app.add_typer(
    tenants.app,
    name="tenants",
    epilog="\b\nExamples:\n"
    "  synergymesh tenants create Acme --tier professional --max-concurrent-tasks 50\n"
    "  synergymesh tenants list\n"
    "  synergymesh tenants suspend Acme",
)
app.add_typer(
    pauses.pause,
    name="pause",
    epilog="\b\nExamples:\n"
    "  synergymesh pause run run-18c3a5f0e1b2c3d4aabbccdd\n"
    "  synergymesh pause workflow checkout --tenant Acme\n"
    "  synergymesh pause list",
)
app.add_typer(
    pauses.unpause,
    name="unpause",
    epilog="\b\nExamples:\n"
    "  synergymesh unpause run run-18c3a5f0e1b2c3d4aabbccdd\n"
    "  synergymesh unpause workflow checkout",
)
app.add_typer(
    dead_letters.app,
    name="dead-letters",
    epilog="\b\nExamples:\n"
    "  synergymesh dead-letters list --tenant Acme --error ConnectionError\n"
    "  synergymesh dead-letters show run-18c3a5f0e1b2c3d4aabbccdd:charge\n"
    "  synergymesh dead-letters redrive --workflow checkout --since 2026-11-20\n"
    "  synergymesh dead-letters discard run-18c3a5f0e1b2c3d4aabbccdd:charge --reason 'paid by hand'",
)

app.add_typer(
    audit.app,
    name="audit",
    epilog="\b\nExamples:\n"
    "  synergymesh audit tail --follow\n"
    "  synergymesh audit list --tenant Acme --action run.submitted --since 7d\n"
    "  synergymesh audit verify --checkpoints /mnt/elsewhere/checkpoints --key audit.pub\n"
    "  synergymesh audit export acme.jsonl --tenant Acme\n"
    "  synergymesh audit hold Acme --reason 'case 7'",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit code."""
    leave(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        code: Any = app(args=arguments, prog_name=PROGRAM, standalone_mode=False)
        return code if isinstance(code, int) else SUCCESS
    except Ended as ended:
        return ended.code
    except PipeClosed:
        return PIPE_CLOSED
    except SynergyMeshError as error:
        return _complain(error, code_of(error))
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except typer.Abort:
        return INTERRUPTED
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else INTERNAL
    except Exception as error:
        return _not_ours(error)


def _not_ours(error: Exception) -> int:
    """Say what was wrong with the usage; show everything of an error that should not have happened."""
    format_message = getattr(error, "format_message", None)
    if format_message is not None:
        message = format_message()
        if message:
            context = getattr(error, "ctx", None)
            hint = "" if context is None else f" `{context.command_path} --help` shows how."
            return _complain(f"{message.rstrip('.')}.{hint}", USAGE)
        return USAGE  # the help was shown instead
    import traceback

    output.write("\n".join(output.clean_lines("".join(traceback.format_exception(error)))) + "\n", sys.stderr)
    return _complain("this is a fault of SynergyMesh itself; please report what is above", INTERNAL)


def _complain(message: object, code: int) -> int:
    try:
        output.complain(message)
    except PipeClosed:
        return PIPE_CLOSED
    return code
