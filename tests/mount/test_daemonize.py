"""Daemons that become ready, fail, die, hang and are interrupted: real processes, and what their caller learns."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cvmfs_py.mount.daemon_log import LIMIT_BYTES, LogPlace, choose_log, log_name
from cvmfs_py.mount.process_id import ProcessId

if TYPE_CHECKING:
    from collections.abc import Callable

TOP = Path(__file__).parents[2]
# What a command does with a daemon: words on standard error, the exit code.
CALLER = """
import json, logging, os, signal, sys, time
from cvmfs_py.errors import *
from cvmfs_py.mount import daemonize
from cvmfs_py.mount.daemon_log import LogPlace
place = os.environ["PLACE"]
log = LogPlace(os.fsencode(place + "/log"), syslog=place + "/syslog")

def note(name, text="x"):
    with open(f"{{place}}/{{name}}.new", "w") as stream:
        stream.write(text)
    os.rename(f"{{place}}/{{name}}.new", f"{{place}}/{{name}}")

def wait_for(name):
    while not os.path.exists(f"{{place}}/{{name}}"):
        time.sleep(0.01)

def work(announcer):
    note("pid", str(os.getpid()))
{work}

try:
    print(daemonize.start_daemon(work, deadline_s={deadline_s}, log=log, kept_fds={kept_fds},
                                 hear=lambda text: print("heard", text, flush=True),
                                 hear_wait=lambda text: {tells_waits} and print("wait", text, flush=True)))
except CvmfsError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


class Caller:
    """A process that starts a daemon."""

    def __init__(
        self,
        place: Path,
        work: str,
        *,
        deadline_s: float = 30,
        kept_fds: tuple[int, ...] = (),
        tells_waits: bool = False,
        **options: object,
    ):
        self.place = place
        text = CALLER.format(
            work=textwrap.indent(textwrap.dedent(work), "    "),
            deadline_s=deadline_s,
            kept_fds=kept_fds,
            tells_waits=tells_waits,
        )
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(TOP), "PLACE": str(place)}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", text],
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **options,  # type: ignore[call-overload]
        )

    def finish(self) -> tuple[int, str, str]:
        output, errors = self.process.communicate(timeout=60)
        return self.process.returncode, output, errors

    def wait_for(self, name: str) -> str:
        deadline = time.monotonic() + 30
        while not (self.place / name).exists():
            assert time.monotonic() < deadline, f"no {name}: {self.log}"
            time.sleep(0.01)
        return (self.place / name).read_text()

    @property
    def log(self) -> str:
        path = self.place / "log"
        return path.read_text() if path.exists() else ""

    @property
    def daemon(self) -> int:
        return int(self.wait_for("pid"))

    def is_daemon_gone(self) -> bool:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if ProcessId.of(self.daemon) is None:
                return True
            time.sleep(0.01)
        os.kill(self.daemon, signal.SIGKILL)
        return False


