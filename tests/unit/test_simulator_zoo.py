"""The repository builder against a real repository: what it writes has the same shape."""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import closing
from pathlib import Path

from cache.address import Kind
from tests.simulator import reading
from tests.simulator.reading import (
    CatalogContent,
    assert_counters_consistent,
    read_catalogs,
    read_content,
    read_revision,
)
from tests.simulator.repository import Repository
from tests.simulator.tree import Directory, File, HardLink, Node, Special, Symlink

ZOO = Path(__file__).parents[1] / "data" / "zoo" / "server"


def head_of_zoo() -> dict[bytes, CatalogContent]:
    manifest = (ZOO / ".cvmfspublished").read_bytes()
    return read_catalogs(ZOO, manifest.splitlines()[0][1:].decode())


def tree_from_catalogs(server_root: Path, catalogs: dict[bytes, CatalogContent], top: bytes) -> Directory:
    """A real tree as values, with everything that its rows say."""
    catalog = catalogs[max((path for path in catalogs if (top + b"/").startswith(path + b"/")), key=len)]
    entries: dict[bytes, Node] = {}
    groups: dict[int, bytes] = {}
    for path, row in catalog.rows.items():
        if path == top or path.rpartition(b"/")[0] != top:
            continue
        name = path.rpartition(b"/")[2]
        permissions = stat.S_IMODE(row["mode"])
        mtime_ns = row["mtime"] * 10**9 + (row["mtimens"] or 0)
        if row.type == stat.S_IFDIR:
            entries[name] = tree_from_catalogs(server_root, catalogs, path)
        elif row.type == stat.S_IFLNK:
            entries[name] = Symlink(row["symlink"], mode=permissions, mtime_ns=mtime_ns)
        elif row.type == stat.S_IFREG:
            group = row["hardlinks"] >> 32
            if group in groups:
                entries[name] = HardLink(groups[group])
                continue
            if group:
                groups[group] = name
            external = bool(row["flags"] & 128)
            content = (ZOO.parent / "external" / os.fsdecode(path[1:])).read_bytes() if external else b""
            entries[name] = File(
                content or read_content(server_root, row),
                mode=permissions,
                uid=row["uid"],
                gid=row["gid"],
                mtime_ns=mtime_ns,
                xattrs=row["xattr"],
                external=external,
                compression="none" if row["flags"] >> 11 & 1 else "zlib",
                chunk_sizes=tuple(size for _, size, _ in row.chunks) or None,
            )
        else:
            kind = {stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket", stat.S_IFCHR: "char", stat.S_IFBLK: "block"}[
                row.type
            ]
            entries[name] = Special(kind, row["size"], mode=permissions, mtime_ns=mtime_ns)
    row = catalog.rows[top]
    return Directory(
        entries,
        mode=stat.S_IMODE(row["mode"]),
        size=row["size"],
        uid=row["uid"],
        gid=row["gid"],
        mtime_ns=row["mtime"] * 10**9 + (row["mtimens"] or 0),
        xattrs=row["xattr"],
        nested=top in catalogs and top != b"",
    )


def test_zoo_counters_follow_from_its_rows() -> None:
    assert_counters_consistent(head_of_zoo())


def test_rebuilt_zoo_has_the_same_catalogs(tmp_path: Path) -> None:
    """A real repository, read and built again: the same tables and the same rows in every catalog."""
    real = head_of_zoo()
    repository = Repository.create(tmp_path, "zoo.test.org")
    repository.publish(tree_from_catalogs(ZOO, real, b""))
    built = read_revision(repository)
    assert built.keys() == real.keys()
    for mountpoint, catalog in real.items():
        ours = built[mountpoint]
        assert ours.tables == catalog.tables
        assert ours.properties.keys() | {"previous_revision"} == catalog.properties.keys() | {"previous_revision"}
        assert ours.statistics == catalog.statistics
        assert ours.nested.keys() == catalog.nested.keys()
        assert ours.rows.keys() == catalog.rows.keys()
        for path, row in catalog.rows.items():
            ignored = {"rowid", "hash", "mtimens"}
            theirs = {name: value for name, value in row.columns.items() if name not in ignored}
            mine = {name: value for name, value in ours.rows[path].columns.items() if name not in ignored}
            group, count = divmod(theirs.pop("hardlinks"), 1 << 32)
            my_group, my_count = divmod(mine.pop("hardlinks"), 1 << 32)
            assert mine == theirs, path
            assert (my_count, bool(my_group)) == (count, bool(group)), path
            assert (ours.rows[path]["mtimens"] or 0) == (row["mtimens"] or 0)
            assert (ours.rows[path]["hash"] is None) == (row["hash"] is None)
            chunks = [chunk[:2] for chunk in ours.rows[path].chunks]
            assert chunks == [chunk[:2] for chunk in row.chunks]
    assert_counters_consistent(built)


def test_letters_and_databases_have_the_shape_of_the_zoo(tmp_path: Path) -> None:
    repository = Repository.create(tmp_path)
    repository.publish(Directory(), tag="v1")
    repository.publish(Directory())
    shapes = []
    for root in (ZOO, repository.server_root):
        lines = (root / ".cvmfspublished").read_bytes().split(b"\n--\n")[0].split(b"\n")
        keys = [line[:1] for line in lines]
        fields = {line[:1]: line[1:].decode() for line in lines}
        history = reading.read_object(root, fields[b"H"], Kind.HISTORY)
        reflog = (root / ".cvmfsreflog").read_bytes()
        assert hashlib.sha1(reflog).hexdigest() == fields[b"Y"]
        assert reading.read_object(root, fields[b"X"], Kind.CERTIFICATE).startswith(b"-----BEGIN CERTIFICATE")
        assert reading.read_object(root, fields[b"M"], Kind.METAINFO).startswith(b"{")
        databases = []
        for data in (history, reflog):
            with closing(reading.open_database(data)) as database:
                for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"):
                    columns = database.execute(f"PRAGMA table_info({table.decode()})").fetchall()
                    databases.append((table, [column[1:3] for column in columns]))
                properties = database.execute("SELECT key FROM properties ORDER BY key").fetchall()
                databases.append((b"properties", properties))
        shapes.append((keys, databases))
    assert shapes[0] == shapes[1]
