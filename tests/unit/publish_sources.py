"""Local trees with one of everything, repositories filled from them, and what is to be seen in either; for tests.

A tree is a dictionary from path (`b""`, `b"/a/b"`) to `Seen`, whether it was read from a disk or from a storage, so
that a test compares two values. Reading shares no code with what is tested, and works at any depth.
"""

from __future__ import annotations

import os
import random
import socket
import stat
import struct
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from catalog.xattrs import parse_xattr_blob
from cvmfs_py.publish.from_directory import DirectoryOptions, apply_directory
from cvmfs_py.publish.from_tar import ArchiveOptions, apply_archive
from cvmfs_py.publish.nesting import apply_nesting
from cvmfs_py.publish.settings import RepositorySettings
from cvmfs_py.publish.storage import Storage
from cvmfs_py.publish.tree import WritableTree
from tests.rights import why_not
from tests.simulator.reading import CatalogContent, assert_counters_consistent, read_catalogs, read_content, read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any, BinaryIO

    from cache.address import ContentHash
    from cvmfs_py.publish.tally import Tally

IS_ROOT = os.geteuid() == 0
KIB = 1 << 10
SETTINGS = RepositorySettings(
    fqrn="unit.test.org", chunk_min_bytes=32 * KIB, chunk_average_bytes=64 * KIB, chunk_max_bytes=128 * KIB
)
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service+ep
# Version 2: the owner may everything, user 1000 and others may read, and nothing more is ever granted.
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in (
        (0x01, 7, 0xFFFFFFFF),
        (0x02, 4, 1000),
        (0x04, 4, 0xFFFFFFFF),
        (0x10, 4, 0xFFFFFFFF),
        (0x20, 4, 0xFFFFFFFF),
    )
)


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything about an entry. `links`: the other names of the same file in the same directory."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    content: bytes | None = None
    target: bytes | None = None
    device: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    links: frozenset[bytes] = frozenset()


def seen_on_disk(top: Path) -> dict[bytes, Seen]:
    """A local tree. Opens directory by directory, so that no path can be too long."""
    found: dict[bytes, Seen] = {}
    groups: dict[tuple[bytes, int], set[bytes]] = {}

    def visit(fd: int, path: bytes) -> None:
        found[path] = _seen(fd, b".")
        for name in os.listdir(fd):
            raw = os.fsencode(name)
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                below = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd)
                visit(below, path + b"/" + raw)
                os.close(below)
                continue
            found[path + b"/" + raw] = _seen(fd, raw)
            if status.st_nlink > 1:
                groups.setdefault((path, status.st_ino), set()).add(path + b"/" + raw)

    fd = os.open(top, os.O_RDONLY)
    visit(fd, b"")
    os.close(fd)
    _add_links(found, groups.values())
    return found


def _seen(fd: int, name: bytes) -> Seen:
    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
    place = b"/proc/self/fd/%d/%s" % (fd, name)
    names = os.listxattr(place, follow_symlinks=False)
    kind = stat.S_IFMT(status.st_mode)
    content = None
    if kind == stat.S_IFREG:
        with open(os.open(name, os.O_RDONLY, dir_fd=fd), "rb") as file:
            content = file.read()
    return Seen(
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        content=content,
        target=os.readlink(name, dir_fd=fd) if kind == stat.S_IFLNK else None,
        device=status.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0,
        xattrs={os.fsencode(one): os.getxattr(place, one, follow_symlinks=False) for one in names},
    )


def seen_published(server_root: Path, catalogs: dict[bytes, CatalogContent]) -> dict[bytes, Seen]:
    """The tree of a revision."""
    found: dict[bytes, Seen] = {}
    groups: dict[tuple[bytes, bytes, int], set[bytes]] = {}
    for path, row in read_rows(catalogs).items():
        regular, device = row.type == stat.S_IFREG, row.type in (stat.S_IFCHR, stat.S_IFBLK)
        found[path] = Seen(
            mode=row["mode"],
            uid=row["uid"],
            gid=row["gid"],
            mtime_ns=row["mtime"] * 10**9 + row["mtimens"],
            content=read_content(server_root, row) if regular else None,
            target=row["symlink"] if row.type == stat.S_IFLNK else None,
            device=row["size"] if device else 0,
            xattrs=parse_xattr_blob(row["xattr"]),
        )
        if regular:
            assert len(found[path].content or b"") == row["size"]
        if row.type != stat.S_IFDIR:
            group, count = row["hardlinks"] >> 32, row["hardlinks"] & 0xFFFFFFFF
            assert (group == 0) is (count == 1)
            directory = path.rpartition(b"/")[0]
            groups.setdefault((directory, path if not group else b"", group), set()).add(path)
            assert len(groups[directory, path if not group else b"", group]) <= count
    _add_links(found, groups.values())
    return found


