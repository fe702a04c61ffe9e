"""Runs parts of a test in a child process: as root, or as an ordinary user, and away from the test's own descriptors.

The child is forked and executes nothing: an ordinary user may not be able to reach the interpreter of the tests.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import pickle
import pwd
import shutil
import signal
import tempfile
import time
import traceback
from typing import TYPE_CHECKING, Any, TypeVar

from cvmfs_py.fuse import syscalls
from cvmfs_py.fuse.mountinfo import load_mounts
from tests.mount.limits import become
from tests.mount.tiny_fuse import serve
from tests.rights import NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
codecs.lookup("ascii")  # loaded when it is first used, and an ordinary user may not be able to read it


def _ordinary_user() -> int:
    """The first account of most machines; fusermount3 serves nobody without a name, and a new machine has no other."""
    try:
        return pwd.getpwuid(1000).pw_uid
    except KeyError:
        return NOBODY


USER = _ordinary_user()
_DEADLINE_S = 60


def run_as(uid: int, function: Callable[[], T]) -> T:
    """What the function returns or raises in a child of that user. All its processes are gone afterwards."""
    with tempfile.TemporaryFile() as answer:  # a pipe would stay open as long as any of its processes
        pid = os.fork()
        if pid == 0:
            os.setsid()
            signal.signal(signal.SIGINT, signal.default_int_handler)  # tests started in the background ignore it
            signal.alarm(_DEADLINE_S)
            os.write(answer.fileno(), pickle.dumps(_outcome(uid, function)))
            os._exit(0)
        os.waitpid(pid, 0)
        answer.seek(0)
        outcome = answer.read()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    assert outcome, "the child ended without an answer"
    value, error = pickle.loads(outcome)
    if error is not None:
        raise error
    return value


def _outcome(uid: int, function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        if uid != os.geteuid():
            become(uid)
        os.chdir("/")
        return function(), None
    except BaseException as error:  # noqa: BLE001  # it is raised again, in the parent
        error.add_note(traceback.format_exc())
        return None, error


def start_server(*fds: int) -> int:
    """A process that serves mounts, alone: (pid). The descriptors are closed here."""
    pid = os.fork()
    if pid == 0:
        try:
            for fd in fds:
                serve(fd)
        finally:
            os._exit(0)
    for fd in fds:
        os.close(fd)
    return pid


def end(pid: int, number: int = signal.SIGKILL) -> None:
    """Kills a child and waits for it."""
    os.kill(pid, number)
    os.waitpid(pid, 0)


def wait_until(condition: Callable[[], bool], limit_s: float = 20) -> bool:
    """Whether it becomes true in time."""
    end_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.01)
    return True


@contextlib.contextmanager
def directory_of(uid: int) -> Iterator[str]:
    """A directory that its user reaches, free of mounts at the end."""
    top = tempfile.mkdtemp(prefix="cvmfs-py test ", dir="/tmp")
    os.chown(top, uid, uid if uid != os.geteuid() else -1)
    try:
        yield top
    finally:
        left = [mount.mountpoint for mount in load_mounts() if mount.mountpoint.startswith(top)]
        for place in reversed(left):
            syscalls.unmount(place, lazily=True)
        shutil.rmtree(top)
