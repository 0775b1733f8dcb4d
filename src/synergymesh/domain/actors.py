"""Who does something: the user, service or part of the system on whose account a change is recorded."""

from __future__ import annotations

import msgspec

from synergymesh.errors import InvalidRequest

ACTOR_TEXT_MAX = 200
"""Characters of each text of an actor: each goes into every entry that the actor causes."""

PERSONAL_TEXT_MAX = 10_000
"""Characters of encrypted personal data: three texts of 500 characters, in base64."""

ACTOR_TYPES = ("user", "service", "key", "system")
"""A person, a program of somebody's, an API key, a part of SynergyMesh itself."""


class Actor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Say who does something, on whose behalf, from where, and with which request.

    Attributes:
        type: user, service, key or system.
        id: a stable id; an opaque one rather than a name or a mail address, as the audit log keeps it.
        on_behalf_of: whom the actor acts for, as `type/id`, say.
        source: where it comes from: `cli`, `http`, the name of a program.
        request_id: of the request that it belongs to.
        personal: name, mail and address, encrypted; what `Orchestrator.with_personal_data` gives.

    Raises:
        InvalidRequest: one of them cannot be recorded.
    """

    type: str
    id: str
    on_behalf_of: str | None = None
    source: str | None = None
    request_id: str | None = None
    personal: str | None = None

    def __post_init__(self) -> None:
        if self.type not in ACTOR_TYPES:
            raise InvalidRequest(f"type must be one of {', '.join(ACTOR_TYPES)}, not {self.type!r:.100}.", field="type")
        for name in ("id", "on_behalf_of", "source", "request_id"):
            value = getattr(self, name)
            if value is None and name != "id":
                continue
            if not isinstance(value, str) or not 1 <= len(value) <= ACTOR_TEXT_MAX or not value.isprintable():
                raise InvalidRequest(
                    f"{name} must be a printable text of 1 to {ACTOR_TEXT_MAX} characters, not {value!r:.100}.",
                    field=name,
                )
        if self.personal is not None and not _is_sealed(self.personal):
            raise InvalidRequest("personal must be what `with_personal_data` gave.", field="personal")

    def __str__(self) -> str:
        return f"{self.type}/{self.id}"


def _is_sealed(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= PERSONAL_TEXT_MAX and value.isascii() and value.isprintable()


ENGINE = Actor(type="system", id="engine")
"""What moves by itself: tasks that end and are tried again, runs that finish. The run's submission names its user."""
