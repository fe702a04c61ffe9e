"""What is mounted by this program: a small file for each mount, in a directory that lives as long as the machine runs.

The daemon of a mount writes its file, keeps a lock on it and removes it; whoever lists reads the files of a user, root
those of everybody. Nothing in them is believed by itself: the lock says whether the daemon is alive (also across pid
namespaces, where numbers say nothing), the start time whether a number still means this process, and the kernel's list
whether the mount is there. What is left of a dead daemon without a mount is removed.

Synchronous; never touches a mounted file system, which may not answer. Any number of processes at a time.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import json
import os
import secrets
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from cvmfs_py.errors import MountError
from cvmfs_py.fuse.mountinfo import Mount, find_mount, load_mounts, real_path
from cvmfs_py.mount.process_id import ProcessId
from cvmfs_py.mount.runtime_directory import SUFFIX, open_directory, read_record, record_directories

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class MountRecord:
    """What a daemon says about its mount."""

    fqrn: str
    mountpoint: bytes  # as the kernel lists it; or /dev/fd/N, where somebody else knows
    process: ProcessId
    started_at_s: float
    revision: int
    root_hash: str
    tag: str | None = None
    is_pinned: bool = False  # it never follows: by tag, date or root hash
    cache_dir: bytes = b""
    engine: str = ""
    device: str | None = None  # of the file system, MAJOR:MINOR; None: not seen from the daemon's namespace
    log: bytes = b""  # file that its daemon writes; empty: standard error, or none

    def encode(self) -> bytes:
        paths = {name: _latin1(getattr(self, name)) for name in ("mountpoint", "cache_dir", "log")}
        value = asdict(self) | paths
        return json.dumps(value).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises ValueError for what is no record."""
        value = json.loads(data)
        if not isinstance(value, dict) or not isinstance(value.get("process"), dict):
            raise ValueError("it is no record of a mount")
        try:
            return cls(
                fqrn=_checked(value, "fqrn", str),
                mountpoint=_checked(value, "mountpoint", str).encode("latin-1"),
                process=ProcessId.from_value(value["process"]),
                started_at_s=float(_checked(value, "started_at_s", int | float)),
                revision=_checked(value, "revision", int),
                root_hash=_checked(value, "root_hash", str),
                tag=_checked(value, "tag", str | None),
                is_pinned=bool(value.get("is_pinned", value["tag"])),  # older daemons wrote the tag alone
                cache_dir=_checked(value, "cache_dir", str).encode("latin-1"),
                engine=_checked(value, "engine", str),
                device=_checked(value, "device", str | None),
                log=_checked({"log": "", **value}, "log", str).encode("latin-1"),
            )
        except KeyError as error:
            raise ValueError(f"it lacks {error}") from error


class MountState(enum.Enum):
    """What a record means now."""

    MOUNTED = "mounted"
    ELSEWHERE = "in another namespace"  # the daemon serves, but its mount is not seen from here
    BROKEN = "broken"  # the daemon is gone and its mount is still there: every access fails


@dataclass(frozen=True, slots=True)
class ListedMount:
    """One mount in the list."""

    record: MountRecord
    state: MountState
    user_id: int  # who mounted it


@dataclass(frozen=True, slots=True)
class MountList:
    mounts: tuple[ListedMount, ...]
    warnings: tuple[str, ...]  # what was found and is no record


