"""Commands in namespaces of their own: what they see, how signals and endings pass, and that nothing stays behind."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import termios
import time
from typing import TYPE_CHECKING, Any

import pytest

from cvmfs_py.errors import MountError, Refusal, TrustError
from cvmfs_py.fuse.mountinfo import load_mounts
from cvmfs_py.mount.confinement import Command, ReportedError, run
from cvmfs_py.mount.namespace import enter_private_mounts
from cvmfs_py.mount.private_root import CVMFS, provide_places
from cvmfs_py.mount.supervision import end_alike
from tests.mount.confined import TinyDaemon, descendants, ending, family, has_vanished, start
from tests.mount.limits import OF_CONTAINERS, keep_capabilities
from tests.mount.people import USER, directory_of, run_as, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.needs("other users")
pytestmark = [
    pytest.mark.needs("mount namespaces"),
    pytest.mark.needs("fuse"),
]
WAITING = "echo up > up; while :; do sleep 0.05; done"


@pytest.fixture(
    params=[pytest.param(0, marks=needs_root, id="root"), pytest.param(USER if IS_ROOT else os.geteuid(), id="user")]
)
def uid(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(params=[True, False], ids=["own processes", "shared processes"])
def own(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def place(uid: int) -> Iterator[str]:
    with directory_of(uid) as path:
        yield path
    assert not [mount for mount in load_mounts() if mount.mountpoint.startswith(f"{CVMFS}/a.cern.ch")]


def inside(place: str, script: str, own: bool | None, daemon: TinyDaemon | None = None) -> tuple[int, str]:
    """The ending and the output of a script that ends by itself."""
    os.chdir(place)
    code = ending(start(f"exec > out 2>&1; {script}", own_processes=own, daemon=daemon))
    with open(f"{place}/out") as file:
        return code, file.read()


def started(place: str, script: str, own: bool | None) -> int:
    """The front of a script that has said that it is up."""
    os.chdir(place)
    front = start(script, own_processes=own)
    assert wait_until(lambda: os.path.exists(f"{place}/up") and os.path.getsize(f"{place}/up") > 0)
    return front


def write(path: str) -> None:
    with open(path, "w") as file:
        file.write("go")


def text_of(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return ""


# --- what is inside


def test_the_command_is_its_user_and_sees_its_repositories(uid: int, own: bool, place: str) -> None:
    def work() -> tuple[int, str]:
        script = """id -u; id -g; pwd; ls /cvmfs; cat /cvmfs/*/hello; /cvmfs/b.cern.ch/tool x
            grep CapEff /proc/self/status; echo $$; test -d "$HOME" -o true; exit 7"""
        return inside(place, script, own, TinyDaemon("a.cern.ch", "b.cern.ch"))

    code, text = run_as(uid, work)
    lines = text.splitlines()
    assert code == 7
    assert lines[:5] == [str(uid), str(uid), place, "a.cern.ch", "b.cern.ch"]
    assert lines[5:8] == ["hello, world", "hello, world", f"tool of {uid} x"]
    capabilities = int(lines[8].split()[1], 16)
    assert bool(capabilities) is (uid == 0)
    assert (int(lines[9]) < 10) is own


def test_nothing_stays_behind_of_a_command_that_leaves_children(uid: int, own: bool, place: str) -> None:
    def work() -> int:
        script = "sleep 1000 & (setsid sh -c 'sleep 1000 & echo up > up; sleep 1000' &); until test -s go; do :; done"
        front = started(place, script, own)
        around = descendants(front)
        assert len(around) >= (7 if own else 6)
        write("go")
        code = ending(front)
        assert has_vanished(around)
        return code

    assert run_as(uid, work) == 0


def test_processes_that_were_there_before_are_spared(uid: int, own: bool, place: str) -> None:
    """A shell may have started something, and then have become this program."""

    def work() -> None:
        os.chdir(place)
        before = os.fork()
        if before == 0:
            signal.pause()
        assert run(TinyDaemon("a.cern.ch"), Command(["true"], own_processes=own)) == 0
        assert os.waitpid(-1, os.WNOHANG) == (0, 0)  # a living child; a second wait will find no other
        os.kill(before, signal.SIGUSR1)
        assert os.wait() == (before, signal.SIGUSR1)
        with pytest.raises(ChildProcessError):
            os.wait()

    run_as(uid, work)


@pytest.mark.parametrize(
    ("word", "code", "text"),
    [
        ("no-such-program", 127, "cannot run no-such-program: No such file or directory"),
        ("./text", 126, "cannot run ./text: Permission denied"),
        ("./text/below", 127, "cannot run ./text/below: Not a directory"),
        ("/cvmfs/a.cern.ch/hello", 126, "cannot run /cvmfs/a.cern.ch/hello: Permission denied"),
    ],
)
def test_a_command_that_cannot_be_run(uid: int, own: bool, word: str, code: int, text: str, place: str) -> None:
    with open(f"{place}/text", "w"):
        pass
    # A directory of the test's own PATH may be closed to that user, and would be the reason then.
    command = Command([word], {"PATH": "/usr/bin:/bin"}, own)
    assert run_as(uid, lambda: reason(place, TinyDaemon("a.cern.ch"), command)) == (
        code,
        text,
    )


def reason(place: str, daemon: TinyDaemon, command: Command) -> tuple[int, str]:
    """Why a command was not run, and that nothing is left of the attempt."""
    os.chdir(place)
    with pytest.raises((MountError, ReportedError)) as caught:
        run(daemon, command)
    with pytest.raises(ChildProcessError):  # there are no children
        os.wait()
    return caught.value.exit_code, str(caught.value)


@needs_root
def test_root_of_a_container_needs_no_capability_for_mounts() -> None:
    def work() -> tuple[int, str]:
        keep_capabilities(*OF_CONTAINERS)
        return inside(place, "id -u; cat /cvmfs/a.cern.ch/hello; grep -c . /proc/self/uid_map", None)

    with directory_of(0) as place:
        assert run_as(0, work) == (0, "0\nhello, world\n1\n")


def test_confined_commands_can_be_nested(uid: int, place: str) -> None:
    def work() -> None:
        inner = TinyDaemon("inner.cern.ch")
        os.chdir(place)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                enter_private_mounts()
                provide_places(["outer.cern.ch"])
                os.chdir(place)
                code = run(inner, Command(["sh", "-c", "ls /cvmfs > out"], own_processes=True))
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert text_of("out") == "inner.cern.ch\n"

    run_as(uid, work)


# --- why nothing was started


class BrokenDaemon(TinyDaemon):
    """Fails in one of the ways in which daemons fail."""

    def __init__(self, way: str) -> None:
        super().__init__("a.cern.ch")
        self.way = way

    def plan(self) -> Any:
        if self.way == "trust":
            raise TrustError(Refusal.WHITELIST_EXPIRED, "the whitelist has expired")
        if self.way == "hangs":
            os.close(os.open("up", os.O_CREAT | os.O_WRONLY))
            signal.pause()
        if self.way == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().plan()

    def serve(self, handovers: Any, ready: Any) -> None:
        if self.way == "no answer":
            raise MountError("no server answers")
        os._exit(9)


@pytest.mark.parametrize(
    ("way", "code", "words"),
    [
        ("trust", 4, "the whitelist has expired"),
        ("no answer", 3, "no server answers"),
        ("killed", 3, "has ended without a word"),
        ("gone", 3, "has ended without a word"),
    ],
)
def test_the_daemons_reasons_come_back(uid: int, way: str, code: int, words: str, place: str) -> None:
    told, text = run_as(uid, lambda: reason(place, BrokenDaemon(way), Command(["touch", "ran"])))
    assert told == code
    assert words in text
    assert not os.path.exists(f"{place}/ran")


def test_a_daemon_that_hangs_can_be_interrupted(uid: int, place: str) -> None:
    def work() -> None:
        os.chdir(place)
        front = start("true", own_processes=None, daemon=BrokenDaemon("hangs"))
        assert wait_until(lambda: os.path.exists("up"))
        around = descendants(front)
        os.kill(front, signal.SIGINT)
        ending(front)
        assert len(around) == 1
        assert has_vanished(around)

    run_as(uid, work)


# --- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGRTMIN])
def test_signals_reach_the_command(uid: int, own: bool, number: int, place: str) -> None:
    def work() -> int:
        front = started(place, f"exec sh -c '{WAITING}'", own)
        os.kill(front, number)
        return ending(front)

    assert run_as(uid, work) == -number


def test_a_command_may_answer_a_signal_in_its_own_way(uid: int, own: bool, place: str) -> None:
    def work() -> int:
        front = started(place, f"trap 'echo term >> got; exit 5' TERM; {WAITING}", own)
        os.kill(front, signal.SIGTERM)
        return ending(front)

    assert run_as(uid, work) == 5
    assert text_of(f"{place}/got") == "term\n"


def test_a_process_can_end_as_its_command_did() -> None:
    pid = os.fork()
    if pid == 0:
        try:
            end_alike(-signal.SIGINT)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGINT
    assert end_alike(7) == 7


# --- the terminal


def at_terminal(place: str, script: str, own: bool) -> tuple[int, int]:
    """A front in front of a terminal, as a shell would start it: (front, the other end of the terminal)."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(slave, fd)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.chdir(place)
    front = start(f"until test -s go; do :; done; {script}", own_processes=own, in_front=True)
    assert wait_until(lambda: os.getpgid(front) == front)
    os.tcsetpgrp(0, front)
    write("go")
    assert wait_until(lambda: text_of("up") != "")
    return front, master


def test_ctrl_c_arrives_once_and_window_sizes_arrive(uid: int, own: bool, place: str) -> None:
    def work() -> int:
        script = f"trap 'echo int >> got' INT; trap 'stty size >> got' WINCH; trap 'exit 3' TERM; {WAITING}"
        front, master = at_terminal(place, script, own)
        os.write(master, b"\x03")
        assert wait_until(lambda: "int" in text_of("got"))
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
        assert wait_until(lambda: "33 99" in text_of("got"))
        time.sleep(0.3)  # for what should not come
        os.kill(front, signal.SIGTERM)
        return ending(front)

    assert run_as(uid, work) == 3
    assert text_of(f"{place}/got") == "int\n33 99\n"


def test_ctrl_z_stops_the_front_and_it_goes_on(uid: int, own: bool, place: str) -> None:
    def work() -> int:
        # A shell in a loop may be stopped between vfork and exec of a child, and then waits for it unstoppably.
        front, master = at_terminal(place, "echo up > up; exec sleep 1000", own)
        assert wait_until(lambda: "sleep" in text_of(f"/proc/{family(front)['command']}/comm"))
        command = family(front)["command"]
        os.write(master, b"\x1a")
        for _ in range(2):
            _, status = os.waitpid(front, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            assert state_of(command) == "T"
            os.killpg(front, signal.SIGCONT)
            assert wait_until(lambda: state_of(command) in "SR")
            os.kill(front, signal.SIGTSTP)  # the second time from somebody else
        os.waitpid(front, os.WUNTRACED)
        os.killpg(front, signal.SIGCONT)
        os.write(master, b"\x03")
        return ending(front)

    assert run_as(uid, work) == -signal.SIGINT


def state_of(pid: int) -> str:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0].decode()


# --- kill -9


@pytest.mark.parametrize("victim", ["front", "command", "first"])
def test_of_own_processes_nothing_stays_behind(uid: int, victim: str, place: str) -> None:
    def work() -> int:
        front = started(place, f"sleep 1000 & (setsid sleep 1000 &); {WAITING}", own=True)
        around = descendants(front)
        os.kill({"front": front, **family(front)}[victim], signal.SIGKILL)
        code = ending(front)
        assert wait_until(lambda: has_vanished(around))
        return code

    assert run_as(uid, work) == -signal.SIGKILL


@pytest.mark.parametrize("victim", ["front", "command"])
def test_of_shared_processes_the_command_and_the_daemon_end(uid: int, victim: str, place: str) -> None:
    def work() -> int:
        front = started(place, WAITING, own=False)
        around = list(family(front).values())
        assert len(around) == 2
        os.kill({"front": front, **family(front)}[victim], signal.SIGKILL)
        code = ending(front)
        assert wait_until(lambda: has_vanished(around))
        return code

    assert run_as(uid, work) == -signal.SIGKILL


def test_a_killed_daemon_leaves_a_dead_cvmfs_and_a_living_command(uid: int, own: bool, place: str) -> None:
    def work() -> int:
        script = "cat /cvmfs/*/hello > up; until test -s go; do sleep 0.05; done; ls /cvmfs/a.cern.ch 2> got; exit 6"
        front = started(place, script, own)
        os.kill(family(front)["daemon"], signal.SIGKILL)
        write("go")
        return ending(front)

    assert run_as(uid, work) == 6
    assert "not connected" in text_of(f"{place}/got")
