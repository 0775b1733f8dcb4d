"""Every shell example of the documents runs, in its order, in a directory of its own that has the project's examples.

Each line of a ```shell block is a command after a prompt, and has to succeed. What a document needs before its first
example, and what stands for the reader's own things, is in a comment `<!-- before the examples … -->` of its source. A
block that cannot run says why in a comment `<!-- not run: … -->` above it. `block-1.py`, `block-1.json` … are what
the document's other blocks say.
"""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVER = Path(__file__).with_name("command_server.py")
ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")])
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
BEFORE = re.compile(r"^<!-- before the examples\n(?P<commands>.*?)^-->$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: (?P<reason>[^\n]{10,}) -->\n+\Z")
PROGRAMS = re.compile(r"^\$ |^(synergymesh|python3?|pip|docker|curl|sudo) [\w./-]", re.MULTILINE)


def blocks(text: str) -> Iterator[tuple[str, str, bool]]:
    """Give the language and the text of each block, and whether it runs."""
    for found in FENCE.finditer(text):
        yield found["language"], found["text"], NOT_RUN.search(text[: found.start()]) is None


def commands_of(text: str) -> list[str]:
    """Give the commands of a document's shell blocks."""
    lines = [
        line for language, block, runs in blocks(text) if language == "shell" and runs for line in block.splitlines()
    ]
    assert [line for line in lines if not line.startswith("$ ")] == [], "a command is on one line, after a prompt"
    return [line.removeprefix("$ ") for line in lines]


def with_commands() -> list[Path]:
    texts = ((path, path.read_text(encoding="utf-8")) for path in DOCUMENTS)
    return [path for path, text in texts if any(each == "shell" and runs for each, _, runs in blocks(text))]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a directory with a `synergymesh` that needs no start of an interpreter of its own."""
    directory = tmp_path_factory.mktemp("bin")
    address = str(directory / "server")
    client = directory / "synergymesh"
    client.write_text(
        runpy.run_path(str(SERVER))["CLIENT"].format(python=sys.executable, path=address), encoding="utf-8"
    )
    client.chmod(0o755)
    with subprocess.Popen(
        [sys.executable, SERVER, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield directory
        server.stdin.close()
        assert server.wait(20) == 0


def run(programs: Path, directory: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run commands in one shell until one fails."""
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SYNERGYMESH_")}
    return subprocess.run(
        ["bash", "-xeo", "pipefail", "-c", script],
        cwd=directory,
        env=clean | {"PATH": path, "TMPDIR": str(directory), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=110,
    )


@pytest.mark.parametrize("path", with_commands(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_shell_examples_of_a_document_run_in_their_order(path: Path, programs: Path, tmp_path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for language, ending in (("python", "py"), ("json", "json"), ("toml", "toml")):
        of_kind = [block for kind, block, _ in blocks(text) if kind == language]
        for number, block in enumerate(of_kind, 1):
            (tmp_path / f"block-{number}.{ending}").write_text(block, encoding="utf-8")
    before = "".join(found["commands"] for found in BEFORE.finditer(text))
    ended = run(programs, tmp_path, "\n".join([before, *commands_of(text)]))
    assert ended.returncode == 0, ended.stderr[-2_000:] + ended.stdout[-1_000:]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_is_a_command_is_in_a_block_that_runs(path: Path) -> None:
    for language, block, runs in blocks(path.read_text(encoding="utf-8")):
        assert language not in ("sh", "bash", "console", "zsh"), f"write shell: {block[:80]}"
        assert language == "shell" or not runs or not PROGRAMS.search(block), f"commands, but no shell: {block[:80]}"


def test_every_make_target_that_a_document_names_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        target
        for path in DOCUMENTS
        for target in re.findall(r"(?:^|`|\$ )make ([a-z-]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert named - targets == set()


def test_a_block_that_is_exempt_says_why() -> None:
    exempt = "<!-- not run: it installs from an index -->\n```shell\n$ pip install x\n```\n"
    assert [runs for _, _, runs in blocks(exempt)] == [False]
    assert commands_of("```shell\n$ a\n```\n" + exempt) == ["a"]
    with pytest.raises(AssertionError):
        commands_of("```shell\na\n```\n")