def _add_links(found: dict[bytes, Seen], groups: Any) -> None:
    for members in groups:
        for member in members:
            found[member] = replace(found[member], links=frozenset(members - {member}))


class Published:
    """A storage and the last revision in it."""

    def __init__(self, directory: Path, settings: RepositorySettings = SETTINGS) -> None:
        self.settings = settings
        self.storage = Storage(directory / "server")
        self.storage.create()
        self.workdir = directory / "work"
        self.workdir.mkdir()
        self.root_hash: ContentHash | None = None
        self.revision = 0
        self.warnings: list[tuple[bytes, str]] = []

    @contextmanager
    def change(self) -> Iterator[WritableTree]:
        """The tree, committed at the end."""
        with WritableTree(self.storage, self.settings, self.root_hash, self.workdir) as tree:
            yield tree
            apply_nesting(tree, self.storage, self.settings)
            self.revision += 1
            self.root_hash = tree.commit(self.revision, 1_700_000_000 + self.revision).root_hash
            self.warnings = [(warning.path, warning.message) for warning in tree.warnings]

    def take(self, source: Path | str, at: bytes = b"", *, processes: int = 0, **wishes: Any) -> Tally:
        """Publishes a directory."""
        options = DirectoryOptions(processes=processes, **wishes)
        with self.change() as tree:
            return apply_directory(tree, self.storage, self.settings, source, at, options)

    def unpack(self, archive: Path | BinaryIO, at: bytes = b"", *, processes: int = 0, **wishes: Any) -> Tally:
        """Publishes an archive."""
        options = ArchiveOptions(processes=processes, **wishes)
        with self.change() as tree:
            return apply_archive(tree, self.storage, self.settings, archive, at, options)

    def catalogs(self) -> dict[bytes, CatalogContent]:
        catalogs = read_catalogs(self.storage.directory, str(self.root_hash))
        assert_counters_consistent(catalogs)
        return catalogs

    def see(self, at: bytes = b"") -> dict[bytes, Seen]:
        """What is below a path, all objects read."""
        found = seen_published(self.storage.directory, self.catalogs())
        return {
            path[len(at) :]: replace(seen, links=frozenset(link[len(at) :] for link in seen.links))
            for path, seen in found.items()
            if path == at or path.startswith(at + b"/")
        }

    def objects(self) -> set[tuple[str, str]]:
        return {(str(address), kind.value) for address, kind, _ in self.storage.objects()}


def put(directory: Path, name: str | bytes, content: bytes = b"", mode: int = 0o644) -> bytes:
    """A file with this content; its path."""
    path = os.path.join(os.fsencode(directory), os.fsencode(name))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    os.write(fd, content)
    os.fchmod(fd, mode)
    os.close(fd)
    return path


def make_zoo(top: Path) -> None:
    """One of everything that a local file system has."""
    for maker in (_contents, _names, _modes, _times, _links, _specials, _attributes, _depths):
        directory = top / maker.__name__.strip("_")
        directory.mkdir(parents=True)
        maker(directory)


def _contents(top: Path) -> None:
    chance = random.Random(11)
    put(top, "empty")
    put(top, "small", b"content\n")
    put(top, "large", chance.randbytes(700_000))
    put(top, "zeros", bytes(400_000))
    put(top, "exactly the maximum", chance.randbytes(128 * KIB))
    put(top, "one more", chance.randbytes(128 * KIB + 1))
    with (top / "sparse").open("wb") as file:
        file.seek(1_000_000)
        file.write(b"after a hole")
        file.truncate(2_000_000)
    for number in range(300):
        put(top, f"many/{number}", b"%d" % (number % 50))


def _names(top: Path) -> None:
    odd = (
        b"n" * 255,
        b"\xff\xfe",
        b"new\nline",
        b" ",
        b"-rf",
        b"*",
        b"a\\b",
        b"\xc3\xa4",
        b"\x01\x7f",
        b".hidden",
        b"..x",
    )
    for name in odd:
        put(top, name, name)
        put(top, os.path.join(b"in", name, b"file"), name)
        os.symlink(name, os.path.join(os.fsencode(top), b"to " + name[:200]))


