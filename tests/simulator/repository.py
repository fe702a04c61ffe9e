"""Makes complete signed repositories on a local disk, revision after revision, and damages them on purpose.

    repository = Repository.create(tmp_path, "test.example.org")
    repository.publish(Directory({"hello": File(b"Hello\\n"), "sw": Directory({...}, nested=True)}), tag="v1")
    serve(repository.document_root)          # as http://.../cvmfs/test.example.org
    repository.write_whitelist(expires=PAST)  # or any other defect

What is wrong in a defective repository is only what was asked for: hashes and signatures around it stay correct.
Serves nothing over HTTP. One writer at a time; not thread-safe.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.address import Algorithm, ContentHash, Kind, hash_bytes
from tests.simulator.history import LoggedObject, Tag, write_history, write_reflog
from tests.simulator.options import Options
from tests.simulator.publication import Publication, PublishedCatalog, Recipe
from tests.simulator.reading import find_objects
from tests.simulator.signing import (
    EMPTY_MD5,
    Fields,
    MasterKey,
    RepositoryKey,
    change_fields,
    sign_manifest,
    sign_whitelist,
)
from tests.simulator.tree import BindMountpoint, Directory, Node, iter_entries
from tests.simulator.webroot import WebRoot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

FIRST_TIMESTAMP_S = 1_700_000_000
CREATED = datetime(2020, 1, 1, tzinfo=UTC)
EXPIRES = datetime(2120, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Revision:
    """One publication: enough to serve it again."""

    number: int
    root_hash: ContentHash
    root_size_bytes: int
    timestamp_s: int
    catalogs: Mapping[bytes, PublishedCatalog]  # by mountpoint; the root is b""
    history_hash: ContentHash | None
    fields: Fields  # of the manifest
    manifest: bytes

    def catalog(self, path: bytes) -> PublishedCatalog:
        return self.catalogs[path]


class Repository(WebRoot):
    """A repository below one directory: `document_root` to serve, `external_root`, and the master key's file."""

    def __init__(
        self, directory: Path, fqrn: str, options: Options, master: MasterKey, repository_key: RepositoryKey
    ) -> None:
        self.document_root = directory / "www"
        super().__init__(self.document_root / "cvmfs" / fqrn, options.algorithm, level=options.level)
        self.fqrn = fqrn
        self.options = options
        self.master = master
        self.repository_key = repository_key
        self.external_root = directory / "external"
        self.master_public_key = directory / "keys" / f"{fqrn}.pub"
        self.revisions: list[Revision] = []
        self.tags: dict[str, Tag] = {}
        self._log: list[LoggedObject] = []
        self._scratch = directory / "scratch"
        for made in (self.external_root, self._scratch, self.master_public_key.parent):
            made.mkdir(parents=True, exist_ok=True)

    @classmethod
    def create(
        cls,
        directory: str | os.PathLike[str],
        fqrn: str = "test.example.org",
        *,
        master: MasterKey | None = None,
        repository_key: RepositoryKey | None = None,
        **options: Any,
    ) -> Repository:
        """An empty repository without a revision; `options` are the fields of `Options`."""
        master = master or MasterKey.generate()
        key = repository_key or RepositoryKey.generate()
        repository = cls(Path(directory), fqrn, Options(**options), master, key)
        repository.master_public_key.write_bytes(master.public_pem)
        repository.write_whitelist()
        return repository

    # publishing

    def publish(
        self,
        tree: Directory,
        tag: str | None = None,
        description: str = "",
        timestamp_s: int | None = None,
        *,
        revision: int | None = None,
        branch: str = "",
        catalog_sql: Mapping[bytes, Sequence[str]] | None = None,
        catalog_bytes: Mapping[bytes, Callable[[bytes], bytes]] | None = None,
        history_sql: Sequence[str] = (),
    ) -> Revision:
        """Publish a tree as the next revision, and serve it.

        `catalog_sql` runs statements on the catalogs at these mountpoints before they are hashed, `catalog_bytes`
        replaces their bytes; the trust chain above them stays intact. `history_sql` does it to the tags.
        """
        previous = self.revisions[-1] if self.revisions else None
        number = revision if revision is not None else (previous.number if previous else 0) + 1
        if timestamp_s is None:
            timestamp_s = previous.timestamp_s + 60 if previous else FIRST_TIMESTAMP_S
        properties = {"TTL": str(self.options.ttl_s), **self.options.root_properties}
        if self.options.volatile:
            properties["volatile"] = "1"
        recipe = Recipe(
            algorithm=self.options.algorithm,
            compression=self.options.compression,
            catalog_compression=self.options.catalog_compression,
            schema=self.options.schema,
            timestamp_s=timestamp_s,
            revision=number,
            root_properties=properties,
            catalog_sql=catalog_sql or {},
            catalog_bytes=catalog_bytes or {},
        )
        before = previous.catalogs if previous else {}
        publication = Publication(recipe, self.objects, self.external_root, self._scratch, before)
        root = publication.publish(self._with_snapshots(tree) if self.options.snapshots else tree)
        self._log_object(root.content_hash, Kind.CATALOG, timestamp_s)
        history_hash = None
        if self.options.history_revision is not None:
            head = Tag("trunk", root.content_hash, number, timestamp_s, "current HEAD", root.size_bytes, branch)
            self._set_tags(head, tag, description)
            history_hash = self._put_history(timestamp_s, previous.history_hash if previous else None, history_sql)
        fields = self._fields(root, timestamp_s, history_hash)
        manifest = sign_manifest(self.repository_key, fields, self.options.algorithm)
        made = Revision(
            number,
            root.content_hash,
            root.size_bytes,
            timestamp_s,
            publication.catalogs,
            history_hash,
            fields,
            manifest,
        )
        self.revisions.append(made)
        self.serve(made)
        return made

    def serve(self, revision: Revision) -> None:
        """Put the manifest of this revision, old or new, where clients look."""
        self.replace_manifest(revision.manifest)

    @property
    def head(self) -> Revision:
        return self.revisions[-1]

    def find_objects(self, path: bytes, revision: Revision | None = None) -> list[tuple[ContentHash, Kind]]:
        """The objects of the regular file at this path: one, or its chunks in order."""
        return find_objects(self.server_root, (revision or self.head).root_hash, path)

    # signing, rightly or wrongly

    def write_whitelist(
        self,
        *,
        fqrn: str | None = None,
        fingerprints: Sequence[str] | None = None,
        created: datetime = CREATED,
        expires: datetime = EXPIRES,
        algorithm: Algorithm | None = None,
        master: MasterKey | None = None,
        flags: Sequence[str] = (),
        extra_lines: Sequence[str] = (),
    ) -> None:
        """Sign a whitelist and serve it; what is not given is as it should be."""
        algorithm = algorithm or self.options.algorithm
        if fingerprints is None:
            fingerprints = [self.repository_key.fingerprint(algorithm)]
        whitelist = sign_whitelist(
            master or self.master,
            fqrn or self.fqrn,
            fingerprints,
            created=created,
            expires=expires,
            algorithm=algorithm,
            flags=flags,
            extra_lines=extra_lines,
        )
        self.replace_whitelist(whitelist)

    def resign_manifest(
        self,
        *,
        repository_key: RepositoryKey | None = None,
        algorithm: Algorithm | None = None,
        **changes: str | None,
    ) -> None:
        """Serve the head's manifest with other fields (None: without them), or signed by another key."""
        fields = change_fields(self.head.fields, **changes)
        key = repository_key or self.repository_key
        self.replace_manifest(sign_manifest(key, fields, algorithm or self.options.algorithm))

    def use_key(self, repository_key: RepositoryKey, *, listed: bool = True) -> None:
        """Sign with another key from now on, the head included. Not listed: the whitelist does not know it."""
        self.repository_key = repository_key
        if listed:
            self.write_whitelist()
        if self.revisions:
            fields = change_fields(self.head.fields, X=str(self._put_certificate(self.head.timestamp_s)))
            manifest = sign_manifest(repository_key, fields, self.options.algorithm)
            self.revisions[-1] = replace(self.head, fields=fields, manifest=manifest)
            self.serve(self.head)

    # parts of a publication

    def _fields(self, root: PublishedCatalog, timestamp_s: int, history_hash: ContentHash | None) -> Fields:
        options = self.options
        certificate = self._put_certificate(timestamp_s)
        metainfo = None
        if options.metainfo is not None:
            metainfo = self._put(options.metainfo, Kind.METAINFO)
            self._log_object(metainfo, Kind.METAINFO, timestamp_s)
        fields = [
            ("C", str(root.content_hash)),
            ("B", str(root.size_bytes)),
            ("R", EMPTY_MD5),
            ("D", str(options.ttl_s)),
            ("S", str(root.revision)),
            ("G", "yes" if options.garbage_collectable else "no"),
            ("A", "yes" if options.alternative_paths else "no"),
            ("N", self.fqrn),
            ("X", str(certificate)),
        ]
        fields += [("H", str(history_hash))] if history_hash else []
        fields.append(("T", str(timestamp_s)))
        fields += [("M", str(metainfo))] if metainfo else []
        if options.reflog:
            reflog = self.server_root / ".cvmfsreflog"
            write_reflog(reflog, self.fqrn, self._log)
            fields.append(("Y", str(hash_bytes(options.algorithm, reflog.read_bytes()))))
        return fields

    def _put(self, content: bytes, kind: Kind) -> ContentHash:
        return self.objects.put(content, kind, compression=self.options.catalog_compression).content_hash

    def _put_certificate(self, timestamp_s: int) -> ContentHash:
        content_hash = self._put(self.repository_key.certificate_pem, Kind.CERTIFICATE)
        self._log_object(content_hash, Kind.CERTIFICATE, timestamp_s)
        return content_hash

    def _put_history(self, timestamp_s: int, previous: ContentHash | None, statements: Sequence[str]) -> ContentHash:
        file = self._scratch / "history.sqlite"
        write_history(
            file,
            self.fqrn,
            self.tags.values(),
            revision=self.options.history_revision or 0,
            previous=previous,
            statements=statements,
        )
        content_hash = self._put(file.read_bytes(), Kind.HISTORY)
        file.unlink()
        self._log_object(content_hash, Kind.HISTORY, timestamp_s)
        return content_hash

    def _set_tags(self, head: Tag, name: str | None, description: str) -> None:
        if "trunk" in self.tags:
            undo = replace(self.tags["trunk"], name="trunk-previous", description="default undo target")
            self.tags["trunk-previous"] = undo
        self.tags["trunk"] = head
        if name is not None:
            self.tags[name] = replace(head, name=name, description=description)

    def _log_object(self, content_hash: ContentHash, kind: Kind, timestamp_s: int) -> None:
        """Remember a root object for the reflog, and give it its alternative name."""
        self._log.append(LoggedObject(content_hash, kind, timestamp_s))
        if self.options.alternative_paths:
            alternative = self.server_root / f".cvmfsalt-{content_hash}{kind.value}"
            alternative.unlink(missing_ok=True)
            os.link(self.object_path(content_hash, kind), alternative)

    def _with_snapshots(self, tree: Directory) -> Directory:
        """The tree with a hidden `/.cvmfs/snapshots` that shows every named tag of the past."""
        bound: dict[bytes, Node] = {
            tag.name.encode(): BindMountpoint(tag.root_hash, tag.size_bytes, mtime_ns=tag.timestamp_s * 10**9)
            for tag in self.tags.values()
            if not tag.name.startswith("trunk") and "/" not in tag.name
        }
        hidden = Directory({b"snapshots": Directory(bound)}, nested=True, hidden=True)

        def entries() -> Iterator[tuple[bytes, Node]]:
            yield from iter_entries(tree)
            yield b".cvmfs", hidden

        return replace(tree, entries=entries)
