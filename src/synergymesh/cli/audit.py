"""`synergymesh audit …`: look at the audit log, verify it, export it, keep it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synergymesh.cli import output
from synergymesh.cli.endings import NOT_SUCCESSFUL, USAGE, Ended
from synergymesh.cli.moments import read_moment
from synergymesh.cli.options import DATABASE_DEFAULT, DatabaseOption, JsonOption
from synergymesh.domain.instants import to_datetime
from synergymesh.errors import InvalidRequest, StoreLocked

if TYPE_CHECKING:
    from synergymesh.audit.auditing import AuditKey
    from synergymesh.audit.entries import AuditEntries, AuditEntry
    from synergymesh.audit.exporting import AuditExport
    from synergymesh.local.verbs import Asking

MESH = "mesh"
"""Stands for the log of the mesh itself where a tenant is named."""

FOLLOW_SECONDS = 1.0
LIMIT_MAX = 1_000

app = typer.Typer(invoke_without_command=True)
keys_app = typer.Typer(invoke_without_command=True)
app.add_typer(keys_app, name="keys")

TenantOption = Annotated[
    str | None,
    typer.Option("--tenant", metavar="NAME", help="Of a tenant: its name or its id; `mesh` for the mesh itself."),
]
TenantArgument = Annotated[
    str, typer.Argument(metavar="TENANT", help="The tenant's name or its id; `mesh` for the mesh itself.")
]
SinceOption = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="From then on: 2026-11-22, 2026-11-22T10:00Z, 30m, 2h, 7d."),
]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before then.")]
ActionOption = Annotated[str | None, typer.Option("--action", metavar="ACTION", help="An action: run.submitted, say.")]
ActorOption = Annotated[str | None, typer.Option("--actor", metavar="ACTOR", help="Of an actor: user/alice, say.")]
EntityOption = Annotated[
    str | None, typer.Option("--entity", metavar="ENTITY", help="What it is about: run/run-…, say.")
]
OutcomeOption = Annotated[str | None, typer.Option("--outcome", metavar="OUTCOME", help="success, failure or denied.")]


@app.callback()
def audit(context: typer.Context) -> None:
    """Look at the audit log, verify it, export it, keep it."""
    if context.invoked_subcommand is None:
        output.write(context.get_help() + "\n")


# --- looking --------------------------------------------------------------------------------------------------------


@app.command("list")
def list_(
    tenant: TenantOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    action: ActionOption = None,
    actor: ActorOption = None,
    entity: EntityOption = None,
    outcome: OutcomeOption = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=LIMIT_MAX, help="How many at most.")] = 50,
    cursor: Annotated[
        int | None, typer.Option("--cursor", metavar="N", min=1, max=2**63 - 1, help="Go on behind a page.")
    ] = None,
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """List entries, newest first. That somebody looked is an entry too."""
    page = _read(database, tenant, cursor, limit, _wanted(since, until, action, actor, entity, outcome))
    if as_json:
        output.say_json({"entries": [_json(entry) for entry in page.entries], "cursor": page.cursor})
        return
    _show(list(page.entries))
    if page.cursor is not None:
        output.note(f"for older ones: --cursor {page.cursor}")
    elif not page.entries:
        output.note("there is no such entry")


@app.command()
def tail(
    tenant: TenantOption = None,
    action: ActionOption = None,
    actor: ActorOption = None,
    outcome: OutcomeOption = None,
    lines: Annotated[int, typer.Option("--lines", "-n", metavar="N", min=1, max=LIMIT_MAX, help="So many.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is added, until Ctrl-C.")] = False,
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Show the newest entries, oldest of them first, and follow what is added."""
    wanted = _wanted(None, None, action, actor, None, outcome)
    try:
        _with_mesh(database, tenant, lambda mesh, tenant_id: _follow(mesh, tenant_id, wanted, lines, follow, as_json))
    except StoreLocked:
        if follow:
            raise
        page = _read(database, tenant, None, lines, wanted)
        _say(list(page.entries), as_json)