def _modes(top: Path) -> None:
    for mode in (0, 0o400, 0o777, 0o4755, 0o2755, 0o1644, 0o7777):
        put(top, f"file {mode:o}", b"%o" % mode, mode)
        (top / f"directory {mode:o}").mkdir()
        put(top, f"directory {mode:o}/inside", b"%o" % mode)
        (top / f"directory {mode:o}").chmod(mode if IS_ROOT else mode | 0o500)
    if IS_ROOT:
        os.chown(put(top, "owned"), 1234, 56789)
        os.chown(put(top, "owned by the last"), 0xFFFFFFFE, 0xFFFFFFFE)


def _times(top: Path) -> None:
    times = {"before 1970": -1_500_000_001, "zero": 0, "first": 1, "after 2038": 2_500_000_000 * 10**9 + 999_999_999}
    for name, time_ns in times.items():
        os.utime(put(top, name), ns=(0, time_ns))
        (top / f"{name} directory").mkdir()
        os.utime(top / f"{name} directory", ns=(0, time_ns))
        os.symlink("nowhere", top / f"{name} link")
        os.utime(top / f"{name} link", ns=(0, time_ns), follow_symlinks=False)


def _links(top: Path) -> None:
    for name, target in {
        "dangling": "nowhere",
        "absolute": "/etc/passwd",
        "itself": "itself",
        "long": "x/" * 2000,
        "variable": "$(CVMFS_ARCH)/lib",
        "raw": b"\xff\n",
    }.items():
        os.symlink(target, top / name)  # type: ignore[type-var]
    put(top, "group/a", b"linked")
    os.link(top / "group/a", top / "group/b")
    os.link(top / "group/a", top / "group/c")
    put(top, "group/large", bytes(300_000))
    os.link(top / "group/large", top / "group/large too")
    os.symlink("a", top / "group/link")
    os.link(top / "group/link", top / "group/link too", follow_symlinks=False)
    (top / "elsewhere").mkdir()
    os.link(top / "group/a", top / "elsewhere/d")
    put(top, "lonely", b"its other name is elsewhere")
    os.link(top / "lonely", top / "elsewhere/lonely")


def _specials(top: Path) -> None:
    os.mkfifo(top / "fifo", 0o640)
    os.link(top / "fifo", top / "fifo too")
    with socket.socket(socket.AF_UNIX) as end:
        fd = os.open(top, os.O_RDONLY)
        end.bind(f"/proc/self/fd/{fd}/socket")  # such an address is short
        os.close(fd)
    if not why_not("device files"):
        os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(top / "disk", stat.S_IFBLK | 0o660, os.makedev(259, 1_000_000))


def _attributes(top: Path) -> None:
    os.setxattr(put(top, "one"), "user.colour", b"blue")
    several = put(top, "several", bytes(200_000))
    for number in range(5):
        os.setxattr(several, f"user.{number}", bytes(range(number * 10)))
    os.setxattr(top, "user.of a directory", b"\0\xff")
    if IS_ROOT:
        os.setxattr(put(top, "capable", b"", 0o755), "security.capability", CAPABILITY)
        os.setxattr(put(top, "listed"), "system.posix_acl_access", ACL)
    if not why_not("trusted attributes"):
        os.symlink("one", top / "link")
        os.setxattr(top / "link", "trusted.of a link", b"it", follow_symlinks=False)


def _depths(top: Path) -> None:
    """Deeper than any path may be at once."""
    fd = os.open(top, os.O_RDONLY)
    for level in range(40):
        name = b"%d" % level * 80
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
        file = os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
        os.write(file, b"level %d" % level)
        os.close(file)
    os.close(fd)


@contextmanager
def without_privileges() -> Iterator[None]:
    """As an ordinary user, if this is root."""
    if IS_ROOT:
        os.setegid(65534)
        os.seteuid(65534)
    try:
        yield
    finally:
        if IS_ROOT:
            os.seteuid(0)
            os.setegid(0)


def map_paths(top: Path, change: Callable[[Path], None]) -> None:
    """Does something to everything below a directory and to itself."""
    for path in [top, *top.rglob("*")]:
        change(path)
