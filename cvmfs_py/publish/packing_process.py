"""The packing processes: starts them, gives each the next task, collects answers. And what runs inside of one.

They are new interpreters, not forks: they hold little memory, and the program that starts them may have threads.
Knows nothing of the tasks. Concurrency: one thread at each end.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections import deque
from typing import TYPE_CHECKING, Protocol

from cvmfs_py.errors import PublishError
from cvmfs_py.publish.channel import Channel
from cvmfs_py.publish.object_maker import ObjectMaker
from cvmfs_py.publish.packing_work import CUT, PackingWork
from cvmfs_py.publish.recent_contents import RecentContents, new_table
from cvmfs_py.publish.storage import Storage

if TYPE_CHECKING:
    from cvmfs_py.publish.compression import Bytes
    from cvmfs_py.publish.packing_work import Answer, Task

_DEPTH = 2  # tasks a process has at once: one in work, one so that it need not wait
_END_WAIT_S = 10.0
_PROGRAM = "import sys; sys.path[:] = sys.argv[4:]; from cvmfs_py.publish.packing_process import serve; serve()"


class Crew(Protocol):
    """Whoever does tasks."""

    def has_place(self, *, idle: bool) -> bool:
        """Whether a task can be sent now; `idle`: to a process that has nothing to do."""

    def send(self, task: Task, payload: Bytes) -> None: ...

    def receive(self, *, wait: bool) -> list[Answer]:
        """Answers that are there; `wait` for at least one. Empty when there are none to wait for."""

    def close(self) -> None: ...

    def kill(self) -> None: ...


class LocalCrew:
    """Does every task at once and in this process."""

    def __init__(self, storage: Storage) -> None:
        self._work = PackingWork(storage, ObjectMaker(storage))
        self._answers: list[Answer] = []

    def has_place(self, *, idle: bool) -> bool:
        return True

    def send(self, task: Task, payload: Bytes) -> None:
        self._answers += self._work.answers(task, payload)

    def receive(self, *, wait: bool) -> list[Answer]:
        answers, self._answers = self._answers, []
        return answers

    def close(self) -> None:
        self._answers.clear()

    kill = close


class _Member:
    """One process, and how many of its tasks are not done."""

    def __init__(self, storage: Storage, table_fd: int) -> None:
        ours, theirs = socket.socketpair()
        self.channel = Channel(ours)
        self.open_tasks = 0
        arguments = [os.fspath(storage.directory), str(theirs.fileno()), str(table_fd), *sys.path]
        with theirs:
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-I", "-c", _PROGRAM, *arguments],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), table_fd),
                )
            except OSError as error:
                ours.close()
                raise PublishError(f"a packing process cannot be started: {error.strerror}") from error
            except BaseException:  # interrupted
                ours.close()
                raise


class ProcessCrew:
    """Processes on this machine."""

    def __init__(self, storage: Storage, count: int) -> None:
        self._poll = select.poll()
        self._members: dict[int, _Member] = {}
        table_fd = new_table()
        try:
            for _ in range(count):
                member = _Member(storage, table_fd)
                self._members[member.channel.fileno()] = member
                self._poll.register(member.channel.fileno(), select.POLLIN)
        except BaseException:
            self.kill()
            raise
        finally:
            os.close(table_fd)

    def has_place(self, *, idle: bool) -> bool:
        limit = 1 if idle else _DEPTH
        return any(member.open_tasks < limit for member in self._members.values())

    def send(self, task: Task, payload: Bytes) -> None:
        member = min(self._members.values(), key=lambda member: member.open_tasks)
        member.open_tasks += 1
        try:
            member.channel.send(task, payload)
        except EOFError:
            raise self._died(member) from None

    def receive(self, *, wait: bool) -> list[Answer]:
        answers: deque[Answer] = deque()
        waiting = [member for member in self._members.values() if member.channel.has_received]
        if not waiting and any(member.open_tasks for member in self._members.values()):
            waiting = [self._members[fd] for fd, _ in self._poll.poll(None if wait else 0)]
        for member in waiting:
            try:
                answer, _ = member.channel.receive()
            except EOFError:
                raise self._died(member) from None
            answers.append(answer)
            member.open_tasks -= answer[1] != CUT
        return list(answers)

    def close(self) -> None:
        """Lets the processes end; they have nothing left to do."""
        for member in self._members.values():
            member.channel.close()
        for member in self._members.values():
            try:
                member.process.wait(_END_WAIT_S)
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait()
        self._members.clear()

    def kill(self) -> None:
        """Ends the processes in the middle of what they do."""
        for member in self._members.values():
            member.process.kill()
        self.close()

    def _died(self, member: _Member) -> PublishError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            member.process.wait(_END_WAIT_S)
        code = member.process.returncode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        return PublishError(f"a packing process {how}; was there enough memory? Publish again")


def serve() -> None:
    """The main loop of a packing process: until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program that started it decides
    storage = Storage(sys.argv[1])
    channel = Channel(socket.socket(fileno=int(sys.argv[2])))
    table_fd = int(sys.argv[3])
    work = PackingWork(storage, ObjectMaker(storage, RecentContents(table_fd)))
    os.close(table_fd)
    with contextlib.suppress(EOFError):
        while True:
            task, payload = channel.receive()
            for answer in work.answers(task, payload):
                channel.send(answer)
