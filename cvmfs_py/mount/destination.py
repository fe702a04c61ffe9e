"""Writes entries into local directories: whole or not at all, and never through a link that is there.

Names, links and modes of a repository are not to be trusted: everything is opened relative to its directory, without
following links, and gets the rights of others last. Knows no repository.

Concurrency: plain functions; a directory is let go by whoever holds it, in one event loop.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cache.errors import ObjectCorruptError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cache.pins import Pin
    from cvmfs_py.vfs.attrs import Attributes

TEMPORARY_PREFIX = b".cvmfs-py-part."
# What is wrong with one place, and says nothing about the next one.
LOCAL_ERRNOS = frozenset(
    (
        errno.EACCES,
        errno.EEXIST,
        errno.EFBIG,
        errno.EILSEQ,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.EMLINK,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ENOTEMPTY,
        errno.EOPNOTSUPP,
        errno.EPERM,
    )
)
_NO_LINKS = frozenset((errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV))
_NO_KERNEL_COPY = frozenset((errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM))
_PIECE_BYTES = 1 << 20
_PRIVILEGED_BITS = stat.S_ISUID | stat.S_ISGID


class TargetDirectory:
    """A directory that entries are copied into; finished when nobody holds it any more, also no sub-directory."""

    def __init__(self, fd: int, parent: TargetDirectory | None, finish: Callable[[int], None]) -> None:
        """Takes the descriptor over. `finish` gets it when everything inside is done."""
        self.fd = fd
        self._parent = None if parent is None else parent.hold()
        self._finish = finish
        self._users = 1

    def hold(self) -> TargetDirectory:
        self._users += 1
        return self

    def release(self) -> None:
        directory: TargetDirectory | None = self
        while directory is not None:
            directory._users -= 1
            if directory._users:
                return
            try:
                directory._finish(directory.fd)
            finally:
                os.close(directory.fd)
            directory = directory._parent


_serials = itertools.count(1)


@contextmanager
def placed(directory_fd: int, name: bytes) -> Iterator[bytes]:
    """A name to make an entry under, which replaces `name` at the end of the block."""
    temporary = b"%s%d.%d" % (TEMPORARY_PREFIX, os.getpid(), next(_serials))
    try:
        yield temporary
        _keep_device(directory_fd, name, temporary)
        os.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory_fd)
        raise


def _keep_device(directory_fd: int, name: bytes, temporary: bytes) -> None:
    """Refuses to replace a device by anything but its like: the tree may be copied over one that is in use."""
    try:
        there = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISCHR(there.st_mode) or stat.S_ISBLK(there.st_mode):
        new = os.stat(temporary, dir_fd=directory_fd, follow_symlinks=False)
        if (stat.S_IFMT(there.st_mode), there.st_rdev) != (stat.S_IFMT(new.st_mode), new.st_rdev):
            raise FileExistsError(errno.EEXIST, "a device")


def remove_leftovers(directory_fd: int) -> None:
    """Removes what copies that were killed have left in a directory."""
    for name in map(os.fsencode, os.listdir(directory_fd)):
        if name.startswith(TEMPORARY_PREFIX) and not _is_alive(name):
            with suppress(OSError):  # it only takes room
                os.unlink(name, dir_fd=directory_fd)


def _is_alive(name: bytes) -> bool:
    pid = name[len(TEMPORARY_PREFIX) :].partition(b".")[0]
    return pid.isdigit() and int(pid) != os.getpid() and os.path.exists(b"/proc/" + pid)


def create_file(directory_fd: int, name: bytes) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, 0o600, dir_fd=directory_fd)


def make_link(directory_fd: int, target: bytes, name: bytes, attributes: Attributes, *, owners: bool) -> None:
    with placed(directory_fd, name) as temporary:
        os.symlink(target, temporary, dir_fd=directory_fd)
        with suppress(OSError):  # few file systems are so old
            _set_time(temporary, attributes, directory_fd)
        if owners:
            os.chown(temporary, attributes.uid, attributes.gid, dir_fd=directory_fd, follow_symlinks=False)


def make_special(directory_fd: int, name: bytes, attributes: Attributes, *, owners: bool) -> None:
    """A fifo or socket, or for root a device."""
    with placed(directory_fd, name) as temporary:
        os.mknod(temporary, stat.S_IFMT(attributes.mode) | 0o600, attributes.rdev, dir_fd=directory_fd)
        if owners:
            os.chown(temporary, attributes.uid, attributes.gid, dir_fd=directory_fd, follow_symlinks=False)
        os.chmod(temporary, _safe_mode(attributes, owners=owners), dir_fd=directory_fd)
        _set_time(temporary, attributes, directory_fd)


def make_hard_link(directory_fd: int, first: bytes, name: bytes) -> bool:
    """One more name for a file of the same directory; false where the file system does not make it."""
    try:
        with placed(directory_fd, name) as temporary:
            os.link(first, temporary, src_dir_fd=directory_fd, dst_dir_fd=directory_fd, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return False
    # To rename a name of a file to another name of the same file does nothing at all.
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=directory_fd)
    return True


def apply_attributes(fd: int, attributes: Attributes, xattrs: Mapping[bytes, bytes], *, owners: bool) -> None:
    """Times come last, and the mode after what it may forbid."""
    if owners:
        os.fchown(fd, attributes.uid, attributes.gid)
    for name, value in xattrs.items():
        with suppress(OSError):  # not every file system has them, and not every name is allowed to everybody
            os.setxattr(fd, name, value)
    os.fchmod(fd, _safe_mode(attributes, owners=owners))
    os.utime(fd, ns=(attributes.mtime_ns, attributes.mtime_ns))


def _safe_mode(attributes: Attributes, *, owners: bool) -> int:
    """Without the owner that it was meant for, a file must not run with its owner's rights."""
    mode = stat.S_IMODE(attributes.mode)
    return mode if owners else mode & ~_PRIVILEGED_BITS


def _set_time(name: bytes, attributes: Attributes, directory_fd: int) -> None:
    times = (attributes.mtime_ns, attributes.mtime_ns)
    os.utime(name, ns=times, dir_fd=directory_fd, follow_symlinks=False)


def append_object(pin: Pin, fd: int) -> None:
    offset = 0
    in_kernel = True
    while offset < pin.size_bytes:
        if in_kernel:
            try:
                copied = os.copy_file_range(pin.fd, fd, pin.size_bytes - offset, offset_src=offset)
            except OSError as error:
                if error.errno not in _NO_KERNEL_COPY:
                    raise
                in_kernel = False
                continue
            if not copied:
                raise ObjectCorruptError(
                    f"cached object {pin.content_hash} was truncated while it was open", pin.content_hash
                )
            offset += copied
        else:
            offset += os.write(fd, pin.read(_PIECE_BYTES, offset))


def open_new_directory(parent_fd: int, name: bytes) -> int:
    """A directory that is ours to fill: a new one, or one that is there; what else is there is an OSError."""
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent_fd)
    flags = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, os.O_RDONLY | flags, dir_fd=parent_fd)
    except PermissionError:
        # An earlier copy has finished it, with a mode that keeps its own owner out.
        path_fd = os.open(name, os.O_PATH | flags, dir_fd=parent_fd)
        try:
            os.chmod(f"/proc/self/fd/{path_fd}", 0o700)
        finally:
            os.close(path_fd)
        fd = os.open(name, os.O_RDONLY | flags, dir_fd=parent_fd)
    if os.fstat(fd).st_uid == os.geteuid():
        os.fchmod(fd, 0o700)  # to be filled; what it should have comes at the end
    return fd
