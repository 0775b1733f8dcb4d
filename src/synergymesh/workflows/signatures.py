"""Signatures: the parameters of tasks and workflows, checked when a workflow is defined and filled when it runs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from synergymesh.domain.workflow import templates
from synergymesh.domain.workflow.templates import Template
from synergymesh.errors import InvalidRequest, InvalidWorkflow
from synergymesh.workflows.annotations import (
    Converter,
    Mismatch,
    builtin_kind,
    checker,
    converter,
    fits,
    is_plain,
    resolve,
)
from synergymesh.workflows.nodes import Node, annotation_of, describe

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Signature:
    """Hold the parameters of a callable with their annotations.

    Annotations are evaluated when they are first needed; one that names something not defined yet is tried again.

    Attributes:
        owner: what the callable is called in messages: `task 'price'`.
        parameters: as `inspect` gives them.
    """

    def __init__(
        self, owner: str, parameters: Sequence[inspect.Parameter], function: Callable[..., Any] | None
    ) -> None:
        self.owner = owner
        self.parameters = {parameter.name: parameter for parameter in parameters}
        self._signature = inspect.Signature(parameters)
        self._function = function
        self._annotations: dict[str, Any] | None = None
        self._checkers: dict[str, Converter] = {}
        self._converters: dict[str, Converter] | None = None

    @classmethod
    def of(cls, function: Callable[..., Any], owner: str) -> Signature:
        """Read the signature of a function.

        Raises:
            InvalidWorkflow: it has none.
        """
        try:
            signature = inspect.signature(function)
        except (ValueError, TypeError):
            raise InvalidWorkflow(
                f"{owner}: the signature of {function!r} cannot be read. Wrap it in a function of your own."
            ) from None
        return cls(owner, list(signature.parameters.values()), function)

    # --- annotations ------------------------------------------------------------------------------------------------

    def annotation(self, name: str) -> Any:
        """Give the annotation of a parameter, or of the value under `return`; Any when there is none."""
        return self._resolved().get(name, Any)

    def _resolved(self, *, settle: bool = False) -> dict[str, Any]:
        """Evaluate the annotations; keep them if all could be, or to `settle` the matter."""
        if self._annotations is not None:
            return self._annotations
        function = self._function
        if function is None:
            raw = {
                name: parameter.annotation
                for name, parameter in self.parameters.items()
                if parameter.annotation is not inspect.Parameter.empty
            }
            names: dict[str, Any] = {}
        else:
            while isinstance(function, functools.partial):
                function = function.func
            function = inspect.unwrap(function)
            if not inspect.isroutine(function):
                function = type(function).__call__
            raw = dict(getattr(function, "__annotations__", {}))
            names = getattr(function, "__globals__", {})
        annotations, complete = resolve(raw, names)
        if complete or settle:
            self._annotations = annotations
        return annotations

    # --- when a workflow is defined ---------------------------------------------------------------------------------

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
        """Match arguments with parameters.

        Returns:
            For each argument the name of its parameter, how messages name it, and its value.

        Raises:
            InvalidWorkflow: one is missing, unexpected or given twice.
        """
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidWorkflow(f"{self.owner}: {error}. It takes {self._shown()}.") from None
        arguments: list[tuple[str, str, Any]] = []
        for name, value in bound.arguments.items():
            kind = self.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                arguments.extend((name, f"*{name}[{index}]", item) for index, item in enumerate(value))
            elif kind is inspect.Parameter.VAR_KEYWORD:
                arguments.extend((name, key, item) for key, item in value.items())
            else:
                arguments.append((name, name, value))
        return arguments

    def _shown(self) -> str:
        plain = [each.replace(annotation=inspect.Parameter.empty) for each in self.parameters.values()]
        return str(inspect.Signature(plain))

    def check(self, name: str, label: str, value: object, template: Template) -> None:
        """Check one argument against its parameter, as far as it is known.

        Args:
            name: of the parameter.
            label: of the argument, for messages.
            value: as written: a node, a constant, or a mixture.
            template: made of it.

        Raises:
            InvalidWorkflow: it cannot fit.
        """
        wanted = self.annotation(name)
        if isinstance(value, Node):
            given = builtin_kind(annotation_of(value))
            kind = builtin_kind(wanted)
            if given is not None and kind is not None and not fits(given, kind):
                raise self._refused(label, f" is {describe(value)}, a {given.__name__}, but {kind.__name__} is wanted")
        elif templates.has_references(template):
            kind = builtin_kind(wanted)
            if kind is not None and not fits(type(template), kind):
                raise self._refused(label, f" is a {type(template).__name__}, but {kind.__name__} is wanted")
        else:
            try:
                self._checker(name, wanted)(template)
            except Mismatch as problem:
                raise self._refused(label, str(problem)) from None

    def _refused(self, label: str, problem: str) -> InvalidWorkflow:
        return InvalidWorkflow(f"{self.owner}: argument {label}{problem}.", field=label)

    def _checker(self, name: str, annotation: Any) -> Converter:
        if self._annotations is None:  # not all are known yet: nothing may be kept
            return checker(annotation) if is_plain(annotation) else converter(annotation)
        check = self._checkers.get(name)
        if check is None:
            check = checker(annotation) if is_plain(annotation) else converter(annotation)
            self._checkers[name] = check
        return check

    # --- when a task runs -------------------------------------------------------------------------------------------

    @property
    def converters(self) -> dict[str, Converter]:
        """Give the converters of the parameters that need one: those whose annotation is more than plain JSON."""
        if self._converters is None:
            self._converters = {
                name: converter(annotation)
                for name, annotation in self._resolved(settle=True).items()
                if name in self.parameters and not is_plain(annotation)
            }
        return self._converters

    def convert(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Convert JSON values to the annotated types of their parameters.

        Raises:
            InvalidRequest: one cannot be converted; the message names the parameter.
        """
        converters = self.converters
        if not converters:
            return tuple(args), dict(kwargs)
        parameters = list(self.parameters.values())
        converted: list[Any] = []
        for index, value in enumerate(args):
            parameter = parameters[min(index, len(parameters) - 1)]
            if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                parameter = next(each for each in parameters if each.kind is each.VAR_POSITIONAL)
            converted.append(self._converted(converters, parameter.name, value))
        rest = next((each.name for each in parameters if each.kind is each.VAR_KEYWORD), "")
        named = {
            key: self._converted(converters, key if self._takes_by_name(key) else rest, value)
            for key, value in kwargs.items()
        }
        return tuple(converted), named

    def _takes_by_name(self, key: str) -> bool:
        parameter = self.parameters.get(key)
        return parameter is not None and parameter.kind not in (*_VARIADIC, parameter.POSITIONAL_ONLY)

    def _converted(self, converters: Mapping[str, Converter], name: str, value: Any) -> Any:
        convert = converters.get(name)
        if convert is None:
            return value
        try:
            return convert(value)
        except Mismatch as problem:
            if value is None:  # what an optional component that failed leaves: the function decides what that means
                return None
            raise InvalidRequest(f"{self.owner}: argument {name}{problem}.", field=name) from None

    def check_input(self, name: str, value: Any) -> None:
        """Check one input of a run, as JSON values, against its parameter.

        Raises:
            InvalidRequest: it cannot fit.
        """
        annotation = self._resolved(settle=True).get(name, Any)
        try:
            self._checker(name, annotation)(value)
        except Mismatch as problem:
            raise InvalidRequest(f"input {name}{problem}.", field=name) from None
