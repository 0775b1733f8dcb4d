"""The loader: workflows from Python files, from importable modules and from WfFormat traces.

A *spec* is what a user writes: `FILE.py`, `FILE.py:name`, `FILE.json`, `package.module:name`. A *source* is what is
stored with a workflow, so that its functions are found again after a restart: `file:PATH:attribute` or
`module:attribute`.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import sys
import threading
import types
from difflib import get_close_matches
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from synergymesh.errors import UnknownWorkflow, WorkflowFileError
from synergymesh.workflows.wfformat import read_wfformat
from synergymesh.workflows.workflow import FILE_MARK, Workflow

_STAMP = "__synergymesh_stamp__"
_MODULE_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_loading = threading.RLock()


def load_workflows(spec: str | Path, *, speed: float = 1.0) -> list[Workflow]:
    """Load the workflows that a spec names: all of a file or module, or the one after the colon.

    A Python file runs as a module of its own, once for each content; its directory is searched for imports, last.

    Args:
        spec: `FILE.py[:name]`, `FILE.json` (a WfFormat trace), `package.module[:name]`.
        speed: by which the recorded runtimes of a trace are divided.

    Raises:
        WorkflowFileError: the file is missing, broken or without a workflow, or has none of that name.
    """
    place, name = _split(spec)
    if not isinstance(place, Path):
        module = _import(place)
        found = _workflows_of(module, place)
        origin = place
    elif place.suffix == ".json":
        trace = read_wfformat(_existing(place), speed=speed)
        if name not in (None, trace.name):
            raise WorkflowFileError(f"{place} has the workflow {trace.name!r}, none named {name!r}.")
        return [trace]
    else:
        path = _existing(place)
        module = _load_file(path)
        found = _workflows_of(module, str(place))
        origin = f"file:{path}"
    for attribute, workflow in found.items():
        if workflow.source is None:
            workflow.source = f"{origin}:{attribute}"
    if name is None:
        return list({id(workflow): workflow for workflow in found.values()}.values())
    return [_named(found, name, str(place))]


def load_workflow(spec: str | Path, *, speed: float = 1.0) -> Workflow:
    """Load the workflow that a spec names; without a name, the only one there.

    Raises:
        WorkflowFileError: as `load_workflows`; or there are several and the spec names none.
    """
    found = load_workflows(spec, speed=speed)
    if len(found) > 1:
        names = ", ".join(workflow.name for workflow in found)
        raise WorkflowFileError(f"{spec} has {len(found)} workflows: {names}. Name one: {spec}:{found[0].name}")
    return found[0]


def find_workflow(source: str) -> Workflow:
    """Find a workflow again by its source.

    A source says where functions are; its workflow may have changed since, and the traces of WfFormat all have the one
    in `synergymesh.workflows.wfformat`, whose tasks are theirs.

    Raises:
        WorkflowFileError: the file or module is missing or broken.
        UnknownWorkflow: it has no such workflow any more.
    """
    place, _, attribute = source.rpartition(":")
    if place.startswith("file:"):
        path = Path(place.removeprefix("file:"))
        module = _running_script(path) or _load_file(_existing(path))
    elif _MODULE_NAME.fullmatch(place):
        module = _import(place)
    else:
        raise WorkflowFileError(f"{source!r} is no source of a workflow: file:PATH:attribute or module:attribute.")
    workflow = vars(module).get(attribute)
    if not isinstance(workflow, Workflow):
        raise UnknownWorkflow(attribute, sorted(_declared(module)))
    if workflow.source is None:
        workflow.source = source
    return workflow


# --- what a spec names ----------------------------------------------------------------------------------------------


def _split(spec: str | Path) -> tuple[Path | str, str | None]:
    """Split a spec into a file or the name of a module, and the name of a workflow."""
    if isinstance(spec, Path):
        return spec, None
    if not isinstance(spec, str) or not spec.strip():
        raise WorkflowFileError(f"a workflow is given as FILE.py[:name], FILE.json or module:name, not {spec!r:.100}.")
    if os.path.exists(spec):
        return Path(spec), None
    place, colon, name = spec.rpartition(":")
    if not colon or "/" in name or name.endswith((".py", ".json")):
        place, name = spec, ""
    is_file = os.path.exists(place) or "/" in place or place.endswith((".py", ".json"))
    return Path(place) if is_file else place, name or None


def _existing(path: Path) -> Path:
    path = Path(os.path.abspath(path.expanduser()))
    try:
        if path.is_dir():
            raise WorkflowFileError(f"{path} is a directory. Name a file in it.")
        if not path.exists():
            siblings = sorted(each.name for each in path.parent.iterdir()) if path.parent.is_dir() else []
            nearest = get_close_matches(path.name, siblings, n=1)
            hint = f" Did you mean {nearest[0]}?" if nearest else ""
            raise WorkflowFileError(f"there is no file {path}.{hint}")
    except OSError as error:
        raise WorkflowFileError(f"{path} cannot be read: {error.strerror}.") from error
    if path.suffix not in (".py", ".json"):
        raise WorkflowFileError(f"{path} is neither a Python file (.py) nor a WfFormat trace (.json).")
    return path


def _declared(module: types.ModuleType) -> dict[str, Workflow]:
    """Give the workflows of a module by attribute: its own; if there are none, those that it imported."""
    found = {name: value for name, value in vars(module).items() if isinstance(value, Workflow)}
    own = {name: workflow for name, workflow in found.items() if workflow.is_from(vars(module))}
    return own or found


def _workflows_of(module: types.ModuleType, shown: str) -> dict[str, Workflow]:
    found = _declared(module)
    if not found:
        raise WorkflowFileError(
            f"{shown} has no workflow. Put @workflow above a function at its top level, or assign a Workflow there."
        )
    return found


def _named(found: dict[str, Workflow], name: str, shown: str) -> Workflow:
    by_name = {workflow.name: workflow for workflow in found.values()} | found
    if name in by_name:
        return by_name[name]
    nearest = get_close_matches(name, by_name, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise WorkflowFileError(f"{shown} has no workflow {name!r}, only {', '.join(sorted(by_name))}.{hint}")


# --- modules --------------------------------------------------------------------------------------------------------


def _import(name: str) -> types.ModuleType:
    if not _MODULE_NAME.fullmatch(name):
        raise WorkflowFileError(f"there is no file {name!r}, and it is no name of a module.")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise WorkflowFileError(
                f"there is no module {name!r}. For a file give its path with .py; else see PYTHONPATH."
            ) from error
        raise _broken(name, None, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(name, None, error) from error


def _running_script(path: Path) -> types.ModuleType | None:
    """Give the module of the running script if that is the file: it must not run a second time."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    return main if file is not None and os.path.abspath(file) == str(path) else None


