"""Settings of an orchestrator: from `synergymesh.toml`, from `SYNERGYMESH_…` variables, or given by the program.

What the program gives comes first, then the environment, then the file, then the defaults.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from synergymesh import machine
from synergymesh.config import PAYLOAD_BYTES_MAX
from synergymesh.domain.audit.retention import AUDIT_DAYS_MAX
from synergymesh.domain.quota import QUOTA_FIELD_MAX, ResourceQuota
from synergymesh.domain.scheduling.limits import Capacity, Request
from synergymesh.domain.tenants import FEATURES, RETENTION_DAYS_MAX, TIER_PLANS, WEIGHT_MAX, TenantTier, TierPlan
from synergymesh.errors import InvalidRequest

FILE = "synergymesh.toml"
FILE_VARIABLE = "SYNERGYMESH_CONFIG"

CONCURRENT_TASKS_DEFAULT = 256
"""Tasks at the same time over all tenants: two enterprise tenants at their limit, and threads that a machine bears."""

WAITING_RUNS_DEFAULT = 1_000
"""Runs of a tenant's backlog that are in memory: 2 MB, and half of them start while the next page is read."""

TIER_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")


def _no_truth_value(value: object) -> object:
    """Refuse true and false, which Python takes for numbers."""
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


Count = Annotated[int, BeforeValidator(_no_truth_value), Field(ge=1, le=QUOTA_FIELD_MAX)]


class TierSettings(BaseModel):
    """Define a tier, or change one; what is not said is as in the tier of that name, or as in basic.

    Attributes:
        max_concurrent_tasks: tasks of a tenant that run at the same time.
        max_memory_mb: sum of the memory that its running tasks declare, in MiB.
        max_cpu_percent: of all CPUs, 1 to 100.
        max_tasks_per_hour: starts in any rolling hour.
        rate_limit_per_second: submissions per second.
        burst: submissions that may come at once; as many as the rate gives in a second if it is not said.
        max_queued_tasks: tasks that wait.
        weight: in the fair queue.
        sla_uptime_percent: executions that are promised to succeed.
        features: names of what its tenants may do.
        retention_days: how long a finished run is kept; 0 lets it go as soon as it has ended.
        audit_days: how long entries of the audit log are kept.
        audit_sensitive_days: how long those about power and access are kept; at least as long as the others.
    """

    model_config = ConfigDict(extra="forbid")

    max_concurrent_tasks: Count | None = None
    max_memory_mb: Count | None = None
    max_cpu_percent: Annotated[int, Field(ge=1, le=100)] | None = None
    max_tasks_per_hour: Count | None = None
    rate_limit_per_second: Count | None = None
    burst: Count | None = None
    max_queued_tasks: Count | None = None
    weight: Annotated[int, Field(ge=1, le=WEIGHT_MAX)] | None = None
    sla_uptime_percent: Annotated[float, Field(gt=0, le=100)] | None = None
    features: frozenset[str] | None = None
    retention_days: Annotated[float, Field(ge=0, le=RETENTION_DAYS_MAX)] | None = None
    audit_days: Annotated[int, Field(ge=1, le=AUDIT_DAYS_MAX)] | None = None
    audit_sensitive_days: Annotated[int, Field(ge=1, le=AUDIT_DAYS_MAX)] | None = None

    @field_validator("features")
    @classmethod
    def _need_known_features(cls, wanted: frozenset[str] | None) -> frozenset[str] | None:
        """Refuse a feature that nothing asks for: it is a mistyped one."""
        unknown = sorted((wanted or frozenset()) - FEATURES)
        if unknown:
            raise PydanticCustomError(
                "unknown_feature",
                "there is no feature {unknown}; features are {known}",
                {"unknown": repr(unknown[0]), "known": ", ".join(sorted(FEATURES))},
            )
        return wanted

    def plan(self, name: str) -> TierPlan:
        """Give the tier's plan."""
        plans = {tier.value: plan for tier, plan in TIER_PLANS.items()}
        default = plans.get(name, TIER_PLANS[TenantTier.BASIC])
        said = self.model_dump(exclude_none=True)
        fields = ResourceQuota.__dataclass_fields__
        return TierPlan(
            quota=ResourceQuota(**{f: said.get(f, getattr(default.quota, f)) for f in fields}),
            weight=said.get("weight", default.weight),
            sla_uptime_percent=said.get("sla_uptime_percent", default.sla_uptime_percent),
            features=said.get("features", default.features),
            retention_days=said.get("retention_days", default.retention_days),
            audit_days=said.get("audit_days", default.audit_days),
            audit_sensitive_days=said.get("audit_sensitive_days", default.audit_sensitive_days),
        )


