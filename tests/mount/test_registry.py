"""What the list of mounts says about real mounts, of living and of killed daemons; and about files that lie."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from cvmfs_py.errors import MountError
from cvmfs_py.fuse.mountinfo import find_mount, load_mounts
from cvmfs_py.mount.process_id import ProcessId, read_start_ticks
from cvmfs_py.mount.registry import MountList, MountRecord, MountState, list_recorded, register
from cvmfs_py.mount.runtime_directory import LIMIT_BYTES, record_directories, runtime_directory
from tests.rights import require, unshare_command
from tests.simulator.command import as_nobody, in_mount_namespace

TOP = Path(__file__).parents[2]
LISTING = """
import sys, os, json
from cvmfs_py.mount.registry import list_recorded
found = list_recorded([os.fsencode(sys.argv[1])], os.geteuid())
print(json.dumps([[m.state.name, m.record.mountpoint.decode(), m.record.revision, m.user_id] for m in found.mounts]))
print(*found.warnings, sep="\\n")
"""


@pytest.fixture
def directory(tmp_path: Path) -> bytes:
    place = tmp_path / "run"
    place.mkdir(mode=0o700)
    return os.fsencode(place)


def record_of(mountpoint: bytes = b"/nowhere/at/all", **changes: object) -> MountRecord:
    record = MountRecord(
        fqrn="test.example.org",
        mountpoint=mountpoint,
        process=ProcessId.own(),
        started_at_s=1.5,
        revision=7,
        root_hash="ab" * 20,
        tag="v1",
        cache_dir=b"/caf\xe9",
        engine="channel",
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def listed(directory: bytes) -> MountList:
    return list_recorded([directory], os.geteuid())


def files(directory: bytes) -> list[bytes]:
    return sorted(os.listdir(directory))


def run_in_namespace(script: str) -> str:
    """A shell script in a mount namespace of its own; `worker` and `list` are functions in it."""
    require("mount namespaces")
    python = shlex.quote(sys.executable)
    functions = f"""
        list() {{ {python} -c {shlex.quote(LISTING)} "$1"; }}
        worker() {{ exec {python} -m tests.mount.registry_worker "$1" "$2"; }}
        start() {{ rm -f in out; mkfifo in out; worker "$1" "$2" <in >out & pid=$!; exec 3>in 4<out; read answer <&4; }}
    """
    done = subprocess.run(
        [*unshare_command(), "/bin/sh", "-ec", functions + script],
        cwd=TOP,
        env=os.environ | {"PYTHONPATH": str(TOP)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_mount_from_its_beginning_to_its_end(directory: bytes, tmp_path: Path) -> None:
    place = tmp_path / "mnt"
    place.mkdir()
    run = os.fsdecode(directory)
    output = run_in_namespace(f"""
        cd {tmp_path} && export PYTHONPATH={TOP}
        start {run} {place}
        list {run}                                   # mounted
        echo 8 >&3; read answer <&4; list {run}      # of another revision
        kill -9 $pid; wait $pid || true
        list {run}                                   # broken
        umount -l {place}
        list {run}                                   # nothing
    """)
    mounted, updated, broken, nothing = [json.loads(line) for line in output.splitlines() if line]
    user_id = os.geteuid()
    assert mounted == [["MOUNTED", str(place), 1, user_id if os.geteuid() == 0 else 0]]
    assert updated == [["MOUNTED", str(place), 8, mounted[0][3]]]
    assert broken == [["BROKEN", str(place), 8, mounted[0][3]]]
    assert nothing == []
    assert files(directory) == []


def test_a_record_of_a_dead_daemon_below_a_new_mount(directory: bytes, tmp_path: Path) -> None:
    """The kernel has given the number of the device again: once is right, and nothing is left at the end."""
    place, run = tmp_path / "mnt", os.fsdecode(directory)
    place.mkdir()
    output = run_in_namespace(f"""
        cd {tmp_path} && export PYTHONPATH={TOP}
        start {run} {place}
        sed 's/1000\\.0/999.5/' {run}/*.json >{run}/older.json
        list {run}                                   # the new one
        kill -9 $pid; wait $pid || true
        list {run}                                   # broken, once
        umount -l {place}; list {run}
    """)
    lines = [json.loads(line) for line in output.splitlines() if line]
    assert [[each[0] for each in line] for line in lines] == [["MOUNTED"], ["BROKEN"], []]
    assert files(directory) == []


def test_older_daemons_did_not_say_whether_they_follow() -> None:
    value = json.loads(record_of(tag="v1").encode())
    del value["is_pinned"]
    assert MountRecord.decode(json.dumps(value).encode()).is_pinned
    assert not MountRecord.decode(json.dumps(value | {"tag": None}).encode()).is_pinned


def test_a_mount_that_was_unmounted_or_covered_is_not_called_mounted(directory: bytes, tmp_path: Path) -> None:
    above = tmp_path / "above"
    place = above / "mnt"
    place.mkdir(parents=True)
    run = os.fsdecode(directory)
    output = run_in_namespace(f"""
        cd {tmp_path} && export PYTHONPATH={TOP}
        start {run} {place}
        mount -t tmpfs tmpfs {place}; list {run}     # something else on top
        umount {place}; list {run}                   # visible again
        mount -t tmpfs tmpfs {above}; list {run}  # below something else
        umount {above}
        umount -l {place}; list {run}                # the daemon has not noticed yet
        echo end >&3; wait $pid; list {run}
    """)
    states = [[each[0] for each in json.loads(line)] for line in output.splitlines() if line]
    assert states == [["ELSEWHERE"], ["MOUNTED"], ["ELSEWHERE"], ["ELSEWHERE"], []]
    assert files(directory) == []


def test_a_living_daemon_of_another_namespace_is_left_alone(directory: bytes, tmp_path: Path) -> None:
    """Its number means somebody else here, or nobody: its lock counts."""
    record = record_of(process=replace(ProcessId.own(), pid=1, start_ticks=3, namespace="pid:[1]"), device="0:999999")
    with register(record, directory) as registration:
        (mount,) = listed(directory).mounts
        assert mount.state is MountState.ELSEWHERE
        assert mount.record == registration.record
    assert listed(directory).mounts == ()


def test_a_handed_over_mount_is_believed_as_long_as_its_daemon_lives(directory: bytes) -> None:
    with register(record_of(b"/dev/fd/7"), directory):
        (mount,) = listed(directory).mounts
        assert mount.state is MountState.MOUNTED
        assert mount.record.mountpoint == b"/dev/fd/7"
        assert mount.user_id == os.geteuid()
    assert files(directory) == []


def test_every_byte_of_a_record_comes_back() -> None:
    for record in (record_of(), record_of(tag=None, device="0:53", mountpoint=bytes(range(1, 256)))):
        assert MountRecord.decode(record.encode()) == record


def test_a_record_is_replaced_at_once(directory: bytes) -> None:
    with register(record_of(b"/dev/fd/7"), directory) as registration:
        for revision in range(8, 20):
            registration.update(revision=revision, root_hash="cd" * 20)
            (mount,) = listed(directory).mounts
            assert (mount.record.revision, mount.record.root_hash) == (revision, "cd" * 20)
            assert len(files(directory)) == 1
        registration.remove()
        registration.remove()


def test_a_list_while_records_change(directory: bytes) -> None:
    """Never is a living mount taken for a stale one, which would be removed."""
    reader = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys\nfor _ in range(300):\n"
            + "".join(
                f"    {line}\n"
                for line in (
                    "from cvmfs_py.mount.registry import list_recorded",
                    "found = list_recorded([sys.argv[1].encode()], 0)",
                    "assert len(found.mounts) == 1 and not found.warnings, found",
                )
            ),
            directory,
        ],
        cwd=TOP,
    )
    with register(record_of(b"/dev/fd/7"), directory) as registration:
        revision = 0
        while reader.poll() is None:
            revision += 1
            registration.update(revision=revision, root_hash="cd" * 20)
    assert reader.returncode == 0
    assert revision > 10


def test_what_is_no_record_is_passed_over(directory: bytes, tmp_path: Path) -> None:
    place = Path(os.fsdecode(directory))
    (place / "text.json").write_text("no json\n\x1b[2J")
    (place / "list.json").write_text("[1]")
    (place / "empty.json").write_text("{}")
    (place / "types.json").write_bytes(record_of().encode().replace(b'"revision": 7', b'"revision": "7"'))
    (place / "deep.json").write_text("[" * 60_000)
    (place / "large.json").write_text(" " * (LIMIT_BYTES + 1))
    (place / "folder.json").mkdir()
    os.mkfifo(place / "pipe.json")
    (tmp_path / "outside").write_bytes(record_of().encode())
    (place / "link.json").symlink_to(tmp_path / "outside")
    (place / "ignored").write_text("not ours")
    before = files(directory)
    found = listed(directory)
    assert found.mounts == ()
    assert len(found.warnings) == len(before) - 1
    assert all("is passed over" in warning and "\n" not in warning for warning in found.warnings)
    assert files(directory) == before


@pytest.mark.needs("other users")
def test_files_of_others_are_passed_over(directory: bytes) -> None:
    place = Path(os.fsdecode(directory))
    (place / "foreign.json").write_bytes(record_of().encode())
    os.chown(place / "foreign.json", 12345, 12345)
    (warning,) = listed(directory).warnings
    assert "belongs to user 12345" in warning
    assert files(directory) == [b"foreign.json"]
    place.chmod(0o777)
    (warning,) = listed(directory).warnings
    assert "others can write to it" in warning


def test_directories_that_cannot_be_used(tmp_path: Path) -> None:
    user_id = os.geteuid()
    with pytest.raises(MountError, match="cannot note the mount"):
        register(record_of(), os.fsencode(tmp_path / "missing"))
    assert listed(os.fsencode(tmp_path / "missing")) == MountList((), ())
    private = tmp_path / "private"
    environment = {"XDG_RUNTIME_DIR": str(private)}
    if user_id != 0:
        assert runtime_directory(environment, user_id) == os.fsencode(private / "cvmfs-py")
        assert (private / "cvmfs-py").stat().st_mode & 0o777 == 0o700
    assert os.fsencode(private / "cvmfs-py") in record_directories(environment, user_id)
    assert b"/run/cvmfs-py" in record_directories({}, 1234)
    assert b"/tmp/cvmfs-py-1234" in record_directories({}, 1234)


@pytest.mark.needs("other users")
def test_the_directory_of_an_ordinary_user(tmp_path: Path) -> None:
    """A directory in /tmp that somebody else made first is not used."""
    number = 54321
    script = (
        "from cvmfs_py.mount.runtime_directory import *\nimport os\nos.setuid(%d)\nprint(runtime_directory({}, %d))"
    )
    place = Path(f"/tmp/cvmfs-py-{number}")
    command = [sys.executable, "-c", script % (number, number)]
    environment = os.environ | {"PYTHONPATH": str(TOP)}
    try:
        done = subprocess.run(command, cwd=TOP, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout == f"b'{place}'\n"
        assert (place.stat().st_mode & 0o777, place.stat().st_uid) == (0o700, number)
        os.chown(place, 0, 0)
        place.chmod(0o755)
        done = subprocess.run(command, cwd=TOP, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "belongs to user 0" in done.stderr
        assert "set XDG_RUNTIME_DIR" in done.stderr
        assert os.fsencode(place) in record_directories({}, 0)
    finally:
        place.rmdir()


@pytest.mark.needs("other users")
def test_root_of_a_user_namespace_goes_on_as_a_user() -> None:
    """The system's directory is not its own, and that is no news to it."""
    script = f"""
import os, sys
sys.path.insert(0, {str(TOP)!r})
from cvmfs_py.mount.runtime_directory import runtime_directory
from cvmfs_py.mount.registry import list_mounts
environment = {{"XDG_RUNTIME_DIR": "/run/user"}}
print(os.geteuid(), runtime_directory(environment, 0), list_mounts(environment, 0))
"""
    prepare = "mount -t tmpfs tmpfs /run && mkdir -m 755 /run/cvmfs-py && mkdir -m 1777 /run/user"
    with tempfile.TemporaryDirectory(prefix="cvmfs-py-public-") as place:
        os.chmod(place, 0o755)
        ordinary = [*in_mount_namespace(prepare), *as_nobody(Path(place) / "namespace"), "unshare", "-U", "-r"]
        command = [*ordinary, sys.executable, "-I", "-c", script]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert done.stdout == "0 b'/run/user/cvmfs-py' MountList(mounts=(), warnings=())\n", done.stderr


def test_numbers_of_processes_are_used_again() -> None:
    own = ProcessId.own()
    assert own.is_running()
    assert not replace(own, start_ticks=own.start_ticks - 1).is_running()
    assert not replace(own, boot_id="another").is_running()
    assert not replace(own, namespace="pid:[1]").is_running()
    child = subprocess.Popen(["sleep", "60"])
    identity = ProcessId.of(child.pid)
    assert identity is not None
    assert identity.is_running()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert not identity.is_running()
    child.wait()
    assert read_start_ticks(child.pid) is None


def test_the_root_directory_is_mounted() -> None:
    found = find_mount(load_mounts(), "/proc")
    assert found is not None
    assert found.kind == "proc"
    assert find_mount(load_mounts(), "/proc/self") is None
