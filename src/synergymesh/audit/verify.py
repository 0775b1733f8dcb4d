"""Verify an export of the audit log, without its database: `python -m synergymesh.audit.verify EXPORT --key PUB`.

Needs the export with its manifest, the public key, and of packages only `cryptography`. Ends with 0 when everything is
as it was signed, with 1 when something is not (the first bad entry and the kind of damage are named), with 2 when it
cannot tell.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from synergymesh.audit.checkpoint_file import CheckpointFile
from synergymesh.audit.export_format import (
    LINE_BYTES_MAX,
    MANIFEST_BYTES_MAX,
    Section,
    SignedManifest,
    manifest_path,
    read_line,
    read_manifest,
)
from synergymesh.audit.keys import read_public, verify_signature
from synergymesh.domain.audit.forms import MANIFEST_TAG, Gap, Head, genesis_hash
from synergymesh.domain.audit.keeping import Keeping
from synergymesh.domain.audit.trust import WHY, SignedLink, Trust, read_record, verify_checkpoints, verify_tombstones
from synergymesh.domain.audit.verification import Damage, Finding, LogReport, Row, Verdict, verify_chain
from synergymesh.errors import AuditKeyError

INTACT, DAMAGED, USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify what the arguments name, say what was found out, give the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m synergymesh.audit.verify",
        description="Verify an export of the audit log. Exit codes: 0 intact, 1 damaged, 2 cannot tell.",
    )
    parser.add_argument("export", metavar="EXPORT", type=Path, help="the export, a file of JSON lines")
    parser.add_argument("--key", required=True, action="append", help="a trusted public key: PEM file or hexadecimal")
    parser.add_argument("--manifest", type=Path, help="the manifest; EXPORT.manifest.json when left out")
    parser.add_argument("--checkpoints", type=Path, action="append", default=[], help="checkpoints that you have kept")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(arguments)
    try:
        keys = [read_public(text) for text in given.key]
        manifest = given.manifest or manifest_path(given.export)
        lines = [line for path in given.checkpoints for line in read_checkpoint_lines(path)]
        report = verify_export(given.export, manifest, keys, lines)
    except (OSError, AuditKeyError, ValueError) as error:
        sys.stderr.write(_clean(f"error: {error}") + "\n")
        return USAGE
    sys.stdout.write(as_json(report) if given.json else as_text(report))
    return INTACT if report.verdict is Verdict.INTACT else DAMAGED


def verify_export(export: Path, manifest: Path, keys: Sequence[bytes], checkpoints: Sequence[bytes] = ()) -> LogReport:
    """Verify an export against its manifest, the keys, and checkpoints that were kept elsewhere.

    Raises:
        OSError: a file cannot be read.
    """
    with manifest.open("rb") as file:
        text = file.read(MANIFEST_BYTES_MAX + 1)
    try:
        if len(text) > MANIFEST_BYTES_MAX:
            raise ValueError(f"it has more than {MANIFEST_BYTES_MAX:,} bytes")
        signed = read_manifest(text)
    except ValueError as error:
        return LogReport(log_id="", findings=[_of_log(Damage.UNREADABLE, f"the manifest is none: {error}")])
    return _Export(signed, Trust(keys, verify_signature), checkpoints).verify(export)


class _Export:
    """One verification of one export."""

    def __init__(self, signed: SignedManifest, trust: Trust, checkpoints: Sequence[bytes]) -> None:
        self.signed = signed
        self.manifest = signed.manifest
        self.trust = trust
        self.report = LogReport(log_id=self.manifest.log_id)
        self.pins: dict[str, dict[int, bytes]] = {}
        self.known: dict[str, int] = {}
        self.unreadable: Finding | None = None
        self.hash = sha256()
        self.bytes = 0
        self._check_signatures(checkpoints)

    def _check_signatures(self, checkpoints: Sequence[bytes]) -> None:
        manifest, trust, findings = self.manifest, self.trust, self.report.findings
        try:
            links = [record for line in self.signed.key_links if isinstance(record := read_record(line), SignedLink)]
        except ValueError as error:
            findings.append(_of_log(Damage.UNREADABLE, f"a link between keys is none: {error}"))
            links = []
        findings += trust.follow(links)
        damage = trust.check(
            MANIFEST_TAG,
            manifest.content(),
            self.signed.signature,
            log_id=manifest.log_id,
            signed_by=manifest.key_id,
            checkpoint=manifest.checkpoint,
        )
        if damage is not None:
            findings.append(_of_log(damage, f"the manifest {WHY[damage]}"))
        if checkpoints:
            number = manifest.checkpoint
            pinned = verify_checkpoints(checkpoints, trust, until=number)
            findings += pinned.findings
            self.pins, self.known = pinned.pins, pinned.known
            self.report.checkpoints = pinned.count
            if pinned.hashes.get(number, manifest.checkpoint_hash) != manifest.checkpoint_hash:
                detail = f"the export was made behind another checkpoint {number:,} than the one that was kept"
                findings.append(_of_log(Damage.FORKED, detail))

    def verify(self, export: Path) -> LogReport:
        """Go through the file."""
        sections = {section.head.tenant_id: section for section in self.manifest.sections}
        found = self.report.findings
        seen: set[str] = set()
        with export.open("rb") as file:
            for tenant_json, lines in groupby(self._rows(file), key=lambda row: row[3]):
                tenant_id = json.loads(tenant_json)
                section = sections.get(tenant_id)
                if tenant_id in seen or section is None:
                    number = next(lines)[0]
                    damage = Damage.REORDERED if section else Damage.FOREIGN
                    what = "stands behind those of another tenant" if section else "is of a tenant that is not listed"
                    found.append(
                        Finding(damage=damage, tenant_id=tenant_id, seq=number, detail=f"entry {number:,} {what}.")
                    )
                    continue
                seen.add(tenant_id)
                self._verify_section(section, lines)
            for _ in iter(lambda: self._read(file, 1 << 20), b""):  # behind an unreadable line
                pass
        if self.unreadable is not None:
            found.append(self.unreadable)
        else:
            for section in self.manifest.sections:
                if section.head.tenant_id not in seen:
                    self._verify_section(section, iter(()))
        self._look_for_absent(sections)
        if not found and (self.hash.hexdigest() != self.manifest.file_sha256 or self.bytes != self.manifest.file_bytes):
            found.append(_of_log(Damage.CHANGED, "the file is not the one that the manifest signed"))
        self.report.is_proven = True  # by the manifest, or something is wrong with it
        return self.report

    def _look_for_absent(self, sections: Mapping[str, Section]) -> None:
        """Compare what the export says that there was with the checkpoints that were signed before it."""
        asked = self.manifest.tenant_id
        for tenant_id, known in sorted(self.known.items()):
            section = sections.get(tenant_id)
            end = 0 if section is None else section.end
            if known <= end or asked not in (None, tenant_id):
                continue
            what = "and what followed is gone" if end else "and all others are gone"
            self.report.findings.append(
                Finding(
                    damage=Damage.TRUNCATED if end else Damage.MISSING,
                    tenant_id=tenant_id,
                    seq=end + 1,
                    detail=f"entry {end + 1:,} {what}; a checkpoint before the export has {known:,}.",
                )
            )

    def _verify_section(self, section: Section, rows: Iterator[Row]) -> None:
        tenant_id, before, head = section.head.tenant_id, section.before, section.head
        stones, findings = verify_tombstones(self.signed.tombstones.get(tenant_id, ()), tenant_id, self.trust)
        self.report.findings += findings
        gaps = [gap for stone in stones for gap in stone.gaps if gap.last > before.seq]
        start = None
        if before.seq:
            start = before
        elif before.hash != genesis_hash(self.manifest.log_id, tenant_id):
            detail = "the chain does not begin in this log."
            self.report.findings.append(Finding(damage=Damage.WRONG_LOG, tenant_id=tenant_id, seq=1, detail=detail))
            return
        known = self.pins.get(tenant_id, {})
        if known.get(before.seq, before.hash) != before.hash:
            detail = f"entry {before.seq:,}, before the export, is not the one that a checkpoint signed."
            self.report.findings.append(
                Finding(damage=Damage.FORKED, tenant_id=tenant_id, seq=before.seq, detail=detail)
            )
        pins = {seq: hash_ for seq, hash_ in known.items() if before.seq < seq <= head.seq}
        if head.seq > before.seq:
            pins = {head.seq: head.hash, **pins}
        signed = _range(gaps, head)
        keeping = Keeping(is_whole=start is None)
        chain = verify_chain(
            self.manifest.log_id,
            tenant_id,
            rows,
            pins=pins,
            gaps=signed,
            start=start,
            disagrees=keeping.see_payload,
        )
        if self.unreadable is not None and chain.finding is not None and chain.finding.seq == chain.head.seq + 1:
            chain = replace(chain, finding=None)  # what follows may be there, behind the line that cannot be read
            self.unreadable = replace(self.unreadable, tenant_id=tenant_id, seq=chain.head.seq + 1)
        self.report.add(chain)
        is_whole = self.manifest.until is None and self.unreadable is None
        if is_whole and start is None and chain.finding is None:
            # The entry about a pruning comes behind everything that went, so only the end of the chain names all.
            contents = [stone.content() for stone in stones]
            self.report.findings += keeping.compare_tombstones(tenant_id, stones, contents)
        if is_whole and chain.finding is None and chain.head.seq < section.end:
            detail = f"entry {head.seq + 1:,} and what followed was gone already; {section.end:,} had been sealed."
            self.report.findings.append(
                Finding(damage=Damage.TRUNCATED, tenant_id=tenant_id, seq=head.seq + 1, detail=detail)
            )
        if chain.finding is None and chain.head.seq > head.seq:
            detail = f"entry {head.seq + 1:,} is behind the last one that the manifest signed."
            self.report.findings.append(
                Finding(damage=Damage.INSERTED, tenant_id=tenant_id, seq=head.seq + 1, detail=detail)
            )

    def _rows(self, file: BinaryIO) -> Iterator[Row]:
        number = 0
        while line := self._read_line(file):
            number += 1
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("it is cut off" if len(line) < LINE_BYTES_MAX else "it is too long")
                tenant, seq, hash_, payload = read_line(line[:-1])
                yield seq, hash_, payload, tenant
            except ValueError as error:
                self.unreadable = _of_log(Damage.UNREADABLE, f"line {number:,} of the export is none: {error}")
                return

    def _read_line(self, file: BinaryIO) -> bytes:
        line = file.readline(LINE_BYTES_MAX)
        self.hash.update(line)
        self.bytes += len(line)
        return line

    def _read(self, file: BinaryIO, size: int) -> bytes:
        block = file.read(size)
        self.hash.update(block)
        self.bytes += len(block)
        return block


def _range(gaps: Sequence[Gap], head: Head) -> list[Gap]:
    """Leave out what was pruned behind the range of an export."""
    return [gap for gap in gaps if gap.first <= head.seq]


def read_checkpoint_lines(path: Path) -> list[bytes]:
    """Give the lines of a file of checkpoints, or of all files of a directory in the order of their names.

    Raises:
        OSError: it cannot be read.
    """
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.suffix == ".json" and not each.name.startswith("."))
        return [line for each in files for line in each.read_bytes().split(b"\n") if line]
    if not path.exists():
        raise OSError(f"there is no file {path}")
    return [line for _, line in CheckpointFile(path).lines()]


def as_json(report: LogReport) -> str:
    """Give a report as JSON in ASCII."""
    verdict = report.verdict
    return json.dumps({"intact": verdict is Verdict.INTACT, "verdict": verdict, **asdict(report)}, indent=2) + "\n"


def as_text(report: LogReport) -> str:
    """Give a report for people: a line for each finding, and one for the whole."""
    lines = []
    for prefix, finding in [("note: ", each) for each in report.notes] + [("", each) for each in report.findings]:
        place = ""
        if finding.tenant_id is not None:
            place = f" {finding.tenant_id or 'mesh'}" + ("" if finding.seq is None else f" #{finding.seq:,}")
        lines.append(_clean(f"{prefix}{finding.damage.value}{place}: {finding.detail}"))
    verdict = "DAMAGED" if report.verdict is Verdict.DAMAGED else report.verdict.value
    pruned = f", {report.pruned:,} pruned" if report.pruned else ""
    checkpoints = f", {report.checkpoints:,} checkpoints" if report.checkpoints else ""
    behind = f", {report.unpinned:,} behind the last checkpoint" if report.checkpoints and report.unpinned else ""
    unproven = "; nothing signed speaks for them" if report.verdict is Verdict.UNPROVEN else ""
    figures = f"{report.entries:,} entries in {report.chains:,} chains{pruned}{checkpoints}{behind}{unproven}"
    lines.append(f"{verdict}: {figures}")
    return "\n".join(lines) + "\n"


def _of_log(damage: Damage, detail: str) -> Finding:
    return Finding(damage=damage, tenant_id=None, seq=None, detail=f"{detail}.")


def _clean(text: str) -> str:
    """Show what is no plain text as codes: an export may come from anywhere."""
    return "".join(c if c.isprintable() and c.isascii() else ascii(c)[1:-1] for c in text)


if __name__ == "__main__":
    sys.exit(main())
