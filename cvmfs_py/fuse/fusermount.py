"""The setuid program fusermount3, with which users mount: calling it, and understanding what it says.

It opens the device, mounts, and sends the descriptor over a socket. Does not decide when it is to be used.

Concurrency: blocking, with a deadline; each call has its own child process.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
from dataclasses import dataclass
from typing import IO

from cvmfs_py.errors import MountError
from cvmfs_py.fuse.privileges import Capability, load_privileges

NAMES = ("fusermount3", "fusermount")
_SYSTEM_PATH = "/usr/bin:/bin:/usr/local/bin:/usr/sbin:/sbin"
_DEADLINE_S = 30.0
_CURES = (  # a part of what the program says, and what to do about it
    ("user_allow_other", "as root add the line user_allow_other to /etc/fuse.conf, or mount without allow_other"),
    ("mount_max", "unmount some, or as root set mount_max in /etc/fuse.conf"),
    ("not owned by user", "mount on a directory of your own"),
    ("could not determine username", "this user has no name here: use cvmfs-py exec, which needs none"),
    ("no write access to mountpoint", "mount on a directory that you may write to"),
    ("bad mount point", "mount on a directory that exists and that you may search"),
    ("mounting over filesystem type", "mount on a directory of an ordinary local file system, for example below /tmp"),
    ("device not found", "in a container add --device /dev/fuse, on the machine, as root: modprobe fuse"),
    ("failed to open /dev/fuse", "as root: chmod 666 /dev/fuse; in a container add --device /dev/fuse"),
)


@dataclass(frozen=True, slots=True)
class Lifeline:
    """As long as it is open, the program stays; when it closes, also by a crash, the program unmounts."""

    socket: socket.socket
    pid: int

    def close(self) -> None:
        self.socket.close()
        with contextlib.suppress(ChildProcessError):  # of the process that detached from the one that mounted
            os.waitpid(self.pid, 0)


def find_program() -> str | None:
    """The one with setuid, if there is any: software stacks come with copies that have it not."""
    path = f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}"
    found = [program for name in NAMES for directory in path.split(":") if (program := _program_in(name, directory))]
    return next(filter(is_setuid_root, found), found[0] if found else None)


def is_setuid_root(program: str) -> bool:
    status = os.stat(program)
    return bool(status.st_mode & stat.S_ISUID) and status.st_uid == 0


def mount(mountpoint: str, options: list[str], *, auto_unmount: bool = False) -> tuple[int, Lifeline | None]:
    """The descriptor of a new mount; with automatic unmounting also what keeps it."""
    program = _require_program()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.ExitStack() as held:
        held.enter_context(ours)
        said = held.enter_context(_notepad())
        with theirs:
            words = [*options, "auto_unmount"] if auto_unmount else options
            pid = _start(program, ["-o", ",".join(words), "--", mountpoint], said, theirs)
        fd = _receive(ours)
        if fd is None or not auto_unmount:
            os.waitpid(pid, 0)
        if fd is None:
            raise MountError(f"cannot mount on {mountpoint}: {_explain(program, said)}")
        if not auto_unmount:
            return fd, None
        held.pop_all()
        said.close()
        return fd, Lifeline(ours, pid)


def unmount(mountpoint: str, *, lazily: bool = False) -> None:
    """As the user who mounted."""
    program = _require_program()
    with _notepad() as said:
        pid = _start(program, ["-u", *(["-z"] if lazily else []), "--", mountpoint], said, None)
        _, status = os.waitpid(pid, 0)
        if status != 0:
            raise MountError(f"cannot unmount {mountpoint}: {_explain(program, said)}")


def _notepad() -> IO[bytes]:
    """For what the program says: a pipe would close under one that stays, a file may be hidden by a mount."""
    return os.fdopen(os.memfd_create("fusermount"), "w+b")


def _require_program() -> str:
    program = find_program()
    if program is None:
        raise MountError(_cure_of_lack())
    return program


def _cure_of_lack() -> str:
    """Installing the program is of no use where it would get no rights."""
    privileges = load_privileges()
    if os.geteuid() == 0 and not privileges.include(Capability.SYS_ADMIN):
        return _cure_for_root()
    if not privileges.may_gain(Capability.SYS_ADMIN):
        return "mounting needs rights that no program can have here: use cvmfs-py exec, which needs none"
    return (
        "without root's rights mounting needs the program fusermount3: install the package fuse3, "
        "or use cvmfs-py exec, which needs no such program"
    )


def _cure_for_root() -> str:
    """`exec` is one only for a root that may map itself into a user namespace."""
    cure = "root lacks CAP_SYS_ADMIN here: start the container with --cap-add SYS_ADMIN"
    return f"{cure}, or use cvmfs-py exec" if load_privileges().include(Capability.SETFCAP) else cure


def _program_in(name: str, directory: str) -> str | None:
    return shutil.which(name, path=directory) if directory else None


def _start(program: str, arguments: list[str], said: IO[bytes], channel: socket.socket | None) -> int:
    """A child process with an environment in which its messages are English and its libraries the system's."""
    environment = {"PATH": _SYSTEM_PATH, "LC_ALL": "C"}
    if channel is not None:
        channel.set_inheritable(True)
        environment["_FUSE_COMMFD"] = str(channel.fileno())
    actions = [(os.POSIX_SPAWN_DUP2, said.fileno(), 1), (os.POSIX_SPAWN_DUP2, said.fileno(), 2)]
    return os.posix_spawn(program, [program, *arguments], environment, file_actions=actions, setsigmask=())


def _receive(channel: socket.socket) -> int | None:
    channel.settimeout(_DEADLINE_S)
    try:
        _, fds, _, _ = socket.recv_fds(channel, 1, 1, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return None
    except TimeoutError:
        raise MountError(f"fusermount3 has not answered within {_DEADLINE_S:.0f} s; see what holds it up") from None
    channel.settimeout(None)
    return fds[0] if fds else None


def _explain(program: str, said: IO[bytes]) -> str:
    """What the program said, in one line, and what to do about it."""
    said.seek(0)
    lines = said.read().decode(errors="replace").splitlines()
    text = "; ".join(line.strip() for line in lines if line.strip()) or f"{program} has failed without a word"
    cure = next((cure for words, cure in _CURES if words in text), "")
    if not cure and "not permitted" in text:
        cure = _cure_of_refusal(program)
    return f"{text}; {cure}" if cure else text


def _cure_of_refusal(program: str) -> str:
    privileges = load_privileges()
    if os.geteuid() == 0 and not privileges.include(Capability.SYS_ADMIN):
        return _cure_for_root()
    if privileges.has_no_new_privileges:
        return "this process may gain no rights (no_new_privs), so that setuid programs fail: use cvmfs-py exec"
    if not is_setuid_root(program):
        return f"the program lacks the rights of root; as root: chown root {program} && chmod 4755 {program}"
    return "in a container or a user namespace setuid programs may have no rights: use cvmfs-py exec"
