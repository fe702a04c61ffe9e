"""Files and directories of the local disk as a publisher reads them: raw names, paths of any depth, attributes.

Reads only. Symlinks are never followed but in the path of the top directory. Stateless.
"""

from __future__ import annotations

import errno
import os

from cvmfs_py.publish.packed import FileState

_PATH_LIMIT_BYTES = 4000  # the kernel takes 4095 at once
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Whatever took the place of a file meanwhile (a fifo, say) must not block.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NO_XATTRS = frozenset((errno.ENOTSUP, errno.ENODATA, errno.EPERM, errno.EACCES))

# What the publisher's machine says about its own copy of a file, and nothing about the file.
IGNORED_XATTRS = (b"security.selinux", b"security.ima", b"security.evm", b"trusted.overlay.")


def open_directory(path: bytes) -> int:
    """A descriptor of a directory with an absolute path, however long."""
    if len(path) <= _PATH_LIMIT_BYTES:
        return os.open(path, _DIRECTORY)
    fd = os.open(b"/", _DIRECTORY)
    while path:
        path = path.lstrip(b"/")
        end = len(path)
        if end > _PATH_LIMIT_BYTES:
            end = path.rindex(b"/", 0, _PATH_LIMIT_BYTES)
        try:
            below = os.open(path[:end], _DIRECTORY, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
        path = path[end:]
    return fd


def list_directory(fd: int) -> list[bytes]:
    """The names in a directory, in the order of their bytes."""
    return sorted(os.listdir(b"/proc/self/fd/%d" % fd))  # of a descriptor it would make texts


def open_file_at(dir_fd: int, name: bytes) -> int:
    """A descriptor for reading, never blocking. What kind it is of tells its state."""
    return os.open(name, _FILE, dir_fd=dir_fd)


def file_state(status: os.stat_result) -> FileState:
    return FileState(status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_mtime_ns)


def read_xattrs(fd: int) -> dict[bytes, bytes]:
    """The extended attributes of an open file or directory."""
    return _xattrs(fd)


def read_xattrs_at(dir_fd: int, name: bytes) -> dict[bytes, bytes]:
    """Those of an entry of any kind, also of a symlink itself."""
    # There is no call that takes a directory's descriptor and a name.
    return _xattrs(b"/proc/self/fd/%d/%s" % (dir_fd, name))


def _xattrs(place: int | bytes) -> dict[bytes, bytes]:
    follow_symlinks = isinstance(place, int)  # a descriptor is none, and Python takes it only so
    try:
        names = os.listxattr(place, follow_symlinks=follow_symlinks)
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return {}
        raise
    found = {}
    for text in names:
        name = os.fsencode(text)
        if name.startswith(IGNORED_XATTRS):
            continue
        try:
            found[name] = os.getxattr(place, text, follow_symlinks=follow_symlinks)
        except OSError as error:  # gone meanwhile, or for others' eyes
            if error.errno not in _NO_XATTRS:
                raise
    return found
