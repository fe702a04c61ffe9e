"""Standing between whoever started a command and the command: signals go down, stops and the ending come up.

The command shares the terminal and the process group, so that the terminal's own signals reach it without help: Ctrl-C
arrives once, and window sizes and job control are those of the terminal. What others send to this process is sent on.
When the command stops, so does this process, and the shell that started it takes over the terminal.

Concurrency: for a process with one thread, whose signals are blocked while it supervises.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FROM_KERNEL = 0x80  # si_code: nobody sent it, the terminal did
_OUR_OWN_FAULTS = {
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGTRAP,
    signal.SIGSYS,
    signal.SIGABRT,
    signal.SIGPIPE,
}
_RELAYED = signal.valid_signals() - _OUR_OWN_FAULTS - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}
_WATCHED = _RELAYED | {signal.SIGCHLD}


@contextlib.contextmanager
def held_signals() -> Iterator[set[signal.Signals | int]]:
    """Signals wait until they are asked for; yields the mask for a child that executes a command."""
    disposition = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # whoever ignored them would never hear of an ending
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    try:
        yield set(mask)
    finally:
        # What came together with the command's end was for the command: Ctrl-C must not end this process otherwise.
        while signal.sigtimedwait(_WATCHED, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGCHLD, disposition)


def restore_signals(mask: set[signal.Signals | int]) -> None:
    """Before exec: as programs expect to find them, without what Python changed for itself."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def supervise(command: int, note_end: Callable[[int], None]) -> int:
    """Waits for a child with signals held: its exit code, or the negative number of the signal that ended it.

    Other children are reaped as they end, and noted.
    """
    while True:
        code = _reap(command, note_end)
        if code is not None:
            return code
        info = signal.sigwaitinfo(_WATCHED)
        if info.si_signo != signal.SIGCHLD:
            _relay(command, info)


def end_child(pid: int, patience_s: float) -> None:
    """Waits for a child that is about to end; asks it to, and then makes it. Signals are held."""
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            if number is not None:
                os.kill(pid, number)
        if _has_ended(pid, patience_s):
            return


def children() -> set[int]:
    """From the list of all processes: not every kernel keeps one of children."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                if int(file.read().rpartition(b")")[2].split()[1]) == os.getpid():
                    found.add(int(name))
    return found


def kill_children(spared: set[int]) -> None:
    """Kills all other children, and theirs, which become ours as their parents end."""
    spared = set(spared)
    while orphans := children() - spared:
        for pid in orphans:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (PermissionError, ProcessLookupError, ChildProcessError):
                spared.add(pid)


def end_alike(code: int) -> int:
    """Ends this process by the signal that ended the command, so that scripts and shells see it; or gives the code."""
    if code >= 0:
        return code
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the command has dumped its core, this process has none to show
    with contextlib.suppress(OSError):
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
    return 128 - code


def _reap(command: int, note_end: Callable[[int], None]) -> int | None:
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        if pid == 0:
            return None
        if os.WIFSTOPPED(status):
            if pid == command:
                os.kill(os.getpid(), signal.SIGSTOP)
        elif pid == command:
            return os.waitstatus_to_exitcode(status)
        else:
            note_end(pid)


def _relay(command: int, info: signal.struct_siginfo) -> None:
    with contextlib.suppress(ProcessLookupError):
        if info.si_code == _FROM_KERNEL and os.getpgid(command) == os.getpgrp():
            return  # the command has got it as well
        os.kill(command, info.si_signo)


def _has_ended(pid: int, patience_s: float) -> bool:
    end_s = time.monotonic() + patience_s
    while True:
        try:
            if os.waitpid(pid, os.WNOHANG)[0] == pid:
                return True
        except ChildProcessError:
            return True  # it was reaped while the command ran
        left_s = end_s - time.monotonic()
        if left_s <= 0:
            return False
        signal.sigtimedwait({signal.SIGCHLD}, left_s)
