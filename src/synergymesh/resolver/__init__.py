"""The public tool for graphs: plan, analyse and advise, over the pure rules of `domain`."""

from synergymesh.resolver.components import DependencyNode
from synergymesh.resolver.dependency_resolver import DependencyResolver

__all__ = ["DependencyNode", "DependencyResolver"]