@pytest.fixture
def start(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Starts callers; what is left of their daemons is ended, and told."""
    callers: list[Caller] = []

    def start_one(work: str, **options: object) -> Caller:
        callers.append(Caller(tmp_path, work, **options))  # type: ignore[arg-type]
        return callers[-1]

    yield start_one
    for caller in callers:
        caller.process.kill()
        caller.process.communicate()
        if (tmp_path / "pid").exists() and ProcessId.of(caller.daemon) is not None:
            os.kill(caller.daemon, signal.SIGKILL)


FACTS = """
facts = {
    "session": os.getsid(0) == os.getpid(),
    "directory": os.getcwd(),
    "mask": os.umask(0o022),
    "streams": [os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)],
    "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
}
note("facts", json.dumps(facts))
print("to standard output", flush=True)
os.write(2, b"to standard error\\n")
announcer.ready("it is mounted")
wait_for("end")
note("ended")
return 0
"""


def test_a_daemon_outlives_its_caller_and_holds_nothing_of_it(start: Callable[..., Caller], tmp_path: Path) -> None:
    kept, dropped = os.pipe()
    os.set_inheritable(kept, True)
    os.set_inheritable(dropped, True)
    caller = start(FACTS, kept_fds=(kept,), pass_fds=(kept, dropped))
    code, output, errors = caller.finish()  # which needs the daemon to have let go of its caller's streams
    assert (code, output, errors) == (0, "it is mounted\n", "")
    facts = json.loads(caller.wait_for("facts"))
    assert facts["session"] is True
    assert facts["directory"] == "/"
    assert facts["mask"] == 0o022
    assert facts["streams"] == ["/dev/null", str(tmp_path / "log"), str(tmp_path / "log")]
    assert kept in facts["fds"]
    assert dropped not in facts["fds"]
    os.close(dropped)
    assert ProcessId.of(caller.daemon) is not None
    assert caller.log == "to standard output\nto standard error\n"
    (tmp_path / "end").touch()
    caller.wait_for("ended")
    assert caller.is_daemon_gone()
    os.close(kept)


def test_a_descriptor_in_the_place_of_a_standard_stream_is_kept(start: Callable[..., Caller], tmp_path: Path) -> None:
    read_fd, write_fd = os.pipe()
    work = """
    os.write(0, b"handed over")
    os.write(2, b"into the log")
    announcer.ready()
    return 0
    """
    caller = start(work, kept_fds=(0,), preexec_fn=lambda: os.dup2(write_fd, 0))
    assert caller.finish()[0] == 0
    assert os.read(read_fd, 100) == b"handed over"
    assert caller.is_daemon_gone()
    assert caller.log == "into the log"
    os.close(read_fd)
    os.close(write_fd)


@pytest.mark.parametrize(
    ("work", "code", "words"),
    [
        ("raise TrustError(Refusal.SIGNATURE, 'not signed')", 4, "not signed"),
        ("raise ConfigError('no server')", 2, "no server"),
        ("raise MountError('the mount point is busy')", 3, "the mount point is busy"),
        ("open('/does/not/exist')", 5, "/does/not/exist: No such file or directory"),
        ("raise ValueError('oops')", 5, "internal error, please report it: ValueError: oops"),
        ("announcer.fail(daemonize.Failure(4, 'told'))\nreturn 9", 4, "told"),
        ("sys.exit(7)", 5, "SystemExit"),
    ],
)
def test_the_caller_gets_the_reason_of_a_failure(
    start: Callable[..., Caller], work: str, code: int, words: str
) -> None:
    caller = start(work)
    got, output, errors = caller.finish()
    assert (got, output) == (code, "")
    assert words in errors
    assert errors.count("\n") == 1
    assert caller.is_daemon_gone()
    assert ("Traceback" in caller.log) == (code == 5)


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (
            "announcer.tell('loading')\nos.kill(os.getpid(), 9)",
            "was killed by SIGKILL before it was ready; its last message: loading",
        ),
        (
            "os.write(2, b'abort: no memory\\n')\nos.abort()",
            "was killed by SIGABRT before it was ready; its last message: abort: no memory",
        ),
        (
            "logging.getLogger('cvmfs_py.x').warning('a %s one', 'bad')\nos._exit(7)",
            "ended with exit code 7 before it was ready; its last message: a bad one",
        ),
        ("return 0", "ended with exit code 0 before it was ready"),
    ],
)
def test_a_daemon_that_dies_is_noticed_at_once(start: Callable[..., Caller], work: str, words: str) -> None:
    started = time.monotonic()
    caller = start(work)
    code, _, errors = caller.finish()
    assert code == 3
    assert words in errors
    assert str(caller.place / "log") in errors
    assert time.monotonic() - started < 20
    assert caller.is_daemon_gone()


def test_the_user_hears_what_the_daemon_tells(start: Callable[..., Caller]) -> None:
    caller = start("""
    announcer.tell("one")
    logging.getLogger("cache").warning("two\\nlines")
    announcer.ready("done")
    announcer.tell("nobody listens")
    logging.getLogger("cache").warning("three")
    return 0
    """)
    assert caller.finish() == (0, "heard one\nheard two lines\ndone\n", "")
    assert caller.is_daemon_gone()
    assert "three" in caller.log


def test_a_daemon_with_much_to_tell_waits_for_nobody(start: Callable[..., Caller]) -> None:
    caller = start("""
    os.kill(os.getppid(), signal.SIGSTOP)
    for number in range(2000):
        announcer.tell("x" * 3000)
    note("told")
    announcer.ready("done")
    return 0
    """)
    caller.wait_for("told")
    caller.process.send_signal(signal.SIGCONT)
    code, output, _ = caller.finish()
    assert code == 0
    assert output.endswith("done\n")


@pytest.mark.parametrize("deaf", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"])
def test_a_daemon_that_takes_too_long_is_ended(start: Callable[..., Caller], deaf: str) -> None:
    caller = start(f"{deaf}announcer.tell('waiting for a server')\ntime.sleep(600)", deadline_s=1)
    code, _, errors = caller.finish()
    assert code == 3
    assert "not ready after 1 s; its last message: waiting for a server" in errors
    assert caller.is_daemon_gone()


def test_a_caller_that_is_killed_leaves_its_daemon_alone(start: Callable[..., Caller], tmp_path: Path) -> None:
    caller = start("""
    wait_for("go")
    announcer.tell("to nobody")
    announcer.ready("to nobody")
    note("is ready")
    wait_for("end")
    return 0
    """)
    daemon = caller.daemon
    caller.process.kill()
    caller.process.wait()
    (tmp_path / "go").touch()
    caller.wait_for("is ready")
    assert ProcessId.of(daemon) is not None
    (tmp_path / "end").touch()
    assert caller.is_daemon_gone()


def test_what_the_user_knows_is_only_logged(start: Callable[..., Caller]) -> None:
    caller = start("""
    logging.getLogger("cvmfs_py.x").warning("said yesterday", extra={"is_known": True})
    logging.getLogger("cvmfs_py.x").warning("news")
    announcer.ready("done")
    return 0
    """)
    assert caller.finish() == (0, "heard news\ndone\n", "")
    assert caller.is_daemon_gone()
    assert "said yesterday" in caller.log


def test_what_it_waits_for_is_told_until_it_is_ready(start: Callable[..., Caller]) -> None:
    """However much that is, and whoever does not listen: the daemon itself waits for nobody."""
    caller = start(
        """
    os.kill(os.getppid(), signal.SIGSTOP)
    for number in range(3000):
        announcer.tell_wait(f"waiting {number} s " + "x" * 100)
    note("told")
    os.kill(os.getppid(), signal.SIGCONT)
    wait_for("heard")
    announcer.tell_wait("")
    announcer.ready("done")
    return 0
    """,
        tells_waits=True,
    )
    caller.wait_for("told")
    (caller.place / "heard").touch()
    code, output, errors = caller.finish()
    assert (code, errors) == (0, "")
    assert output.startswith("wait waiting 0 s x")
    assert output.endswith("done\n")
    assert caller.is_daemon_gone()


def test_a_silent_daemon_is_named(start: Callable[..., Caller]) -> None:
    caller = start(
        """
    wait_for("heard")
    announcer.ready("done")
    return 0
    """,
        tells_waits=True,
    )
    assert caller.process.stdout
    assert caller.process.stdout.readline() == f"wait waiting for the daemon (process {caller.daemon})\n"
    (caller.place / "heard").touch()
    assert caller.finish()[0] == 0
    assert caller.is_daemon_gone()


def test_an_interrupt_of_the_caller_ends_the_daemon(start: Callable[..., Caller]) -> None:
    caller = start("time.sleep(600)")
    assert caller.daemon
    caller.process.send_signal(signal.SIGINT)
    code, _, _ = caller.finish()
    assert code != 0
    assert caller.is_daemon_gone()


def test_no_daemon_beside_a_thread(tmp_path: Path) -> None:
    text = """
