"""Where the socket of a database is: beside its file, or in a private directory if that is not possible."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import struct
import tempfile
from pathlib import Path

PATH_BYTES_MAX = 100
"""`sun_path` has 108 bytes on Linux and 104 on other systems, the final NUL included."""

_PEER = struct.Struct("3i")
"""`struct ucred` of Linux: pid, uid, gid."""


def places(database: Path) -> list[Path]:
    """Give where the socket of a database may be, the best place first.

    Beside the file everybody finds it, whatever the environment. Where that path is too long for a socket, or the
    directory takes none, it is in a directory of the user's own, named by a hash of the database's path.

    Args:
        database: absolute, symbolic links resolved.
    """
    found = [database.with_name(database.name + ".sock")]
    name = hashlib.sha256(os.fsencode(database)).hexdigest()[:32] + ".sock"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        found.append(Path(runtime) / "synergymesh" / name)
    found += [Path(root) / f"synergymesh-{os.geteuid()}" / name for root in (tempfile.gettempdir(), "/tmp")]
    short = [place for place in dict.fromkeys(found) if len(os.fsencode(place)) <= PATH_BYTES_MAX]
    return [place for place in short if place.is_absolute()]


def prepare(place: Path, database: Path) -> None:
    """Make room for a socket: its private directory if it is in one, and no socket left over from before.

    Only the process that owns the database calls this, so a socket that is there belongs to nobody any more.

    Raises:
        OSError: the directory is not private to this user, or something else has the socket's name.
    """
    if place.parent != database.parent:
        place.parent.mkdir(mode=0o700, exist_ok=True)
        about = place.parent.lstat()
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o077:
            raise PermissionError(f"{place.parent} is not a directory that only this user can enter")
    try:
        mode = place.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(f"{place} is there and is no socket")
    place.unlink()


def bind(database: Path) -> tuple[socket.socket, Path]:
    """Give a socket that is bound in the first place that works, for this user only; it does not listen yet.

    Raises:
        OSError: no place works; why the last one does not.
    """
    trouble: OSError = OSError("the paths of the database and of the temporary directory are too long for a socket")
    for place in places(database):
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            prepare(place, database)
            listening.bind(str(place))
            place.chmod(0o600)  # before it listens: nobody can have connected with other rights
        except OSError as error:
            listening.close()
            trouble = error
        else:
            listening.setblocking(False)
            return listening, place
    raise trouble


def is_same_user(connection: socket.socket) -> bool:
    """Tell whether the process at the other end runs as this user; the file's mode has to do where no system says."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True
    _, uid, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, option, _PEER.size))
    return bool(uid == os.geteuid())
