from __future__ import annotations

import dataclasses
import json
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from synergymesh.errors import UnknownWorkflow, WorkflowFileError
from synergymesh.workflows.loader import find_workflow, load_workflow, load_workflows
from synergymesh.workflows.workflow import Workflow

ONE = """
    from synergymesh.workflows.tasks import task
    from synergymesh.workflows.workflow import workflow

    @task
    def double(x: int) -> int:
        return 2 * x

    @workflow
    def checkout(x: int):
        return double(x)
"""

TWO = (
    ONE
    + """
    @workflow(name="second-flow")
    def second(x: int):
        return checkout(x)
"""
)

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """Write a file into the test's own directory; forget afterwards what was loaded from there."""

    def write(name: str, content: str) -> Path:
        path = tmp_path / name
        path.write_text(textwrap.dedent(content))
        return path

    before = list(sys.path)
    yield write
    sys.path[:] = before
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def refused(spec: Any) -> str:
    with pytest.raises(WorkflowFileError) as caught:
        load_workflow(spec)
    assert caught.value.code == "workflow_file"
    return str(caught.value)


@pytest.mark.parametrize("name", ["flows.py", "my-kebab-flow.py", "with space.py", "üñí.py", "a:b.py"])
def test_a_python_file_is_loaded_by_its_path(write: Write, name: str) -> None:
    path = write(name, ONE)
    workflow = load_workflow(path)
    assert (workflow.name, workflow(3)) == ("checkout", 6)
    assert workflow.source == f"file:{path}:checkout"
    assert load_workflow(str(path)) is workflow
    assert load_workflow(f"{path}:checkout") is workflow
    assert find_workflow(workflow.source) is workflow


def test_a_relative_path_has_an_absolute_source(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("flows.py", ONE)
    monkeypatch.chdir(path.parent)
    assert load_workflow("flows.py").source == f"file:{path}:checkout"
    assert load_workflow("./flows.py:checkout").source == f"file:{path}:checkout"


def test_the_same_file_is_the_same_module_until_it_changes(write: Write) -> None:
    path = write("flows.py", ONE)
    first = load_workflow(path)
    assert load_workflow(path) is first
    stat = path.stat()
    path.write_text(path.read_text().replace("2 * x", "3 * x"))  # the same size
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    second = load_workflow(path)
    assert (first(2), second(2)) == (4, 6)
    assert first.tasks["double"].function.__module__ == second.tasks["double"].function.__module__


def test_a_file_that_breaks_leaves_the_module_that_worked(write: Write) -> None:
    path = write("flows.py", ONE)
    name = load_workflow(path).tasks["double"].function.__module__
    module = sys.modules[name]
    path.write_text("raise ValueError('no')")
    refused(path)
    assert sys.modules[name] is module


def test_types_of_a_loaded_file_are_found_by_their_module(write: Write) -> None:
    path = write(
        "flows.py",
        """
        from __future__ import annotations
        import dataclasses
        from synergymesh.workflows.tasks import task
        from synergymesh.workflows.workflow import Workflow

        @dataclasses.dataclass
        class Order:
            n: int

        class Problem(Exception): ...

        @task
        def show(order: Order) -> str:
            return repr(order)

        built = Workflow("built").add(show, args=({"n": 1},))
        """,
    )
    workflow = load_workflow(path)
    assert workflow() == "Order(n=1)"
    assert workflow.source == f"file:{path}:built"
    module = sys.modules[workflow.tasks["show"].function.__module__]
    assert module.Problem.__module__ == module.__name__
    assert dataclasses.is_dataclass(module.Order)


def test_a_file_may_import_its_neighbours(write: Write) -> None:
    write("neighbour_of_flows.py", "NUMBER = 7")
    path = write(
        "flows.py",
        """
        from neighbour_of_flows import NUMBER
        from synergymesh.workflows.workflow import Workflow
        built = Workflow("built").add(lambda: NUMBER)
        """,
    )
    assert load_workflow(path)() == 7
    assert sys.path[-1] == str(path.parent)  # last, so that it hides nothing


def test_one_of_several_is_named_by_attribute_or_name(write: Write) -> None:
    path = write("flows.py", TWO)
    assert [each.name for each in load_workflows(path)] == ["checkout", "second-flow"]
    assert load_workflow(f"{path}:second").name == "second-flow"
    assert load_workflow(f"{path}:second-flow").source == f"file:{path}:second"
    assert f"has 2 workflows: checkout, second-flow. Name one: {path}:checkout" in refused(path)
    message = refused(f"{path}:chekout")
    assert "has no workflow 'chekout', only checkout, second, second-flow" in message
    assert "Did you mean 'checkout'?" in message


def test_imported_workflows_are_not_those_of_the_file(write: Write) -> None:
    write("imported_by_flows.py", TWO)
    path = write("flows.py", "from imported_by_flows import checkout, second\n" + textwrap.dedent(ONE))
    assert [each.name for each in load_workflows(path)] == ["checkout"]
    only = write("others.py", "from imported_by_flows import checkout")
    assert load_workflow(only).source == "imported_by_flows:checkout"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def f(:\n  pass", "line 1: invalid syntax: def f(:"),
        ("x = 1\n  y = 2", "line 2: unexpected indent: y = 2"),
        ("x = '\0'", "null bytes"),
        ("\n\nraise KeyError('k')", "line 3 raised KeyError while it was loaded: 'k'"),
        ("def f():\n    1 / 0\nf()", "line 2 raised ZeroDivisionError while it was loaded: division by zero"),
        ("import nothing_of_that_name", "line 1 raised ModuleNotFoundError"),
        ("import json\njson.loads('{')", "line 2 raised json.decoder.JSONDecodeError"),
        ("import sys\nsys.exit(3)", "line 2 exits while it is loaded"),
        ("x = 1", "has no workflow. Put @workflow above a function"),
        ("", "has no workflow"),
        (
            "from synergymesh.workflows.workflow import workflow\n@workflow\ndef w(): pass",
            "line 2 raised synergymesh.errors.InvalidWorkflow while it was loaded: workflow 'w' has no components",
        ),
    ],
)
def test_a_broken_file_is_refused_with_its_line(write: Write, content: str, message: str) -> None:
    path = write("flows.py", "")
    path.write_text(content)
    modules = set(sys.modules)
    said = refused(path)
    assert str(path) in said
    assert message in said
    assert not any(name.startswith("synergymesh_file_") for name in set(sys.modules) - modules) or "no workflow" in said


def test_a_file_that_imports_a_broken_one_names_that_one(write: Write) -> None:
    write("broken_neighbour.py", "def f(:")
    path = write("flows.py", "import broken_neighbour")
    assert "broken_neighbour.py, line 1" in refused(path)


def test_a_file_in_another_encoding_is_refused(write: Write) -> None:
    path = write("flows.py", "")
    path.write_bytes(b"x = '\xff'")
    assert "flows.py" in refused(path)


def test_what_is_no_file_is_refused_with_the_nearest(write: Write, tmp_path: Path) -> None:
    write("flows.py", ONE)
    assert f"there is no file {tmp_path}/flws.py. Did you mean flows.py?" in refused(tmp_path / "flws.py")
    assert "there is no file" in refused(str(tmp_path / "nowhere" / "flows.py:checkout"))
    assert "is a directory" in refused(tmp_path)
    write("flows.txt", ONE)
    assert "neither a Python file (.py) nor a WfFormat trace" in refused(tmp_path / "flows.txt")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "a workflow is given as"),
        (5, "a workflow is given as"),
        ("no such thing", "no name of a module"),
        ("nothing_of_that_name:x", "there is no module 'nothing_of_that_name'"),
        ("json.nothing", "there is no module 'json.nothing'"),
        ("json", "json has no workflow"),
        ("synergymesh.workflows.wfformat:other", "has no workflow 'other', only replayed"),
    ],
)
def test_a_spec_that_names_nothing_is_refused(spec: Any, message: str) -> None:
    assert message in refused(spec)


