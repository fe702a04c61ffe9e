"""Starts the daemon of a mount in the background, and waits until it says that it is ready or why it will not be.

The caller gets the daemon's own exit code and message, whether it told them, raised an error, was killed or took too
long. The daemon has no terminal, no descriptors of its caller but those that it is given, `/` as current directory, and
its standard error goes to its log.

Concurrency: to be called by a process with one thread and without an event loop, because it forks. The caller may be
killed while it waits; the daemon goes on. Interrupting the caller (Ctrl-C) ends the daemon.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import select
import signal
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from cvmfs_py import logs
from cvmfs_py.errors import CvmfsError, MountError
from cvmfs_py.mount import daemon_log

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from cvmfs_py.mount.waiting import Line

EXIT_MOUNT = 3
EXIT_OTHER = 5
END_LIMIT_S = 3.0  # for ending by itself, and again for doing so when told
MASK = 0o022
_TEXT_LIMIT = 2000  # at most twelve bytes each: with all notes less than a pipe holds, so that no reader is waited for
_NOTES_LIMIT_BYTES = 32 << 10
_SILENCE_S = 1.0  # of a daemon that has no words for what it waits for


class DaemonError(MountError):
    """The daemon did not become ready; with the exit code that it would have ended with in the foreground."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Failure:
    """What an error means to the caller of a command."""

    exit_code: int
    message: str


class Announcer:
    """The daemon's side: says once that it is ready, or why it never will be. What nobody hears any more is lost."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._notes_bytes = 0

    def tell(self, text: str) -> None:
        """For the user, while it is not ready: a warning, or how far it is."""
        data = _encode({"note": text[:_TEXT_LIMIT]})
        if self._notes_bytes + len(data) <= _NOTES_LIMIT_BYTES:
            self._notes_bytes += len(data)
            self._send(data)

    @property
    def is_heard(self) -> bool:
        """Whether somebody waits still."""
        return self._fd >= 0

    def tell_wait(self, text: str) -> None:
        """What is waited for at this moment, or nothing; only as much as somebody reads."""
        data = _encode({"wait": text[:_TEXT_LIMIT]})
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        if len(data) <= select.PIPE_BUF and poll.poll(0):  # then it is taken whole, and at once
            self._send(data)

    def ready(self, message: str = "") -> None:
        """The mount answers: the caller may go on."""
        self._send(_encode({"ready": message[:_TEXT_LIMIT]}))
        self.close()

    def fail(self, failure: Failure) -> None:
        self._send(_encode({"failed": failure.message[:_TEXT_LIMIT], "exit_code": failure.exit_code}))
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _send(self, data: bytes) -> None:
        if self._fd < 0:
            return
        with suppress(BrokenPipeError):  # SIGPIPE is ignored by Python
            while data:
                data = data[os.write(self._fd, data) :]


def _encode(value: dict[str, object]) -> bytes:
    return json.dumps(value).encode() + b"\n"


class ForegroundAnnouncer(Announcer):
    """For a daemon that stays in the foreground: its words go to standard error and output."""

    def __init__(self, line: Line | None = None) -> None:
        """`line` shows what is waited for until it is ready."""
        super().__init__(-1)
        self._line = line
        self._is_ready = False

    @property
    def is_heard(self) -> bool:
        return not self._is_ready

    def tell_wait(self, text: str) -> None:
        if self._line is not None:
            self._line.offer(text)

    def tell(self, text: str) -> None:
        print(f"cvmfs-py: {text}", file=sys.stderr, flush=True)

    def ready(self, message: str = "") -> None:
        self._is_ready = True
        if self._line is not None:
            self._line.withdraw()
        if message:
            print(message, flush=True)


def explain(error: BaseException) -> Failure:
    """Errors of this program speak for themselves."""
    if isinstance(error, CvmfsError):
        return Failure(error.exit_code, str(error))
    if isinstance(error, OSError) and error.strerror:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return Failure(EXIT_OTHER, where + error.strerror)
    return Failure(EXIT_OTHER, f"internal error, please report it: {type(error).__name__}: {error}")


def start_daemon(
    work: Callable[[Announcer], int],
    *,
    deadline_s: float,
    log: daemon_log.LogPlace,
    kept_fds: Collection[int] = (),
    explain: Callable[[BaseException], Failure] = explain,
    hear: Callable[[str], None] = lambda text: None,
    hear_wait: Callable[[str], None] = lambda text: None,
) -> str:
    """Runs `work` in a daemon; returns its words once it is ready. DaemonError when it does not become so in time.

    `work` gets the announcer and returns the daemon's exit code. `explain` makes words of what it raises, `hear` gets
    what it tells before it is ready, `hear_wait` several times a second what it waits for.
    """
    _check_threads()
    sys.stdout.flush()
    sys.stderr.flush()
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_fd)
        _become_daemon(work, Announcer(write_fd), log, kept_fds, explain)
    os.close(write_fd)
    try:
        return _wait(pid, read_fd, deadline_s, log, hear, hear_wait)
    except KeyboardInterrupt:
        _end(pid, at_once=True)
        raise
    finally:
        os.close(read_fd)


# the caller's side


def _wait(
    pid: int,
    read_fd: int,
    deadline_s: float,
    log: daemon_log.LogPlace,
    hear: Callable[[str], None],
    hear_wait: Callable[[str], None],
) -> str:
    deadline = time.monotonic() + deadline_s
    poll = select.poll()
    poll.register(read_fd, select.POLLIN)
    last = ""
    pending = b""
    while True:
        left_s = max(0.0, deadline - time.monotonic())
        if not poll.poll(min(left_s, _SILENCE_S) * 1000):
            if left_s > _SILENCE_S:
                hear_wait(f"waiting for the daemon (process {pid})")
                continue
            _end(pid, at_once=True)
            raise DaemonError(EXIT_MOUNT, f"not ready after {deadline_s:g} s{_hint(last, log)}")
        data = os.read(read_fd, 65536)
        if not data:
            break
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            value = json.loads(line)
            if "ready" in value:
                return str(value["ready"])
            if "failed" in value:
                _end(pid)
                raise DaemonError(int(value["exit_code"]), str(value["failed"]))
            if "wait" in value:
                hear_wait(str(value["wait"]))
                continue
            last = str(value["note"])
            hear(last)
    # All that could tell anything is gone.
    code = _end(pid)
    how = f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
    raise DaemonError(EXIT_MOUNT, f"the daemon {how} before it was ready{_hint(last or log.last_line(), log)}")


def _hint(last: str, log: daemon_log.LogPlace) -> str:
    text = f"; its last message: {last}" if last else ""
    return text + (f" (log: {os.fsdecode(log.path)})" if log.path is not None else "")


def _end(pid: int, *, at_once: bool = False) -> int:
    """Makes sure that the daemon has ended, by itself if there is time; its exit code, or minus a signal's number."""
    for number in (signal.SIGTERM,) if at_once else (None, signal.SIGTERM):
        if number is not None:
            os.kill(pid, number)
        deadline = time.monotonic() + END_LIMIT_S
        pause_s = 0.001
        while time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.05)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _check_threads() -> None:
    """A fork copies one thread only: what the others hold would be held for ever."""
    count = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1
    if count > 1:
        raise RuntimeError(f"a daemon must be started before any thread is, and there are {count}")


