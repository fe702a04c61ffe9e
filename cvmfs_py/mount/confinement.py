"""Runs a command in namespaces of its own, in which repositories are mounted below /cvmfs. Needs no rights.

    front ──┬── daemon     outside, in a session of its own: reads configuration, serves the descriptors
            ├── process 1  inside: waits for orphans and nothing else; only with a process namespace
            └── command    inside: as whoever called

The front is the process that was called. It starts the daemon, asks it what to mount, enters the namespaces, opens
/dev/fuse there (the kernel wants the opener and the mount to be of one user namespace), mounts, and sends the
descriptors out to the daemon. When the daemon says that it answers, the front starts the command, shares terminal and
process group with it, and ends as it does. It never executes anything itself and so keeps the capabilities of the
namespace; the command's exec drops them.

What ends when something is killed, with SIGKILL too:
- the front: the kernel kills process 1 and with it everything inside, and the command; the daemon is asked to end.
- the command, or process 1: the front notices, kills the rest, unmounts, and waits for the daemon.
- the daemon: /cvmfs is dead for the command (ENOTCONN), which goes on; the front says so and waits for it.
The mounts belong to the mount namespace and are gone with its last process. Without a process namespace, what the
command leaves in the background is killed when it ends, but survives a killed front, with a dead /cvmfs.

Does not know repositories, configuration or engines: those are the daemon's business.

Concurrency: forks; the calling process must have one thread only, and is changed for good.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import sys
import traceback
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from cvmfs_py.errors import CvmfsError, MountError
from cvmfs_py.fuse import syscalls
from cvmfs_py.fuse.handover import Handover, MountOptions, Way, mount_directly
from cvmfs_py.mount import namespace, supervision
from cvmfs_py.mount.private_root import CVMFS, provide_places

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_log = logging.getLogger(__name__)
_MESSAGE_BYTES = 1 << 16
_PATIENCE_S = 10.0  # for a daemon whose mounts are gone


class ReportedError(CvmfsError):
    """What went wrong in another process, in its words and with its exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Place:
    """One directory below /cvmfs, and how it is mounted."""

    name: str
    options: MountOptions


@dataclass(frozen=True, slots=True)
class Command:
    """What to run inside."""

    words: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    # None: where /proc can be had for it. Otherwise the command sees the processes of the machine.
    own_processes: bool | None = None


class Daemon(Protocol):
    """The part that knows repositories. Both methods run in the daemon's process, in this order."""

    def plan(self) -> Sequence[Place]:
        """What is to be mounted. Nothing is mounted yet; errors end everything, and are told to the user."""
        ...

    def serve(self, handovers: Sequence[Handover], ready: Callable[[], None]) -> None:
        """Answers the kernel until all mounts are gone, or SIGTERM; calls `ready` when the command may start."""
        ...


