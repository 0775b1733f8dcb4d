"""Put every decision into the navigation of the documentation site, in the order of their numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """Add the decisions, each under its heading."""
    pages = sorted((Path(config["docs_dir"]) / "decisions").glob("*.md"))
    named = [
        {page.read_text(encoding="utf-8").partition("\n")[0].lstrip("# "): f"decisions/{page.name}"} for page in pages
    ]
    config["nav"] = [*config["nav"], {"Decisions": named}]
    return config
