"""Settings and limits: each number with its reason."""

from __future__ import annotations

COMPONENTS_MAX = 100_000
"""Components of one workflow: a definition of that size still plans in about a second."""

DEPENDENCIES_MAX = 1_000_000
"""Dependencies of one workflow."""

PAYLOAD_BYTES_MAX = 1_000_000
"""Bytes of JSON of one input or result: a batch of a thousand of them still fits into memory."""

PAYLOAD_DEPTH_MAX = 100
"""Nested lists and objects in a payload: JSON parsers of other languages and databases fail far beyond it."""

IDENTIFIER_MAX = 200
"""Characters of a component id, a task's or workflow's name, an idempotency key: shown in tables, and indexed."""