async def _follow(
    mesh: Asking, tenant_id: str | None, wanted: dict[str, Any], lines: int, follow: bool, as_json: bool
) -> None:
    """Show what is new, again and again, on one connection: each life of a process on a database is an entry itself."""
    from synergymesh.local.verbs import AUDIT_LOG

    newest: tuple[str, int] | None = None
    limit = lines
    while True:
        page = await mesh.ask(AUDIT_LOG, tenant=tenant_id, cursor=None, limit=limit, **wanted)
        # They come in the order of their recording, newest first: what stands before the last one shown is new.
        places = [(entry.tenant_id, entry.seq) for entry in page.entries]
        fresh = page.entries[: places.index(newest)] if newest in places else page.entries
        _say(list(fresh), as_json)
        if fresh:
            newest = fresh[0].tenant_id, fresh[0].seq
        if not follow:
            return
        limit = LIMIT_MAX
        await asyncio.sleep(FOLLOW_SECONDS)


def _say(entries: list[AuditEntry], as_json: bool) -> None:
    """Print entries that came newest first, oldest first."""
    for entry in reversed(entries):
        if as_json:
            output.write(json.dumps(_json(entry)) + "\n")
        else:
            output.say(_line(entry))


@app.command()
def verify(
    tenant: TenantOption = None,
    since: Annotated[int | None, typer.Option("--since", metavar="N", help="From that checkpoint on.")] = None,
    key: Annotated[
        list[str] | None, typer.Option("--key", metavar="PUB", help="A trusted public key; may be repeated.")
    ] = None,
    checkpoints: Annotated[
        str | None,
        typer.Option("--checkpoints", metavar="PATH", help="Checkpoints kept elsewhere: a file or a directory."),
    ] = None,
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Verify every link of the log against its signed checkpoints.

    Ends with 1 when something is wrong, and with 2 when nothing is, and nothing signed speaks for it either.
    """
    from synergymesh.audit.verify import as_json as report_json
    from synergymesh.audit.verify import as_text
    from synergymesh.domain.audit.verification import Verdict

    report = asyncio.run(_verify(database, tenant, since, key or [], checkpoints))
    output.write(report_json(report) if as_json else as_text(report))
    if not as_json and report.checkpoints and report.unpinned:
        output.note(f"{report.unpinned:,} entries are behind the last checkpoint: only the chain speaks for them")
    if report.verdict is Verdict.UNPROVEN:
        raise Ended(USAGE)
    if report.verdict is Verdict.DAMAGED:
        raise Ended(NOT_SUCCESSFUL)


async def _verify(
    database: str, tenant: str | None, since: int | None, keys: list[str], checkpoints: str | None
) -> Any:
    """Verify on a connection that only reads: no process has to be asked, and nothing is changed."""
    from synergymesh.audit.checkpoint_file import CheckpointFile
    from synergymesh.audit.checkpoints import present_key
    from synergymesh.audit.keys import read_public
    from synergymesh.audit.verify import read_checkpoint_lines
    from synergymesh.audit.verifying import verify_log
    from synergymesh.audit_assembly import audit_places
    from synergymesh.cli.reading import need_database
    from synergymesh.settings import read_settings
    from synergymesh.store.sqlite import SqliteReader

    need_database(database)
    places = audit_places(read_settings(database=database), SqliteReader(database).path)
    assert places.checkpoints is not None
    assert places.key is not None
    file = CheckpointFile(places.checkpoints)
    trusted = [read_public(text) for text in keys]
    if not trusted and (present := present_key(places.key)) is not None:
        trusted = [present]
    if not trusted:
        output.note("there is no key yet, so nothing is signed: only the chains are verified")
    try:
        lines = [line for _, line in file.lines()] if checkpoints is None else read_checkpoint_lines(Path(checkpoints))
    except OSError as error:
        raise InvalidRequest(f"the checkpoints cannot be read: {error}.", field="checkpoints") from None
    if not trusted and checkpoints is None:
        lines = []
    reader = SqliteReader(database)
    await reader.open()
    try:
        tenant_id = None
        if tenant is not None:
            tenant_id = find_log(tenant, {each.tenant_id: each.tenant_name for each in await reader.list_tenants()})
        return await reader.scan_audit(lambda scan: verify_log(scan, trusted, lines, tenant_id=tenant_id, since=since))
    finally:
        await reader.close()


@app.command()
def export(
    path: Annotated[str, typer.Argument(metavar="FILE", help="Where to; a file that is there is replaced.")],
    tenant: TenantOption = None,
    format: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="jsonl (can be verified), csv or cloudevents.")
    ] = "jsonl",
    since: SinceOption = None,
    until: UntilOption = None,
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Write the log into a file, with a signed manifest beside it. That it was exported is an entry too."""
    target = str(Path(path).absolute())
    begin, end = read_moment(since, "since"), read_moment(until, "until")

    async def write(mesh: Asking, tenant_id: str | None) -> AuditExport:
        from synergymesh.local.verbs import EXPORT_AUDIT

        return await mesh.ask(EXPORT_AUDIT, path=target, tenant=tenant_id, format=format, since=begin, until=end)

    done = _with_mesh(database, tenant, write)
    if as_json:
        output.say_json(output.jsonable(done))
        return
    output.say(f"{done.entries:,} entries in {done.path}")
    if done.manifest is None:
        output.note("this format is not for verification; jsonl is")
    else:
        output.say(f"signed with {done.key_id}: {done.manifest}")
        output.note("to verify it: python -m synergymesh.audit.verify FILE --key PUB (synergymesh audit keys export)")


# --- keeping --------------------------------------------------------------------------------------------------------


@app.command()
def prune(
    tenant: TenantOption = None, database: DatabaseOption = DATABASE_DEFAULT, as_json: JsonOption = False
) -> None:
    """Delete entries whose time is over, by whole days, and leave signed tombstones. Happens hourly by itself."""

    async def delete(mesh: Asking, tenant_id: str | None) -> int:
        from synergymesh.local.verbs import PRUNE_AUDIT

        return await mesh.ask(PRUNE_AUDIT, tenant=tenant_id)

    count = _with_mesh(database, tenant, delete)
    if as_json:
        output.say_json({"pruned": count})
    else:
        output.say(f"{count:,} entries pruned")


@app.command()
def hold(
    tenant: Annotated[str | None, typer.Argument(metavar="[TENANT]", help="A name, an id, or `mesh`.")] = None,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why it must be kept.")] = None,
    release: Annotated[bool, typer.Option("--release", help="End the hold.")] = False,
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Forbid to prune the log of a tenant, or allow it again; without a tenant, list the holds."""
    if tenant is None:
        _list_holds(database, as_json)
        return
    if not release and reason is None:
        raise InvalidRequest("give the reason with --reason, or end the hold with --release.", field="reason")

    async def change(mesh: Asking, tenant_id: str | None) -> bool:
        from synergymesh.local.verbs import HOLD_AUDIT, RELEASE_AUDIT

        if release:
            return await mesh.ask(RELEASE_AUDIT, tenant=tenant_id)
        return await mesh.ask(HOLD_AUDIT, tenant=tenant_id, reason=reason)

    changed = _with_mesh(database, tenant, change)
    if as_json:
        output.say_json({"changed": changed})
    elif changed:
        output.say(f"the log of {tenant} {'may be pruned again' if release else 'is not pruned any more'}")
    else:
        output.note(f"the log of {tenant} {'was not held' if release else 'was held already'}")


def _list_holds(database: str, as_json: bool) -> None:
    async def read(mesh: Asking, tenant_id: str | None) -> Any:
        from synergymesh.local.verbs import AUDIT_HOLDS

        return await mesh.ask(AUDIT_HOLDS)

    holds = _with_mesh(database, None, read)
    if as_json:
        output.say_json([output.jsonable(each) for each in holds])
        return
    if not holds:
        output.note("there is no legal hold")
        return
    rows = [(each.tenant_id or MESH, output.moment(to_datetime(each.held_at)), each.reason) for each in holds]
    output.show_table(("TENANT", "SINCE", "REASON"), rows)


@app.command()
def erase(
    subject: Annotated[str, typer.Argument(metavar="ACTOR", help="Whose name, mail and address: user/u-17, say.")],
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Make the personal data of an actor unreadable for ever; the log still verifies."""

    async def forget(mesh: Asking, tenant_id: str | None) -> bool:
        from synergymesh.local.verbs import ERASE_AUDIT

        return await mesh.ask(ERASE_AUDIT, subject=subject)

    is_wiped = _with_mesh(database, None, forget)
    if as_json:
        output.say_json({"erased": subject, "is_wiped": is_wiped})
        return
    output.say(f"the personal data of {subject} is erased; backups from before still have its key")
    if not is_wiped:
        output.note(
            "somebody reads the database (a backup, an export, a verification), so its log has the key until that "
            "ends; it is wiped then by the process that executes, or by the next one that opens the database"
        )


# --- keys -----------------------------------------------------------------------------------------------------------


@keys_app.callback()
def keys(context: typer.Context) -> None:
    """List, export and replace the keys that sign the log."""
    if context.invoked_subcommand is None:
        output.write(context.get_help() + "\n")


@keys_app.command("list")
def list_keys(database: DatabaseOption = DATABASE_DEFAULT, as_json: JsonOption = False) -> None:
    """List the public keys, the one that signs now last."""
    found = _with_mesh(database, None, _read_keys)
    if as_json:
        output.say_json([output.jsonable(each) for each in found])
        return
    if not found:
        output.note("there is no key yet; it is made with the first checkpoint or export")
        return
    rows = [(each.key_id, each.public, "signs" if each.is_present else "replaced") for each in found]
    output.show_table(("ID", "PUBLIC KEY", "STATE"), rows)


@keys_app.command("export")
def export_key(
    path: Annotated[str | None, typer.Argument(metavar="[FILE]", help="Where to, if not to standard output.")] = None,
    database: DatabaseOption = DATABASE_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Write the public key that signs now, as PEM."""
    found = _with_mesh(database, None, _read_keys)
    if not found:
        raise InvalidRequest("there is no key yet; it is made with the first checkpoint or export.", field="key")
    key = found[-1]
    if path is not None:
        try:
            Path(path).write_text(key.pem)
        except OSError as error:
            raise InvalidRequest(f"{path} cannot be written: {error.strerror}.", field="path") from None
    if as_json:
        output.say_json({**output.jsonable(key), "path": path})
    elif path is None:
        output.write(key.pem)
    else:
        output.say(f"{key.key_id} in {path}")


@keys_app.command()
def rotate(database: DatabaseOption = DATABASE_DEFAULT, as_json: JsonOption = False) -> None:
    """Replace the key: the old one vouches for the new one, and is revoked and destroyed."""

    async def replace(mesh: Asking, tenant_id: str | None) -> AuditKey:
        from synergymesh.local.verbs import ROTATE_AUDIT_KEY

        return await mesh.ask(ROTATE_AUDIT_KEY)

    key = _with_mesh(database, None, replace)
    if as_json:
        output.say_json(output.jsonable(key))
    else:
        output.say(f"{key.key_id} signs from now on: {key.public}")


async def _read_keys(mesh: Asking, tenant_id: str | None) -> list[AuditKey]:
    from synergymesh.local.verbs import AUDIT_KEYS

    return await mesh.ask(AUDIT_KEYS)


# --- inside ---------------------------------------------------------------------------------------------------------


def _with_mesh(database: str, tenant: str | None, work: Callable[[Asking, str | None], Awaitable[Any]]) -> Any:
    from synergymesh.cli.administration import administrating
    from synergymesh.local.verbs import LIST_TENANTS

    async def run() -> Any:
        async with administrating(database) as mesh:
            tenant_id = None
            if tenant is not None:
                names = {each.tenant_id: each.tenant_name for each in await mesh.ask(LIST_TENANTS)}
                tenant_id = find_log(tenant, names)
            return await work(mesh, tenant_id)

    return asyncio.run(run())


def _read(database: str, tenant: str | None, cursor: int | None, limit: int, wanted: dict[str, Any]) -> AuditEntries:
    """Read a page through the process that executes, which records that; past it when it does not answer."""

    async def ask(mesh: Asking, tenant_id: str | None) -> AuditEntries:
        from synergymesh.local.verbs import AUDIT_LOG

        async def turn(after: int | None, left: int) -> AuditEntries:
            return await mesh.ask(AUDIT_LOG, tenant=tenant_id, cursor=after, limit=left, **wanted)

        return await _whole_page(turn, cursor, limit)

    try:
        page: AuditEntries = _with_mesh(database, tenant, ask)
    except StoreLocked:
        page = asyncio.run(_read_file(database, tenant, cursor, limit, wanted))
        output.note("the process that executes does not answer, so that this was read is not recorded")
    return page


async def _read_file(
    database: str, tenant: str | None, cursor: int | None, limit: int, wanted: dict[str, Any]
) -> AuditEntries:
    from synergymesh.audit.auditing import search
    from synergymesh.audit.entries import AuditEntries, record_view
    from synergymesh.store.sqlite import SqliteReader

    reader = SqliteReader(database)
    await reader.open()
    try:
        tenant_id = None
        if tenant is not None:
            tenant_id = find_log(tenant, {each.tenant_id: each.tenant_name for each in await reader.list_tenants()})
        filters = search(**wanted)

        async def turn(after: int | None, left: int) -> AuditEntries:
            page = await reader.find_audit_entries(tenant_id, **filters, cursor=after, limit=left)
            return AuditEntries(entries=tuple(map(record_view, page.entries)), cursor=page.cursor)

        return await _whole_page(turn, cursor, limit)
    finally:
        await reader.close()


async def _whole_page(
    turn: Callable[[int | None, int], Awaitable[AuditEntries]], cursor: int | None, limit: int
) -> AuditEntries:
    """Go on until a page is full or nothing is left: a search looks at so many entries in one turn, and finds few."""
    from synergymesh.audit.entries import AuditEntries

    found: list[AuditEntry] = []
    while True:
        page = await turn(cursor, limit - len(found))
        found += page.entries
        cursor = page.cursor
        if cursor is None or len(found) >= limit:
            return AuditEntries(entries=tuple(found), cursor=cursor)


def find_log(tenant: str, names: dict[str, str]) -> str:
    """Give the id of the tenant whose log is meant; one that is gone has only its id."""
    wanted = tenant.strip()
    if wanted == MESH and MESH in names.values():
        raise InvalidRequest(
            f"a tenant is named {MESH!r} too. Give its id, or an empty text for the mesh itself.", field="tenant"
        )
    if wanted in (MESH, ""):
        return ""
    if wanted in names:
        return wanted
    found = [tenant_id for tenant_id, name in names.items() if name == wanted]
    if len(found) > 1:
        raise InvalidRequest(f"{len(found)} tenants are named {wanted!r}. Give the id of one.", field="tenant")
    return found[0] if found else wanted


def _wanted(
    since: str | None,
    until: str | None,
    action: str | None,
    actor: str | None,
    entity: str | None,
    outcome: str | None,
) -> dict[str, Any]:
    return {
        "since": read_moment(since, "since"),
        "until": read_moment(until, "until"),
        "action": action,
        "actor": actor,
        "entity": entity,
        "outcome": outcome,
    }


def _json(entry: AuditEntry) -> dict[str, Any]:
    shown: dict[str, Any] = output.jsonable(entry)
    return shown


def _show(entries: list[AuditEntry]) -> None:
    if not entries:
        return
    rows = [
        (
            f"{entry.seq:,}",
            output.moment(entry.at),
            entry.tenant_id or MESH,
            entry.action,
            entry.entity,
            _actor(entry),
            entry.outcome,
        )
        for entry in entries
    ]
    output.show_table(("SEQ", "AT", "TENANT", "ACTION", "ENTITY", "ACTOR", "OUTCOME"), rows, numbers=("SEQ",))


def _line(entry: AuditEntry) -> str:
    place = f"{entry.tenant_id or MESH} #{entry.seq}"
    return f"{output.moment(entry.at)}  {place}  {entry.action}  {entry.entity}  {_actor(entry)}  {entry.outcome}"


def _actor(entry: AuditEntry) -> str:
    name = (entry.personal or {}).get("name")
    return entry.actor if name is None else f"{entry.actor} ({name})"
