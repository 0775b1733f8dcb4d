"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

DATABASE_DEFAULT = "sqlite:///synergymesh.db"

DatabaseOption = Annotated[
    str,
    typer.Option(
        "--database",
        metavar="URL",
        envvar="SYNERGYMESH_DATABASE",
        help="The database: sqlite:///relative.db, sqlite:////absolute.db or a file name.",
    ),
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

FILE_HELP = "A workflow: FILE.py[:NAME], a WfFormat trace (FILE.json), or module[:NAME]."
