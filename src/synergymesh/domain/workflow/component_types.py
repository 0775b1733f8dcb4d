"""What a component can be; SynergyMesh treats all of them the same and shows what they are."""

from __future__ import annotations

from enum import StrEnum


class ComponentType(StrEnum):
    """Name the kind of a component."""

    AGENT = "agent"
    ISLAND = "island"
    BRIDGE = "bridge"
    SERVICE = "service"
    TASK = "task"