def _load_file(path: Path) -> types.ModuleType:
    """Run a Python file as a module named after its path; the same content once."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WorkflowFileError(f"{path} cannot be read: {error.strerror}.") from error
    stamp = hashlib.sha256(content).hexdigest()
    readable = re.sub(r"\W+", "_", path.stem)
    name = f"synergymesh_file_{readable}_{hashlib.sha256(str(path).encode()).hexdigest()[:10]}"
    with _loading:
        known = sys.modules.get(name)
        if known is not None and getattr(known, _STAMP, None) == stamp:
            return known
        try:
            # compiled here: the import system's cache cannot tell two contents of the same size and second apart
            code = compile(content, str(path), "exec", dont_inherit=True)
        except SyntaxError as error:
            text = (error.text or "").strip()
            raise WorkflowFileError(f"{path}, line {error.lineno}: {error.msg}{f': {text}' if text else ''}") from error
        except ValueError as error:
            raise WorkflowFileError(f"{path} is no Python source: {error}.") from error
        spec = spec_from_file_location(name, path)
        assert spec is not None, "the suffix .py was checked"
        module = module_from_spec(spec)
        vars(module)[FILE_MARK] = str(path)
        vars(module)[_STAMP] = stamp
        directory = str(path.parent)
        if directory not in sys.path:
            sys.path.append(directory)
        sys.modules[name] = module
        try:
            exec(code, vars(module))  # noqa: S102 - a workflow file is a program of the user's
        except BaseException as error:
            if known is None:
                del sys.modules[name]
            else:
                sys.modules[name] = known
            if isinstance(error, (Exception, SystemExit)):
                raise _broken(str(path), path, error) from error
            raise
        return module


def _broken(shown: str, path: Path | None, error: BaseException) -> WorkflowFileError:
    """Describe what a file or module raised while it ran, with its line."""
    if isinstance(error, SyntaxError):
        return WorkflowFileError(f"{shown} cannot be loaded: {error.filename}, line {error.lineno}: {error.msg}.")
    line = ""
    traceback = error.__traceback__
    while path is not None and traceback is not None:
        if traceback.tb_frame.f_code.co_filename == str(path):
            line = f", line {traceback.tb_lineno}"
        traceback = traceback.tb_next
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(error, SystemExit):
        return WorkflowFileError(
            f"{shown}{line} exits while it is loaded. Put what starts the program below `if __name__ == '__main__':`."
        )
    return WorkflowFileError(f"{shown}{line} raised {name} while it was loaded: {error}")