def run(daemon: Daemon, command: Command) -> int:
    """The command's exit code, or the negative number of the signal that ended it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    directory = _current_directory()
    sys.stdout.flush()
    sys.stderr.flush()
    front = os.getpid()
    daemon_pid = os.fork()
    if daemon_pid == 0:
        ours.close()
        _be_daemon(daemon, theirs, front)
    theirs.close()
    with contextlib.ExitStack() as undo:
        mask = undo.enter_context(supervision.held_signals())
        undo.push(partial(_end_daemon, daemon_pid))
        undo.enter_context(ours)
        with _interruptible(mask):
            places = [Place(name, MountOptions(**options)) for name, options in _receive(ours)["places"]]
            namespace.enter_private_mounts()
            provide_places(place.name for place in places)
            undo.callback(_unmount, places)
            _mount_and_send(places, ours)
            _receive(ours)
            own_processes = command.own_processes
            if own_processes is None:
                own_processes = namespace.may_have_own_processes()
        return _run_inside(command, directory, mask, daemon_pid, own_processes=own_processes)


# --- the front


@contextlib.contextmanager
def _interruptible(mask: set[signal.Signals | int]) -> Any:
    """Until the command runs, signals are for the front as for any program."""
    held = signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _mount_and_send(places: Sequence[Place], channel: socket.socket) -> None:
    fds: list[int] = []
    try:
        for place in places:
            fds.append(mount_directly(f"{CVMFS}/{place.name}", place.options).fd)
        socket.send_fds(channel, [json.dumps([place.name for place in places]).encode()], fds)
    except (BrokenPipeError, ConnectionResetError):
        raise MountError("the daemon has ended before it could serve the mounts") from None
    finally:
        for fd in fds:
            os.close(fd)


def _receive(channel: socket.socket) -> Any:
    """What the daemon says next; raises what it has to tell the user."""
    message = channel.recv(_MESSAGE_BYTES)
    if not message:
        raise MountError("the daemon has ended without a word; its last message may be in the log")
    said = json.loads(message)
    if "error" in said:
        raise ReportedError(said["error"], said["exit_code"])
    return said


def _run_inside(
    command: Command, directory: str, mask: set[signal.Signals | int], daemon_pid: int, *, own_processes: bool
) -> int:
    first = None
    if own_processes:
        namespace.enter_private_processes()
        first = _start_first_process()
    else:
        syscalls.adopt_orphans()

    def note_end(pid: int) -> None:
        if pid == daemon_pid:
            _log.warning("the daemon has ended; from now on %s does not answer (ENOTCONN)", CVMFS)

    try:
        return supervision.supervise(_start_command(command, directory, mask), note_end)
    finally:
        if first is not None:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):  # it may have been killed before
                os.kill(first, signal.SIGKILL)
                os.waitpid(first, 0)  # returns when all processes of its namespace are gone
        else:
            supervision.kill_children(spared=daemon_pid)


def _end_daemon(pid: int, kind: type[BaseException] | None, *_: object) -> None:
    """It ends by itself when its mounts are gone; when they never came it is told."""
    if kind is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    supervision.end_child(pid, _PATIENCE_S)


def _unmount(places: Sequence[Place]) -> None:
    """So that the daemon ends while the front still waits for it."""
    for place in places:
        with contextlib.suppress(OSError):  # it goes with the namespace anyway
            syscalls.unmount(f"{CVMFS}/{place.name}", lazily=True)


def _current_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # removed, or of a dead mount
        return "/"


# --- the children: none of them returns


def _be_daemon(daemon: Daemon, channel: socket.socket, front: int) -> NoReturn:
    code = 1
    try:
        os.setsid()  # what is typed at the terminal is not for it
        syscalls.die_with_parent(signal.SIGTERM)
        if os.getppid() == front:
            _redirect(0, 1)
            code = _serve(daemon, channel)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        _leave(code)


def _serve(daemon: Daemon, channel: socket.socket) -> int:
    try:
        places = daemon.plan()
        _send(channel, {"places": [(place.name, asdict(place.options)) for place in places]})
        message, fds, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES, len(places), socket.MSG_CMSG_CLOEXEC)
        if message:  # else the front has given up
            names = json.loads(message)
            handovers = [Handover(fd, f"{CVMFS}/{name}", Way.GIVEN) for name, fd in zip(names, fds, strict=True)]
            daemon.serve(handovers, lambda: _send(channel, {}))
    except CvmfsError as error:
        _send(channel, {"error": str(error), "exit_code": error.exit_code})
        return error.exit_code
    return 0


def _send(channel: socket.socket, message: Mapping[str, object]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the front is gone, and everything ends soon
        channel.send(json.dumps(message).encode())


def _start_first_process() -> int:
    """Process 1 of the namespace, once it has mounted its /proc."""
    said, saying = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(said)
            os.setsid()
            syscalls.die_with_parent(signal.SIGKILL)
            code = _be_first_process(saying)
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            _leave(code)
    os.close(saying)
    with os.fdopen(said, "rb") as pipe:
        trouble = pipe.read().decode()
    if trouble != "ready":
        os.waitpid(pid, 0)
        raise MountError(trouble or "process 1 of the namespace has ended at its start")
    return pid


def _be_first_process(saying: int) -> int:
    """Its signals are held, so that only the front can end it."""
    try:
        namespace.mount_own_proc()
    except MountError as error:
        os.write(saying, str(error).encode())
        return 1
    os.write(saying, b"ready")
    _redirect(0, 1, 2)
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing is closed already
            if int(name) > 2:
                os.close(int(name))
    while True:
        signal.sigwaitinfo({signal.SIGCHLD})
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0] != 0:
                pass


def _start_command(command: Command, directory: str, mask: set[signal.Signals | int]) -> int:
    """The child in which the command runs already; raises why it cannot."""
    go, going = os.pipe()
    said, saying = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(going)
            syscalls.die_with_parent(signal.SIGKILL)
            if os.read(go, 1):  # else the front died before this child could die with it
                supervision.restore_signals(mask)
                _execute(command, directory, saying)
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            _leave(127)
    for fd in (go, saying):
        os.close(fd)
    os.write(going, b"g")
    os.close(going)
    with os.fdopen(said, "rb") as pipe:
        trouble = pipe.read()
    if trouble:
        os.waitpid(pid, 0)
        found = json.loads(trouble)
        raise ReportedError(found["error"], found["exit_code"])
    return pid


def _execute(command: Command, directory: str, saying: int) -> None:
    """Returns only when it fails; the codes are those of env, nohup and the shells."""
    try:
        os.chdir(directory)
    except OSError:
        os.chdir("/")
    try:
        os.execvpe(command.words[0], list(command.words), dict(command.environment))
    except OSError as error:
        code = 127 if isinstance(error, FileNotFoundError | NotADirectoryError) else 126
        text = f"cannot run {command.words[0]}: {error.strerror}"
        os.write(saying, json.dumps({"error": text, "exit_code": code}).encode())


def _redirect(*fds: int) -> None:
    """Nobody waits for output that is held open by a process which writes none."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in fds:
        os.dup2(nothing, fd)
    if nothing not in fds:
        os.close(nothing)


def _leave(code: int) -> NoReturn:
    """Without what the caller of the front would do at its end."""
    sys.stderr.flush()
    os._exit(code)
