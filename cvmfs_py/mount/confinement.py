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
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from cvmfs_py.errors import CvmfsError, MountError
from cvmfs_py.fuse import syscalls
from cvmfs_py.fuse.handover import Handover, MountOptions, Way, mount_directly
from cvmfs_py.mount import child, first_process, namespace, supervision
from cvmfs_py.mount.private_root import CVMFS, provide_places

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Mask: TypeAlias = "set[signal.Signals | int]"

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

    name: str  # empty: /cvmfs itself
    options: MountOptions

    @property
    def path(self) -> str:
        return f"{CVMFS}/{self.name}" if self.name else CVMFS


@dataclass(frozen=True, slots=True)
class Command:
    """What to run inside."""

    words: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    # None: where /proc can be had for it. Otherwise the command sees the processes of the machine.
    own_processes: bool | None = None


class Daemon(Protocol):
    """The part that knows repositories. The methods run in the daemon's process.

    What `plan` and `serve` raise is put into words by `explain`: until `ready`, the front raises it again.
    """

    def plan(self) -> Sequence[Place]:
        """What is to be mounted. Nothing is mounted yet; errors end everything, and are told to the user."""
        ...

    def serve(self, handovers: Sequence[Handover], ready: Callable[[], None]) -> None:
        """Answers the kernel until all mounts are gone, or SIGTERM; calls `ready` when the command may start."""
        ...

    def explain(self, error: BaseException) -> tuple[str, int]:
        """One line for the user, and the exit code."""
        ...


def run(daemon: Daemon, command: Command) -> int:
    """The command's exit code, or the negative number of the signal that ended it."""
    directory = _current_directory()
    strangers = supervision.children()  # of what this process was before it became this program
    with contextlib.ExitStack() as undo:
        ours, daemon_pid = _start_daemon(daemon)
        mask = undo.enter_context(supervision.held_signals())
        undo.push(partial(_end_daemon, daemon_pid))
        undo.enter_context(ours)
        with _interruptible(mask):
            places = [Place(name, MountOptions(**options)) for name, options in _receive(ours)["places"]]
            namespace.enter_private_mounts()
            provide_places(place.name for place in places)
            undo.callback(_unmount, places)
            _mount_and_send(places, ours)
            own_processes = command.own_processes
            if own_processes is None:
                own_processes = namespace.may_have_own_processes()
            _receive(ours)
        if own_processes:
            return _run_among_own(command, directory, mask, daemon_pid)
        return _run_among_all(command, directory, mask, daemon_pid, strangers)


# --- the front


@contextlib.contextmanager
def _interruptible(mask: Mask) -> Any:
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
            fds.append(mount_directly(place.path, place.options).fd)
        socket.send_fds(channel, [json.dumps([place.path for place in places]).encode()], fds)
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


def _run_among_own(command: Command, directory: str, mask: Mask, daemon_pid: int) -> int:
    namespace.enter_private_processes()
    first = first_process.start()
    ended: set[int] = set()
    try:
        return supervision.supervise(_start_command(command, directory, mask), _noting(ended, daemon_pid))
    finally:
        if first not in ended:
            os.kill(first, signal.SIGKILL)
            child.code_of(first)  # comes when all processes of its namespace are gone


def _run_among_all(command: Command, directory: str, mask: Mask, daemon_pid: int, strangers: set[int]) -> int:
    syscalls.adopt_orphans()
    try:
        return supervision.supervise(_start_command(command, directory, mask), _noting(set(), daemon_pid))
    finally:
        supervision.kill_children(spared={daemon_pid, *strangers})


def _noting(ended: set[int], daemon_pid: int) -> Callable[[int], None]:
    def note_end(pid: int) -> None:
        ended.add(pid)
        if pid == daemon_pid:
            _log.warning("the daemon has ended; from now on %s does not answer (ENOTCONN)", CVMFS)

    return note_end


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
            syscalls.unmount(place.path, lazily=True)


def _current_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # removed, or of a dead mount
        return "/"


# --- the children


def _start_daemon(daemon: Daemon) -> tuple[socket.socket, int]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    front = os.getpid()
    is_ready = False

    def say_ready() -> None:
        nonlocal is_ready
        is_ready = True
        _send(theirs, {})

    def body() -> int:
        ours.close()
        os.setsid()  # what is typed at the terminal is not for it
        syscalls.die_with_parent(signal.SIGTERM)
        if os.getppid() != front:
            return 1  # the front ended before the daemon could be told
        child.silence(0, 1)
        return _serve(daemon, theirs, say_ready)

    def fail(error: BaseException) -> int:
        if isinstance(error, KeyboardInterrupt):
            return 130  # the front was interrupted as well
        text, code = daemon.explain(error)
        if not _send(theirs, {"error": text, "exit_code": code}) or is_ready:
            _log.error("the daemon: %s", text)  # nobody waits for its word any more
        return code

    pid = child.fork(body, fail)
    theirs.close()
    return ours, pid


def _serve(daemon: Daemon, channel: socket.socket, say_ready: Callable[[], None]) -> int:
    places = daemon.plan()
    _send(channel, {"places": [(place.name, asdict(place.options)) for place in places]})
    message, fds, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES, len(places), socket.MSG_CMSG_CLOEXEC)
    if message:  # else the front has given up
        paths = json.loads(message)
        handovers = [Handover(fd, path, Way.GIVEN) for path, fd in zip(paths, fds, strict=True)]
        daemon.serve(handovers, say_ready)
    return 0


def _send(channel: socket.socket, message: Mapping[str, object]) -> bool:
    """False: the front is gone, and everything ends soon."""
    try:
        channel.send(json.dumps(message).encode())
    except BrokenPipeError:
        return False
    return True


def _start_command(command: Command, directory: str, mask: Mask) -> int:
    """The child in which the command runs already; raises why it cannot."""
    go, going = os.pipe()
    said, saying = os.pipe()

    def body() -> int:
        os.close(going)
        syscalls.die_with_parent(signal.SIGKILL)
        if os.read(go, 1):  # else the front ended before this child could end with it
            supervision.restore_signals(mask)
            _execute(command, directory, saying)
        return 127

    pid = child.fork(body)
    for fd in (go, saying):
        os.close(fd)
    os.write(going, b"g")
    os.close(going)
    with os.fdopen(said, "rb") as pipe:
        trouble = pipe.read()
    if trouble:
        child.code_of(pid)
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