import threading
from cvmfs_py.mount.daemonize import start_daemon
from cvmfs_py.mount.daemon_log import LogPlace
threading.Thread(target=threading.Event().wait, args=(5,), daemon=True).start()
start_daemon(lambda announcer: 0, deadline_s=1, log=LogPlace(None))
"""
    environment = os.environ | {"PYTHONPATH": str(TOP)}
    done = subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, text=True, check=False)
    assert "must be started before any thread is, and there are 2" in done.stderr


def test_a_large_log_is_rotated_and_standard_error_follows(start: Callable[..., Caller], tmp_path: Path) -> None:
    caller = start("""
    for number in range(3000):
        logging.getLogger("cvmfs_py.x").warning("%s", str(number) * 250)
    os.write(2, b"the end\\n")
    announcer.ready()
    return 0
    """)
    assert caller.finish()[0] == 0
    assert caller.is_daemon_gone()
    assert sorted(path.name for path in tmp_path.glob("log*")) == ["log", "log.1"]
    assert all(path.stat().st_size <= LIMIT_BYTES + 2000 for path in tmp_path.glob("log*"))
    assert caller.log.endswith("the end\n")


def test_warnings_go_to_the_log_of_the_system(start: Callable[..., Caller], tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "syslog"))
        caller = start("""
        log = logging.getLogger("cvmfs_py.mount")
        log.info("nothing")
        log.warning("the disk\\nis %s", "full")
        log.error("cursor \\x1b[2J")
        announcer.ready()
        wait_for("full")
        for _ in range(2000):  # nobody reads: more than a socket holds
            log.error("x" * 500)
        note("went on")
        return 0
        """)
        assert caller.finish()[0] == 0
        receiver.settimeout(20)
        daemon = caller.daemon
        assert receiver.recv(1000) == b"<28>cvmfs-py[%d]: the disk is full" % daemon
        assert receiver.recv(1000) == b"<27>cvmfs-py[%d]: cursor ?[2J" % daemon
        assert not select.select([receiver], [], [], 0)[0]
        (tmp_path / "full").touch()
        caller.wait_for("went on")
    assert caller.is_daemon_gone()


def test_where_logs_are(tmp_path: Path) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    user_id = os.geteuid()
    if user_id == 0:
        assert choose_log(b"/m", state, 0).path == b"/var/log/cvmfs-py/m.log"
    place = choose_log(b"/cvmfs/a.b", state, user_id or 1234, debug=True)
    assert place == LogPlace(os.fsencode(tmp_path / "state" / "cvmfs-py" / "cvmfs-a.b.log"), True)


def test_a_log_is_never_written_where_others_decide() -> None:
    """A name among temporary files that somebody has taken, perhaps with a link below it."""
    number = 54322
    taken = Path(f"/tmp/cvmfs-py-{number}")
    try:
        taken.mkdir()
        taken.chmod(0o777)
        assert choose_log(b"/m", {}, number) == LogPlace(None)
        taken.chmod(0o700)
        assert choose_log(b"/m", {}, number).path == os.fsencode(taken / "m.log")
    finally:
        taken.rmdir()


def test_every_mount_point_has_a_log_of_its_own() -> None:
    names = [b"/a/b", b"/a-b", b"/a%2Db", b"/a b", b"/", b"/a/../b", b"/" + b"x" * 300, b"/" + b"x" * 301, b"/\xff\n"]
    found = [log_name(name) for name in names]
    assert found[:3] == [b"a-b.log", b"a%2Db.log", b"a%252Db.log"]
    assert len(set(found)) == len(names)
    assert all(b"/" not in name and len(name) <= 255 and name.isascii() for name in found)
