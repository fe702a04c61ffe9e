"""A repository read to its last byte through the client, and the same told by the description that it was made from.

Both are dictionaries from path to `Seen`, so that a test compares two values. `opened` opens a repository in this
process, with the parameters of a client that would run in its own.
"""

from __future__ import annotations

import os
import stat
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from catalog.xattrs import parse_xattr_blob
from cvmfs_py.mount.assemble import Wanted, open_repository
from tests.simulator.tree import (
    MARKER,
    BindMountpoint,
    Directory,
    File,
    HardLink,
    Node,
    Special,
    Symlink,
    as_bytes,
    iter_entries,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from catalog.tree import Located
    from cvmfs_py.mount.repository import Repository
    from tests.simulator.command import Client
    from tests.simulator.schema import Schema

_KINDS = {"fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK, "char": stat.S_IFCHR, "block": stat.S_IFBLK}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a program sees of an entry. `links`: the other names of the same file."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    content: bytes | None = None
    target: bytes | None = None
    rdev: int = 0
    link_count: int | None = None  # of directories it is a convention
    links: frozenset[bytes] = frozenset()
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


@asynccontextmanager
async def opened(client: Client, **parameters: str) -> AsyncIterator[Repository]:
    """The client's repository; parameters are named without `CVMFS_`."""
    overrides = {f"CVMFS_{name}": value for name, value in (client.parameters | parameters).items()}
    async with open_repository(Wanted(client.fqrn, overrides, ())) as repository:
        yield repository


async def read_whole(repository: Repository, top: bytes = b"") -> dict[bytes, Seen]:
    """Every entry below a path, with the content of every file."""
    start = await repository.resolve(top, follow_last=False)
    seen = {b"": await _see(repository, start)}
    groups: dict[tuple[str, int], set[bytes]] = {}
    async for directory in repository.walk(top):
        view = await repository.open_directory(directory)
        for located in view.by_name():
            path = located.path[len(top) :]
            assert path not in seen
            seen[path] = await _see(repository, located)
            if located.entry.hardlink_group:
                group = (str(view.catalog.content_hash), located.entry.hardlink_group)
                groups.setdefault(group, set()).add(path)
    for members in groups.values():
        for path in members:
            seen[path] = replace(seen[path], links=frozenset(members - {path}))
    return seen


async def _see(repository: Repository, located: Located) -> Seen:
    entry = located.entry
    attributes = repository.attributes(entry)
    content = await read_content(repository, located) if entry.is_regular else None
    if content is not None:
        assert attributes.size_bytes == len(content)
    return Seen(
        mode=attributes.mode,
        uid=attributes.uid,
        gid=attributes.gid,
        mtime_ns=attributes.mtime_ns,
        content=content,
        target=repository.link_target(entry) if entry.is_symlink else None,
        rdev=attributes.rdev,
        link_count=None if entry.is_directory else attributes.link_count,
        xattrs=tuple(sorted(parse_xattr_blob(entry.xattr_blob).items())),
    )


async def read_content(repository: Repository, located: Located) -> bytes:
    pieces = []
    for window in await repository.content_windows(located):
        for pin in await repository.pin(window):
            with pin:
                pieces.append(pin.read())
    return b"".join(pieces)


def describe(tree: Directory, schema: Schema) -> dict[bytes, Seen]:
    """What a client has to see of a tree that was published with this schema; hidden entries are left out."""
    return dict(_describe(tree, b"", schema, schema))


def _describe(node: Directory, path: bytes, schema: Schema, row_schema: Schema) -> Iterator[tuple[bytes, Seen]]:
    """`row_schema` is that of the catalog which has the row: for a mountpoint that of the parent."""
    yield path, _expected(node, row_schema)
    if node.nested and node.schema:
        schema = node.schema
    entries = dict(iter_entries(node))
    if node.nested and node.marker:
        entries.setdefault(MARKER, File(mtime_ns=node.mtime_ns))
    groups: dict[bytes, set[bytes]] = {}
    for name, entry in entries.items():
        if isinstance(entry, HardLink):
            groups.setdefault(as_bytes(entry.to), {as_bytes(entry.to)}).add(name)
    for name, entry in entries.items():
        here = path + b"/" + name
        if entry_is_hidden(entry):
            continue
        if isinstance(entry, Directory):
            yield from _describe(entry, here, schema, schema)
            continue
        first = as_bytes(entry.to) if isinstance(entry, HardLink) else name
        members = groups.get(first, {first}) if not schema.is_old else {name}
        seen = _expected(entries[first], schema)
        links = frozenset(path + b"/" + other for other in members if other != name)
        yield here, replace(seen, link_count=None if stat.S_ISDIR(seen.mode) else len(members), links=links)


def entry_is_hidden(node: Node) -> bool:
    return not isinstance(node, HardLink) and node.hidden


def _expected(node: Node, schema: Schema) -> Seen:
    assert not isinstance(node, HardLink)
    uid, gid = (os.geteuid(), os.getegid()) if schema.is_old else (node.uid, node.gid)
    has_fraction = schema.step >= 7
    mtime_ns = node.mtime_ns if has_fraction else node.mtime_ns // 1_000_000_000 * 1_000_000_000
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    if schema.step >= 2 and node.xattrs and not isinstance(node.xattrs, bytes):
        xattrs = tuple(sorted(node.xattrs.items()))
    seen = Seen(node.mode, uid, gid, mtime_ns, xattrs=xattrs)
    if isinstance(node, Directory | BindMountpoint):
        return replace(seen, mode=stat.S_IFDIR | node.mode)
    if isinstance(node, Symlink):
        return replace(seen, mode=stat.S_IFLNK | node.mode, target=as_bytes(node.target), link_count=1)
    if isinstance(node, Special):
        rdev = node.rdev if node.kind in ("char", "block") else 0
        return replace(seen, mode=_KINDS[node.kind] | node.mode, rdev=rdev, link_count=1)
    content = node.content.read_bytes() if isinstance(node.content, Path) else node.content
    return replace(seen, mode=stat.S_IFREG | node.mode, content=content, link_count=1)