# the daemon's side


def _become_daemon(
    work: Callable[[Announcer], int],
    announcer: Announcer,
    log: daemon_log.LogPlace,
    kept_fds: Collection[int],
    explain: Callable[[BaseException], Failure],
) -> NoReturn:
    """Never returns: what the caller has still to do, such as removing its files, is not the daemon's."""
    code = EXIT_OTHER
    try:
        os.setsid()
        os.umask(MASK)
        os.chdir("/")
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        close_inherited(kept_fds)
        _replace_streams(kept_fds)
        daemon_log.start(log, [fd for fd in (1, 2) if fd not in kept_fds])
        logging.getLogger().addHandler(_Telling(announcer))
        code = work(announcer)
    except BaseException as error:
        failure = explain(error)
        code = failure.exit_code
        if not isinstance(error, CvmfsError):
            traceback.print_exc()
        announcer.fail(failure)
        raise
    finally:
        daemon_log.finish()
        os._exit(code)


class _Telling(logging.Handler):
    """Warnings reach the user as long as somebody waits for the daemon."""

    def __init__(self, announcer: Announcer) -> None:
        super().__init__(logging.WARNING)
        self._announcer = announcer

    def filter(self, record: logging.LogRecord) -> bool:
        """A server that was left for another one is no news while the other one answers; an error names all."""
        if logs.is_known(record):
            return False
        return not record.name.startswith("cvmfs_py.network") and super().filter(record) is not False

    def emit(self, record: logging.LogRecord) -> None:
        self._announcer.tell(" ".join(record.getMessage().split()))


def close_inherited(kept_fds: Collection[int]) -> None:
    """Closes what came from the program that started this one, but standard streams and what is to be kept.

    Python marks whatever it opens itself as not for other programs; what has no such mark was handed in.
    """
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd <= 2 or fd in kept_fds:
            continue
        with suppress(OSError):  # the listing's own, which is closed already
            if not fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                os.close(fd)


def _replace_streams(kept_fds: Collection[int]) -> None:
    """Standard streams lead nowhere; the log takes over those for output."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        if fd not in kept_fds:
            os.dup2(null, fd)
    if null > 2:
        os.close(null)