class Registration:
    """The record of one mount, as long as its daemon lives. Made by `register`."""

    def __init__(self, directory: bytes, name: str, record: MountRecord) -> None:
        self._directory = directory
        self._name = name
        self._locked_fd = -1
        self.record = record
        self._write(record)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def update(self, *, revision: int, root_hash: str) -> None:
        """Another revision is shown now."""
        self._write(replace(self.record, revision=revision, root_hash=root_hash))

    def remove(self) -> None:
        """The mount has ended."""
        if self._locked_fd >= 0:
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(self._directory, os.fsencode(self._name)))
            os.close(self._locked_fd)
            self._locked_fd = -1

    def _write(self, record: MountRecord) -> None:
        """A new file, locked before it is seen, takes the place of the old one: nobody sees half a record."""
        with ExitStack() as undone:
            directory_fd = open_directory(self._directory, must_be_mine=True)
            undone.callback(os.close, directory_fd)
            temporary = f".{secrets.token_hex(8)}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open(temporary, flags, 0o644, dir_fd=directory_fd)
            undone.push(lambda kind, *_: os.close(fd) if kind is not None else None)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(fd, record.encode())
            os.rename(temporary, self._name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
        if self._locked_fd >= 0:
            os.close(self._locked_fd)
        self._locked_fd = fd
        self.record = record


def register(record: MountRecord, directory: bytes) -> Registration:
    """Writes down a mount that is there; the device is looked up. MountError when the directory cannot be used."""
    mount = find_mount(load_mounts(), real_path(os.fsdecode(record.mountpoint)))
    if mount is not None and mount.is_fuse:
        record = replace(record, mountpoint=os.fsencode(mount.mountpoint), device=mount.device)
    try:
        return Registration(directory, f"{record.fqrn}-{secrets.token_hex(8)}{SUFFIX}", record)
    except OSError as error:
        raise MountError(f"cannot note the mount in {os.fsdecode(directory)}: {error.strerror}") from error


def named_mounts(mounts: Iterable[ListedMount], fqrn: str, tag: str | None) -> list[ListedMount]:
    """Those that a name means: without a tag what follows new revisions, with one what is pinned to it."""
    found = [each for each in mounts if each.record.fqrn == fqrn]
    return [each for each in found if each.record.is_pinned == (tag is not None) and each.record.tag == tag]


def list_mounts(environment: Mapping[str, str], user_id: int) -> MountList:
    """The mounts of a user and of the system, for root those of everybody, sorted by mount point."""
    return list_recorded(record_directories(environment, user_id), user_id)


def list_recorded(directories: Sequence[bytes], user_id: int) -> MountList:
    """The mounts that are recorded in these directories; stale records are removed where this user may."""
    mounts = load_mounts()
    listed: list[ListedMount] = []
    warnings: list[str] = []
    for directory in directories:
        try:
            directory_fd = open_directory(directory)
        except FileNotFoundError:
            continue
        except OSError as error:
            # Root of a user namespace sees the names of all, may read few, and has another number outside.
            if error.errno == errno.EACCES or _has_other_number(directory, user_id):
                continue
            warnings.append(f"{os.fsdecode(directory)} is passed over: {error.strerror}")
            continue
        try:
            for name in sorted(os.listdir(directory_fd)):
                if name.endswith(SUFFIX) and not name.startswith("."):
                    _list_one(directory, directory_fd, name, mounts, user_id, listed, warnings)
        finally:
            os.close(directory_fd)
    listed.sort(key=lambda each: (each.record.mountpoint, each.record.started_at_s))
    return MountList(tuple(each for each in listed if not _is_superseded(each, listed)), tuple(warnings))


def _is_superseded(mount: ListedMount, listed: list[ListedMount]) -> bool:
    """Whether the mount that is seen is a newer one: the kernel gives the number of a dead device again soon.

    The record goes when nothing is seen there any more.
    """
    record = mount.record
    same = [
        each for each in listed if (each.record.mountpoint, each.record.device) == (record.mountpoint, record.device)
    ]
    return mount.state is MountState.BROKEN and any(
        each.state is MountState.MOUNTED or each.record.started_at_s > record.started_at_s for each in same
    )


def _has_other_number(directory: bytes, user_id: int) -> bool:
    """Whether it is this user's own, named after the number that the user has outside of a user namespace."""
    number = directory.rpartition(b"-")[2]
    try:
        return number.isdigit() and int(number) != user_id == os.lstat(directory).st_uid
    except OSError:
        return False


def _list_one(
    directory: bytes,
    directory_fd: int,
    name: str,
    mounts: tuple[Mount, ...],
    user_id: int,
    listed: list[ListedMount],
    warnings: list[str],
) -> None:
    where = os.fsdecode(os.path.join(directory, os.fsencode(name)))
    try:
        found = read_record(directory_fd, name)
        record = MountRecord.decode(found.data)
    except FileNotFoundError:  # removed a moment ago
        return
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        warnings.append(f"{where} is passed over: {' '.join(str(reason).split())[:200]}")
        return
    state = _judge(record, is_alive=found.is_locked, mounts=mounts)
    if state is not None:
        listed.append(ListedMount(record, state, found.owner_id))
    elif user_id in (0, found.owner_id):
        with suppress(OSError):
            os.unlink(name, dir_fd=directory_fd)


def _judge(record: MountRecord, *, is_alive: bool, mounts: tuple[Mount, ...]) -> MountState | None:
    """None: there is nothing any more."""
    entry = find_mount(mounts, os.fsdecode(record.mountpoint))
    is_seen = entry is not None and record.device is not None and entry.device == record.device
    if is_alive:
        return MountState.MOUNTED if is_seen or record.device is None else MountState.ELSEWHERE
    # After a restart of the machine another file system may have the same device at the same place.
    return MountState.BROKEN if is_seen and record.process.is_of_this_boot() else None


def _checked(value: dict[str, Any], name: str, kind: Any) -> Any:
    found = value[name]
    if not isinstance(found, kind) or isinstance(found, bool):
        raise ValueError(f"its {name} is {str(found)[:40]!r}")
    return found


def _latin1(data: bytes) -> str:
    return data.decode("latin-1")