class Settings(BaseSettings):
    """Hold what an orchestrator can be told.

    Attributes:
        database: `sqlite:///file.db` or `:memory:`.
        synchronous: "full" survives power loss, "normal" a crash of the process only.
        max_concurrent_tasks: slots, over all tenants.
        memory_mb: MiB that all tasks share; None for what the machine has.
        cpus: CPUs that all tasks share; None for those that this process may use.
        task_memory_mb: what a task takes that declares nothing.
        task_cpus: what a task takes that declares nothing.
        max_queued_tasks: tasks that wait, over all tenants.
        waiting_runs_in_memory: of each tenant, at most twice as many; the rest is read when their turn comes.
        payload_bytes_max: bytes of JSON of an input or a result.
        shutdown_grace_seconds: how long a shutdown waits for running tasks.
        stop_grace_seconds: how long a stopped task may take to end.
        breakers: "named" for circuit breakers of tasks that name one, and where a tenant's policy says so; "all" for
            every component.
        watchdog_seconds: an event loop that is blocked for so long is reported; 0 for no watchdog.
        capture_output: whether what tasks print and log is kept with their attempts.
        traces: whether runs, tasks and attempts leave spans by OpenTelemetry; needs the extra `otel`.
        metrics_tenants_max: tenants with labels of their own in the metrics; the others are summed up.
        alert_sinks: where alerts go: `log`, `command:PROGRAM ARGUMENTS`, `webhook:URL`.
        alert_webhook_secret: signs what webhooks are sent.
        alert_webhook_allow_private: whether webhooks may be of addresses that are not of the public internet.
        local_socket: whether other processes of the same user may ask the one that executes.
        adjust_interpreter: whether Python switches threads sooner and looks for cycles later while an orchestrator is
            open: a third more throughput.
        audit_key_file: of the key that signs the audit log; beside the database when None.
        audit_checkpoint_file: where its checkpoints go; beside the database when None.
        audit_checkpoint_seconds: how long after the last checkpoint the next one is written at the latest.
        audit_checkpoint_units: how many committed changes a checkpoint is waited for at most.
        audit_sinks: where checkpoints go beside their file: `directory:PATH`, `command:PROGRAM ARGUMENTS`.
        tiers: own tiers, and changes to the known ones, by name.
    """

    model_config = SettingsConfigDict(
        env_prefix="SYNERGYMESH_", env_nested_delimiter="__", extra="forbid", validate_default=True
    )

    database: str = "sqlite:///synergymesh.db"
    synchronous: Literal["full", "normal"] = "full"
    max_concurrent_tasks: Count = CONCURRENT_TASKS_DEFAULT
    memory_mb: Count | None = None
    cpus: Annotated[float, Field(ge=0.001, le=100_000)] | None = None
    task_memory_mb: Annotated[int, Field(ge=0, le=QUOTA_FIELD_MAX)] = 0
    task_cpus: Annotated[float, Field(ge=0, le=100_000)] = 0.0
    max_queued_tasks: Count = 10_000_000
    waiting_runs_in_memory: Count = WAITING_RUNS_DEFAULT
    payload_bytes_max: Count = PAYLOAD_BYTES_MAX
    shutdown_grace_seconds: Annotated[float, Field(ge=0)] = 10.0
    stop_grace_seconds: Annotated[float, Field(ge=0)] = 5.0
    breakers: Literal["named", "all"] = "named"
    watchdog_seconds: Annotated[float, Field(ge=0, le=3_600)] = 1.0
    capture_output: bool = True
    traces: bool = False
    metrics_tenants_max: Count = 100
    alert_sinks: list[str] = ["log"]
    alert_webhook_secret: SecretStr | None = None
    alert_webhook_allow_private: bool = False
    local_socket: bool = True
    adjust_interpreter: bool = True
    audit_key_file: str | None = None
    audit_checkpoint_file: str | None = None
    audit_checkpoint_seconds: Annotated[float, Field(ge=1, le=86_400)] = 60.0
    audit_checkpoint_units: Count = 100_000
    audit_sinks: list[str] = []
    tiers: dict[str, TierSettings] = {}

    @field_validator("tiers")
    @classmethod
    def _name_tiers_in_small_letters(cls, tiers: dict[str, TierSettings]) -> dict[str, TierSettings]:
        """Read the names of tiers in any case, as everywhere else."""
        named = {name.lower(): tier for name, tier in tiers.items()}
        for name in named:
            if not TIER_NAME.fullmatch(name):
                raise PydanticCustomError(
                    "tier_name",
                    "the name of a tier has letters, digits, - and _ and begins with a letter, at most 64; not {name}",
                    {"name": repr(name[:80])},
                )
        if len(named) < len(tiers):
            raise PydanticCustomError("tier_name", "two tiers have the same name but for capital letters")
        return named

    @field_validator("traces")
    @classmethod
    def _need_opentelemetry(cls, wanted: bool) -> bool:
        """Refuse traces where nothing can make them."""
        if wanted:
            try:
                import synergymesh.telemetry.traces  # noqa: F401 - only when it is wanted: it needs an extra
            except ModuleNotFoundError as missing:
                raise PydanticCustomError(
                    "otel_missing",
                    "traces need {module}, which comes with the extra otel: pip install 'synergymesh[otel]'",
                    {"module": missing.name},
                ) from None
        return wanted

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the program's own values, then the environment, then the file."""
        path = Path(os.environ.get(FILE_VARIABLE, FILE))
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=path)

    def capacity(self) -> Capacity:
        """Give what all tasks share: as said, or as the machine has it."""
        memory_mb = self.memory_mb or machine.memory_mb()
        return Capacity(self.max_concurrent_tasks, memory_mb, int((self.cpus or machine.cpus()) * 1_000))

    def task_request(self) -> Request:
        """Give what a task takes that declares nothing."""
        return Request(self.task_memory_mb, int(self.task_cpus * 1_000))

    def tier_plans(self) -> dict[str, TierPlan]:
        """Give the plan of every tier by name."""
        plans: dict[str, TierPlan] = {tier.value: plan for tier, plan in TIER_PLANS.items()}
        plans.update({name: changes.plan(name) for name, changes in self.tiers.items()})
        return plans


def read_settings(**given: Any) -> Settings:
    """Read the settings; what is given comes before the environment and the file.

    Raises:
        InvalidRequest: a value cannot be accepted; the message names the field and where it comes from.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(
            f"setting {field}: {first['msg']}, not {first.get('input')!r:.100}. It comes from the program, from the "
            f"variable SYNERGYMESH_{field.upper().replace('.', '__')} or from {FILE}.",
            field=field,
        ) from None
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{os.environ.get(FILE_VARIABLE, FILE)} cannot be read: {error}.", field=FILE) from None


def change_settings(settings: Settings | None, given: dict[str, Any]) -> Settings:
    """Give these settings, or those that are read, with what is given in their place."""
    if settings is None:
        return read_settings(**given)
    return read_settings(**{**settings.model_dump(exclude_unset=True), **given}) if given else settings