def test_a_file_that_cannot_be_read_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("flows.py", ONE)

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert "flows.py cannot be read: Permission denied" in refused(path)


def test_a_workflow_is_loaded_by_its_import_name(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("importable_flows.py", ONE)
    monkeypatch.syspath_prepend(str(path.parent))
    workflow = load_workflow("importable_flows:checkout")
    assert workflow.source == "importable_flows:checkout"
    assert load_workflow("importable_flows") is workflow
    assert find_workflow("importable_flows:checkout") is workflow


def test_a_workflow_that_another_module_makes_gets_the_source_of_the_file(write: Write) -> None:
    write("factory_of_flows.py", ONE + "\n    def make():\n        return workflow(name='made')(lambda: double(1))\n")
    path = write("flows.py", "from factory_of_flows import make\nmine = make()")
    assert load_workflow(path).source == f"file:{path}:mine"


def test_a_trace_is_loaded_by_its_path(write: Write) -> None:
    trace = {
        "name": "t",
        "schemaVersion": "1.5",
        "workflow": {
            "specification": {"tasks": [{"id": "a"}]},
            "execution": {"tasks": [{"id": "a", "runtimeInSeconds": 8}]},
        },
    }
    path = write("trace.json", json.dumps(trace))
    workflow = load_workflow(path, speed=4)
    assert workflow.definition.components[0].args == (2.0,)
    assert load_workflow(f"{path}:t").name == "t"
    assert "has the workflow 't', none named 'u'" in refused(f"{path}:u")
    assert workflow.source is not None
    assert set(find_workflow(workflow.source).tasks) >= set(workflow.tasks)


def test_the_running_script_is_not_run_again(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("script.py", "raise AssertionError('run again')")
    main = type(sys)("__main__")
    main.__file__ = str(path)
    vars(main)["flow"] = Workflow("w").add(lambda: 1)
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert find_workflow(f"file:{path}:flow") is vars(main)["flow"]


@pytest.mark.parametrize("source", ["", "checkout", "file:", "bad name:x"])
def test_what_is_no_source_is_refused(source: str) -> None:
    with pytest.raises(WorkflowFileError):
        find_workflow(source)


def test_a_workflow_that_is_gone_is_refused_with_the_reason(write: Write) -> None:
    path = write("flows.py", ONE)
    with pytest.raises(UnknownWorkflow, match=r"no workflow 'gone'\. Known: checkout"):
        find_workflow(f"file:{path}:gone")
    with pytest.raises(UnknownWorkflow, match="'double'"):
        find_workflow(f"file:{path}:double")
    path.unlink()
    with pytest.raises(WorkflowFileError, match="there is no file"):
        find_workflow(f"file:{path}:checkout")
    with pytest.raises(WorkflowFileError, match="there is no module"):
        find_workflow("nothing_of_that_name:checkout")
