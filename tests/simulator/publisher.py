"""A repository made by this project's own publisher, and what the client sees of it; for tests of publishing.

    own = OwnRepository(tmp_path)                       # made, empty, revision 1
    own.publish({"a/b": b"content"})                    # a tree from a description
    own.publish_directory(path, tag="v1")               # or from a directory
    assert await own.see() == seen_on_disk(path)        # through the client, to the last byte

The web root is `own.storage`; its keys are beside it.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cache.address import Algorithm
from catalog.history import History
from cvmfs_py.mount.assemble import Wanted, open_repository
from cvmfs_py.mount.verifying import verify_snapshot
from cvmfs_py.publish.creation import create_repository
from cvmfs_py.publish.from_directory import apply_directory
from cvmfs_py.publish.publication import Publication, PublishedRevision
from cvmfs_py.publish.settings import RepositorySettings
from cvmfs_py.publish.signing import format_whitelist
from tests.compat.whole_tree import Seen, read_whole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from catalog.history import Tag
    from cvmfs_py.mount.repository import Repository

FQRN = "own.test.org"


class Nobody:
    """Watches nothing."""

    def advance(self, size_bytes: int = 0, objects: int = 1) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Manifested:
    """What a client is told, besides the tree."""

    revision: int
    root_hash: str
    tags: tuple[Tag, ...]


class OwnRepository:
    """One repository on the local disk, its owner and its client."""

    def __init__(self, directory: Path, fqrn: str = FQRN, **settings: Any) -> None:
        self.directory = directory
        self.fqrn = fqrn
        self.storage = directory / "storage"
        self.place = create_repository(RepositorySettings(fqrn=fqrn, **settings), self.storage)
        self.algorithm = settings.get("algorithm", Algorithm.SHA1)

    def open(self, **wishes: bool) -> Publication:
        return Publication(self.storage, **wishes)

    def publish(self, tree: Mapping[str, bytes], **wishes: Any) -> PublishedRevision:
        """Publishes a tree of files; `wishes` are those of `commit`."""
        source = self.directory / "source"
        write_tree(source, tree)
        return self.publish_directory(source, **wishes)

    def publish_directory(self, source: Path, **wishes: Any) -> PublishedRevision:
        with self.open() as publication:
            apply_directory(publication.open_tree(), publication.storage, publication.settings, source)
            return publication.commit(**wishes)

    def sign_whitelist(self, expires_s: int) -> None:
        """One with any date."""
        with self.open() as publication:
            keys, algorithm = publication.keys, publication.settings.algorithm
        signed = format_whitelist(self.fqrn, [keys.certificate.fingerprint(algorithm)], 0, expires_s, algorithm, keys)
        (self.storage / ".cvmfswhitelist").write_bytes(signed)

    def overrides(self, **parameters: str) -> dict[str, str]:
        """The client's configuration: no network, no cache of the machine."""
        given = {
            "SERVER_URL": f"file://{self.storage}",
            "HTTP_PROXY": "DIRECT",
            "PUBLIC_KEY": str(self.place.public_key_file),
            "PY_CACHE_DIR": str(self.directory / "cache"),
        }
        return {f"CVMFS_{name}": value for name, value in (given | parameters).items()}

    @asynccontextmanager
    async def client(self, *, fresh: bool = True, **parameters: str) -> AsyncIterator[Repository]:
        """The repository opened by a client that knows nothing yet, unless it is not to be `fresh`."""
        wanted = Wanted(self.fqrn, self.overrides(**parameters), ())
        async with open_repository(wanted, fresh=fresh) as repository:
            yield repository

    async def see(self, *, fresh: bool = True, **parameters: str) -> dict[bytes, Seen]:
        """Everything in it, with the content of every file."""
        async with self.client(fresh=fresh, **parameters) as repository:
            return await read_whole(repository)

    async def verify(self, **parameters: str) -> int:
        """Checks signatures, catalogs, counters and objects; the revision."""
        async with self.client(**parameters) as repository:
            report = await verify_snapshot(repository, b"", Nobody(), data=True)
            assert report.problems == []
            trusted = repository.root.trusted
            assert trusted is not None
            return trusted.manifest.revision

    async def told(self) -> Manifested:
        async with self.client() as repository:
            trusted = repository.root.trusted
            assert trusted is not None
            history_ref = trusted.manifest.history_ref
            assert history_ref is not None
            (pin,) = await repository.pin((history_ref,))
            with History.open(pin) as history:
                tags = history.tags()
            return Manifested(trusted.manifest.revision, str(repository.root_hash), tags)

    def objects(self) -> set[str]:
        """The names of everything below `data`."""
        data = self.storage / "data"
        return {str(path.relative_to(data)) for path in data.rglob("*") if path.is_file()}

    def documents(self) -> dict[str, bytes]:
        """The files with fixed names."""
        return {path.name: path.read_bytes() for path in self.storage.iterdir() if path.is_file()}


def write_tree(directory: Path, tree: Mapping[str, bytes]) -> None:
    """Makes a directory hold exactly these files. Those that stay as they are keep their times."""
    directory.mkdir(exist_ok=True)
    wanted = {directory / name for name in tree}
    for path in sorted(directory.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(one.is_relative_to(path) for one in wanted):
                shutil.rmtree(path)
        elif path not in wanted:
            path.unlink()
    for name, content in tree.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != content:
            path.unlink(missing_ok=True)  # another inode, and so certainly another time
            path.write_bytes(content)


def seen_on_disk(top: Path) -> dict[bytes, Seen]:
    """A local directory in the words of `read_whole`. Extended attributes of the namespace `user` count."""
    found: dict[bytes, Seen] = {}
    links: dict[tuple[int, bytes], set[bytes]] = {}
    for path in [top, *top.rglob("*")]:
        name = os.fsencode(path.relative_to(top))
        key = b"" if name == b"." else b"/" + name
        status = path.lstat()
        is_regular = stat.S_ISREG(status.st_mode)
        found[key] = Seen(
            mode=status.st_mode,
            uid=status.st_uid,
            gid=status.st_gid,
            mtime_ns=status.st_mtime_ns,
            content=path.read_bytes() if is_regular else None,
            target=os.fsencode(os.readlink(path)) if stat.S_ISLNK(status.st_mode) else None,
            rdev=status.st_rdev,
            link_count=None if stat.S_ISDIR(status.st_mode) else status.st_nlink,
            xattrs=tuple(
                (os.fsencode(one), os.getxattr(path, one, follow_symlinks=False))
                for one in sorted(os.listxattr(path, follow_symlinks=False))
                if one.startswith("user.")
            ),
        )
        if is_regular and status.st_nlink > 1:
            links.setdefault((status.st_ino, key.rpartition(b"/")[0]), set()).add(key)
    for members in links.values():
        for member in members:
            seen = found[member]
            found[member] = Seen(
                seen.mode,
                seen.uid,
                seen.gid,
                seen.mtime_ns,
                seen.content,
                links=frozenset(members - {member}),
                link_count=len(members),
                xattrs=seen.xattrs,
            )
    return found
