"""Records everything that can be observed below a mountpoint, by system calls alone, and compares it with the goldens.

The reference client's view was recorded the same way: attributes, link targets, contents, extended attributes that are
listed and those that have to be asked for. Paths and values are bytes as latin-1, an error is `!` and its number.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.compat.zoo_goldens import Golden

VOLATILE = "(volatile)"
ASKED = (
    "user.hash",
    "user.chunks",
    "user.chunk_list",
    "user.compression",
    "user.external_file",
    "user.direct_io",
    "user.rawlink",
    "xfsroot.rawlink",
    "user.catalog_counters",
    "user.revision",
    "user.root_hash",
    "user.fqrn",
    "user.tag",
    "user.repo_counters",
    "user.nosuch",
)
METAINFO = "user.repo_metainfo"
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Observed:
    """One walk: records by path, groups of paths with one inode, and statvfs after it."""

    records: dict[str, Record]
    hardlinks: list[list[str]]
    statvfs: dict[str, int]


def observe(top: Path, golden: Golden | None = None, most: int | None = None) -> Observed:
    """Everything below a mountpoint, or so much of each directory.

    What has to be asked for by name only where the golden has it, which saves minutes.
    """
    root = os.fsencode(top)
    records: dict[str, Record] = {}
    inodes: dict[int, list[str]] = defaultdict(list)
    for path, relative in _walk(root, b"", most):
        name = relative.decode("latin-1")
        assert name not in records
        is_asked = golden is None or "asked" in golden.records.get(name, {"asked": None})
        records[name] = record = _record(path, is_asked=is_asked)
        inodes[record.pop("ino")].append(name)
    status = os.statvfs(root)
    return Observed(
        records,
        sorted(sorted(group) for group in inodes.values() if len(group) > 1),
        {
            "bsize": status.f_bsize,
            "frsize": status.f_frsize,
            "files": status.f_files,
            "ffree": status.f_ffree,
            "namemax": status.f_namemax,
            "flag": status.f_flag,
        },
    )


def _walk(path: bytes, relative: bytes, most: int | None) -> Iterator[tuple[bytes, bytes]]:
    yield path, relative
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        return
    with os.scandir(path) as scan:
        listed = sorted(scan, key=lambda each: each.name)[:most]
    for each in listed:
        status = os.lstat(each.path)
        # What a listing says of an entry is what a look at it says.
        assert each.inode() == status.st_ino, each.path
        assert (each.is_dir(follow_symlinks=False), each.is_symlink()) == (
            stat.S_ISDIR(status.st_mode),
            stat.S_ISLNK(status.st_mode),
        ), each.path
        yield from _walk(each.path, relative + b"/" + each.name if relative else each.name, most)


def _record(path: bytes, *, is_asked: bool) -> Record:
    status = os.lstat(path)
    record: Record = {
        "ino": status.st_ino,
        "mode": status.st_mode,
        "nlink": status.st_nlink,
        "size": status.st_size,
        "uid": status.st_uid,
        "gid": status.st_gid,
        "mtime_ns": status.st_mtime_ns,
        "rdev": status.st_rdev,
        "blocks": status.st_blocks,
        "blksize": status.st_blksize,
    }
    if stat.S_ISLNK(status.st_mode):
        record["target"] = _told(lambda: os.readlink(path))
    elif stat.S_ISREG(status.st_mode):
        record["sha256"] = _told(lambda: _digest(path))
    record["xattrs"] = _xattrs(path)
    if is_asked:
        record["asked"] = {name: _told(lambda name=name: _xattr(path, name)) for name in ASKED}  # type: ignore[misc]
    return record


def _told(ask: Callable[[], bytes]) -> str:
    try:
        return ask().decode("latin-1")
    except OSError as error:
        return f"!{error.errno}"


def _digest(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().encode()


def _xattr(path: bytes, name: str) -> bytes:
    return os.getxattr(path, name, follow_symlinks=False)


def _xattrs(path: bytes) -> dict[str, str] | str:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        return f"!{error.errno}"
    return {name: _told(lambda name=name: _xattr(path, name)) for name in names}  # type: ignore[misc]


def differences(observed: Observed, golden: Golden, metainfo: str) -> list[str]:
    """How a mount differs from what the reference client showed; `metainfo` is what it should have found of it."""
    missing, extra = golden.records.keys() - observed.records.keys(), observed.records.keys() - golden.records.keys()
    bad = [f"missing: {path!r}" for path in sorted(missing)] + [
        f"not in the golden: {path!r}" for path in sorted(extra)
    ]
    for path in golden.records.keys() & observed.records.keys():
        ours, theirs = observed.records[path], golden.records[path]
        for name, value in theirs.items():
            if name != "path":
                bad += _compare(f"{path}: {name}", ours.get(name), value, metainfo)
    if observed.hardlinks != sorted(golden.hardlinks):
        bad.append(f"hard links: {observed.hardlinks!r}, not {golden.hardlinks!r}")
    # The reference client leaves the length of names out, although the zoo has names of 255 bytes.
    if observed.statvfs != golden.statvfs | {"namemax": 255}:
        bad.append(f"statvfs: {observed.statvfs}, not {golden.statvfs}")
    return bad


def _compare(what: str, ours: Any, theirs: Any, metainfo: str) -> list[str]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        if ours.keys() != theirs.keys():
            return [f"{what}: only here or there: {sorted(ours.keys() ^ theirs.keys())}"]
        return [
            text
            for name in theirs
            for text in _compare(f"{what}: {name}", ours[name], metainfo if name == METAINFO else theirs[name], "")
        ]
    if theirs == VOLATILE:
        return [f"{what}: {ours!r}"] if not isinstance(ours, str) or ours.startswith("!") else []
    return [] if ours == theirs else [f"{what}: {ours!r}, not {theirs!r}"]
