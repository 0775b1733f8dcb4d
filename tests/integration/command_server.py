"""Run `synergymesh` commands in forks of one interpreter that has imported everything; for tests of many commands.

Started with a path, it listens there; each connection brings arguments, directory, environment and the three streams
of a command, and gets its exit code. `CLIENT` is the program that stands where the shell looks for `synergymesh`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
from importlib import import_module
from pkgutil import iter_modules
from select import select

CLIENT = """#!{python} -IS
import json, os, socket, struct, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({path!r})
    said = json.dumps({{"arguments": sys.argv[1:], "directory": os.getcwd(), "environment": dict(os.environ)}}).encode()
    socket.send_fds(connection, [struct.pack("!I", len(said))], [0, 1, 2])
    connection.sendall(said)
    answer = connection.recv(4)
os._exit(struct.unpack("!i", answer)[0] if len(answer) == 4 else 70)
"""


def serve(path: str) -> None:
    """Listen until the standard input ends."""
    import synergymesh.cli

    for module in iter_modules(synergymesh.cli.__path__):
        if module.name != "__main__":
            import_module(f"synergymesh.cli.{module.name}")
    for name in ("synergymesh", "synergymesh.orchestrator", "synergymesh.diagnostics.doctor"):
        import_module(name)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait for the commands
        while listener in select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                attend(connection)
                return
            connection.close()


def attend(connection: socket.socket) -> None:
    """Run the command of a connection in a fork of its own, and say how it ended."""
    head, streams, _, _ = socket.recv_fds(connection, 4, 3)
    rest = struct.unpack("!I", head)[0]
    said = b""
    while len(said) < rest:
        said += connection.recv(rest - len(said))
    child = os.fork()
    if child == 0:
        connection.close()
        asked = json.loads(said)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(asked["directory"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.argv = ["synergymesh", *asked["arguments"]]
        from synergymesh.cli import main

        main()
        return
    for stream in streams:
        os.close(stream)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    connection.sendall(struct.pack("!i", code if code >= 0 else 128 - code))
    connection.close()
    os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1])
