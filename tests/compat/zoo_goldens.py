"""What the reference client showed of the fixture repository, and how `ls --json` and a copy differ from it.

Compares everything but what is a convention of the reference: sizes of directories, blocks, and the names of its own
attributes at the root.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import stat
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

ZOO = Path(__file__).parents[1] / "data" / "zoo"
FQRN = "zoo.test.org"
KEY = ZOO / f"{FQRN}.pub"
GOLDENS = ("head-r7", "v1", "v2", "v3-plain", "v4-external")
ROOT_HASHES = {
    "v1": "02d8bfdd141366e0d11131eb179316290c7b1479",
    "v2": "77c2d1f7c130a3c803eb32217197ae750364a604",
    "v3-plain": "6a2142a2c01790c83fdc068cfa0394230cfb7246",
    "v4-external": "6c34113235838d031d7feecac4e124a11e34f2eb",
    "r6": "5bbe3bfe2d6e094bb1041a42421f0fdf1182b594",
    "head-r7": "b9a6fa616aac46f9a1efe7a87090929213eaa35c",
}
NO_SUCH_ATTRIBUTE = "!61"
_COMMON = ("mode", "nlink", "uid", "gid", "mtime_ns", "rdev", "target")

Records = dict[str, dict[str, Any]]


class Golden:
    """One revision: records by path (bytes as latin-1), and the groups of hard links."""

    def __init__(self, name: str) -> None:
        with gzip.open(ZOO / "golden" / f"{name}.jsonl.gz", "rt") as lines:
            *records, summary = (json.loads(line) for line in lines)
        self.records: Records = {record["path"]: record for record in records}
        self.hardlinks: list[list[str]] = summary["hardlinks"]
        self.statvfs: dict[str, int] = summary["statvfs"]
        self.counters = parse_counters(self.records[""]["asked"]["user.repo_counters"])
        self.revision = int(self.records[""]["asked"]["user.revision"])


def parse_counters(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split(",") for line in text.splitlines())}


def make_document_root(directory: Path, manifest: Path | None = None) -> Path:
    """What a web server serves: the repository below /cvmfs, with this manifest, and the external data."""
    repository = directory / "cvmfs" / FQRN
    repository.mkdir(parents=True)
    for name in ("data", ".cvmfswhitelist"):
        (repository / name).symlink_to(ZOO / "server" / name)
    put_manifest(directory, manifest or ZOO / "server" / ".cvmfspublished")
    (directory / "external").symlink_to(ZOO / "external" / "external")
    return directory


def put_manifest(document_root: Path, manifest: Path) -> None:
    shutil.copyfile(manifest, document_root / "cvmfs" / FQRN / ".cvmfspublished")


def differences_of_listing(lines: bytes, golden: Golden) -> list[str]:
    """How the output of `ls -R --json` differs from a golden."""
    shown = [json.loads(line) for line in lines.splitlines()]
    found = {record["path"]: record for record in shown}
    bad = [] if len(found) == len(shown) else ["some paths are listed twice"]
    bad += _path_differences(found.keys(), golden)
    groups: dict[tuple[str, int], list[str]] = defaultdict(list)
    for path, expected in golden.records.items():
        if path not in found:
            continue
        record = found[path]
        bad += [f"{path}: {name}: {ours!r}, not {theirs!r}" for name, ours, theirs in _compare(record, expected)]
        if record["hardlink_group"]:
            groups[record["catalog"], record["hardlink_group"]].append(path)
    return bad + _group_differences(groups.values(), golden)


def _compare(record: dict[str, Any], expected: dict[str, Any]) -> Iterable[tuple[str, Any, Any]]:
    pairs = [(name, record[name], expected.get(name)) for name in _COMMON]
    if not stat.S_ISDIR(expected["mode"]):
        pairs.append(("size", record["size"], expected["size"]))
    if expected["path"]:
        pairs.append(("xattrs", record["xattrs"], expected["xattrs"]))
    pairs += _asked_pairs(record, expected["mode"], expected.get("asked", {}))
    return [pair for pair in pairs if pair[1] != pair[2]]


def _asked_pairs(record: dict[str, Any], mode: int, asked: dict[str, str]) -> list[tuple[str, Any, Any]]:
    """What the reference tells by attributes that have to be asked for."""
    pairs: list[tuple[str, Any, Any]] = []
    if stat.S_ISLNK(mode):
        if "xfsroot.rawlink" in asked:
            pairs.append(("raw_target", record["raw_target"], asked["xfsroot.rawlink"]))
        return pairs
    counters = asked.get("user.catalog_counters", NO_SUCH_ATTRIBUTE)
    if counters.startswith("catalog_hash: "):
        pairs.append(("catalog", record["catalog"], counters.splitlines()[0].removeprefix("catalog_hash: ")))
    if not stat.S_ISREG(mode) or "user.hash" not in asked:
        return pairs
    content_hash = None if asked["user.hash"] == NO_SUCH_ATTRIBUTE else asked["user.hash"]
    chunk_lines = asked["user.chunk_list"].splitlines()[1:]
    chunks = record.get("chunk_list") or [[record["hash"], 0, record["size"]]]
    return [
        *pairs,
        ("hash", record["hash"], content_hash),
        ("chunks", str(record["chunks"]), asked["user.chunks"]),
        ("chunk_list", [f"{text},{offset},{size}" for text, offset, size in chunks], chunk_lines),
        ("compression", record["compression"], asked["user.compression"]),
        ("external", str(int(record["external"])), asked["user.external_file"]),
        ("direct_io", str(int(record["direct_io"])), asked["user.direct_io"]),
    ]


def differences_of_copy(top: Path, golden: Golden) -> list[str]:
    """How a tree on the local disk, copied as root with all attributes, differs from a golden."""
    root = os.fsencode(top)
    groups: dict[tuple[int, int], list[str]] = defaultdict(list)
    found = set()
    bad = []
    for path in _local_paths(root):
        name = path[len(root) + 1 :].decode("latin-1")
        found.add(name)
        if (expected := golden.records.get(name)) is None:
            continue
        status = os.lstat(path)
        is_directory, is_link = stat.S_ISDIR(status.st_mode), stat.S_ISLNK(status.st_mode)
        if expected.get("target") == "":  # no file system has links to nowhere, so copies keep the stored text
            stored = expected["asked"]["xfsroot.rawlink"]
            expected = {**expected, "target": stored, "size": len(stored)}
        pairs: list[tuple[str, Any, Any]] = [
            ("mode", status.st_mode, expected["mode"]),
            ("owner", (status.st_uid, status.st_gid), (expected["uid"], expected["gid"])),
            ("mtime_ns", status.st_mtime_ns, expected["mtime_ns"]),
            ("target", os.readlink(path).decode("latin-1") if is_link else None, expected.get("target")),
            ("sha256", _digest(path) if stat.S_ISREG(status.st_mode) else None, expected.get("sha256")),
        ]
        if not is_directory:
            rdev = status.st_rdev if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode) else 0
            pairs += [
                ("size", status.st_size, expected["size"]),
                ("nlink", status.st_nlink, expected["nlink"]),
                ("rdev", rdev, expected["rdev"]),
            ]
            if status.st_nlink > 1:
                groups[status.st_dev, status.st_ino].append(name)
        if name:
            pairs.append(("xattrs", _xattrs(path), expected["xattrs"]))
        bad += [f"{name}: {what}: {ours!r}, not {theirs!r}" for what, ours, theirs in pairs if ours != theirs]
    return bad + _path_differences(found, golden) + _group_differences(groups.values(), golden)


def _path_differences(found: Iterable[str], golden: Golden) -> list[str]:
    paths = set(found)
    missing, extra = sorted(golden.records.keys() - paths), sorted(paths - golden.records.keys())
    return [f"missing: {path!r}" for path in missing] + [f"not in the golden: {path!r}" for path in extra]


def _group_differences(groups: Iterable[list[str]], golden: Golden) -> list[str]:
    found = sorted(sorted(group) for group in groups)
    return [] if found == sorted(golden.hardlinks) else [f"hard links: {found!r}, not {golden.hardlinks!r}"]


def _local_paths(root: bytes) -> Iterable[bytes]:
    yield root
    for directory, directories, files in os.walk(root):
        for name in (*directories, *files):
            yield os.path.join(directory, name)


def _digest(path: bytes) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _xattrs(path: bytes) -> dict[str, str]:
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False).decode("latin-1") for name in names}
