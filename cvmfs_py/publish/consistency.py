"""The consistency check of a whole repository on its storage: signatures, catalogs, counters, and every object.

Finds and describes problems; changes nothing. One damaged catalog does not hide what is wrong elsewhere.

Concurrency: one thread. Streams: memory does not grow with the repository.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cache.address import Kind, hash_bytes
from catalog.errors import CatalogError
from catalog.history import History
from catalog.reader import Catalog
from catalog.reflog import Reflog
from catalog.transitions import catalog_ref
from cvmfs_py.errors import CvmfsError, PublishError, Refusal, TrustError
from cvmfs_py.numerals import counted
from cvmfs_py.publish.catalog_check import CatalogChecker, Mounted
from cvmfs_py.publish.counter_check import total_counters
from cvmfs_py.publish.databases import references_of
from cvmfs_py.publish.place import LAST_SNAPSHOT, REFLOG
from cvmfs_py.publish.stored_objects import StoredObjects
from cvmfs_py.trust.trusted_state import TrustedState

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.address import ContentHash
    from cache.ref import ObjectRef
    from catalog.entry import Entry
    from cvmfs_py.publish.storage import Storage
    from cvmfs_py.trust.keys import MasterKey
    from cvmfs_py.trust.manifest import Manifest


@dataclass(slots=True)
class CheckReport:
    """What was looked at, and what is wrong."""

    catalogs: int = 0
    entries: int = 0
    objects: int = 0
    snapshots: int = 0
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)  # worth knowing, and not wrong


def check_repository(
    storage: Storage,
    fqrn: str,
    master_keys: tuple[MasterKey, ...],
    *,
    data: bool = False,
    every_snapshot: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> CheckReport:
    """Checks the newest revision, and with `every_snapshot` those of all tags too. Raises only if there is nothing."""
    report = CheckReport()
    with StoredObjects(storage) as stored:
        checker = _Checker(storage, stored, report, data, advance)
        manifest = checker.check_documents(fqrn, master_keys)
        checker.check_snapshot(manifest.root_ref, manifest.root_size_bytes, manifest.revision)
        checker.check_history(manifest, every_snapshot=every_snapshot)
        checker.check_named_objects(manifest)
        checker.check_reflog(manifest)
    return report


def read_manifest(storage: Storage, fqrn: str, master_keys: tuple[MasterKey, ...], now_s: float) -> Manifest:
    """The manifest of a storage, verified as a client would at that time."""
    manifest, whitelist = storage.read_file(".cvmfspublished"), storage.read_file(".cvmfswhitelist")
    if manifest is None or whitelist is None:
        missing = ".cvmfspublished" if manifest is None else ".cvmfswhitelist"
        raise PublishError(f"{fqrn} has no {missing}: it was never published here")
    state = TrustedState(fqrn, master_keys)
    certificate = storage.read_content(state.certificate_ref(manifest).content_hash, Kind.CERTIFICATE)
    return state.accept(manifest, certificate, whitelist, now_s).manifest


class _Checked(NamedTuple):
    """What a catalog that was checked says of itself."""

    size_bytes: int
    revision: int
    total: dict[str, int] | None  # its counters and those below; None: older servers counted less


class _Checker:
    """One check on its way."""

    def __init__(
        self, storage: Storage, stored: StoredObjects, report: CheckReport, data: bool, advance: Callable[[], None]
    ) -> None:
        self._storage = storage
        self._stored = stored
        self._report = report
        self._catalogs = CatalogChecker(storage, stored.workdir, report, data=data, advance=advance)
        self._done: dict[
            tuple[ContentHash, bytes, Entry | None], _Checked | None
        ] = {}  # snapshots share most of theirs

    def check_documents(self, fqrn: str, master_keys: tuple[MasterKey, ...]) -> Manifest:
        """The signed files. Without a manifest that can be verified there is nothing to check."""
        now_s = time.time()
        try:
            return read_manifest(self._storage, fqrn, master_keys, now_s)
        except TrustError as error:
            if error.reason is not Refusal.WHITELIST_EXPIRED:
                raise
            # A problem for every client; but what is behind it can be checked all the same.
            self._problem(str(error))
            return read_manifest(self._storage, fqrn, master_keys, 0.0)

    def check_snapshot(self, root: ObjectRef, size_bytes: int | None, revision: int) -> None:
        """A root catalog, whose size and revision a manifest or tag tells, and everything below it."""
        self._report.snapshots += 1
        waiting = [Mounted(root)]
        while waiting:
            mounted = waiting.pop()
            key = mounted.ref.content_hash, mounted.mountpoint, mounted.entry
            if key not in self._done:
                self._done[key] = self._check_catalog(mounted, waiting)
            checked = self._done[key]
            recorded_bytes = mounted.transition.size_bytes if mounted.transition else size_bytes
            if checked is not None and recorded_bytes not in (None, 0, checked.size_bytes):
                size = counted(checked.size_bytes, "byte")
                self._problem(f"{mounted.ref} has {size}, but {recorded_bytes:,} are recorded for it")
            if checked is not None and mounted.transition is None and checked.revision != revision:
                self._problem(f"{mounted.ref} is of revision {checked.revision}, but {revision} is recorded for it")
            if mounted.siblings is not None:
                mounted.siblings.add(checked.total if checked else None)
                self._report.problems += mounted.siblings.problems()

    def _check_catalog(self, mounted: Mounted, waiting: list[Mounted]) -> _Checked | None:
        """What the catalog says of itself. None: it cannot be read."""
        try:
            local = self._stored.open(mounted.ref)
            size_bytes = local.size_bytes
            catalog = Catalog.open(local, mounted.mountpoint, mounted.ref.content_hash)
        except (CatalogError, CvmfsError) as error:
            self._problem(f"{mounted.ref} cannot be read: {error}")
            return None
        try:
            waiting.extend(self._catalogs.check(catalog, mounted.entry))
            return _Checked(size_bytes, catalog.properties.revision, total_counters(catalog))
        except CatalogError as error:
            self._problem(str(error))
            return None
        finally:
            catalog.close()

    def check_history(self, manifest: Manifest, *, every_snapshot: bool) -> None:
        ref = manifest.history_ref
        if ref is None:
            return
        try:
            with History.open(self._stored.open(ref), ref.content_hash) as history:
                history.check_fqrn(manifest.fqrn)
                tags = history.tags()
                branches = history.branches()
        except (CatalogError, CvmfsError) as error:
            self._problem(f"the tags cannot be read: {error}")
            return
        for tag in tags:
            first = branches.get(tag.branch)
            if first is None or tag.revision < first:
                self._problem(f"tag {tag.name} is of revision {tag.revision}, which its branch {tag.branch!r} has not")
            if not self._storage.has(tag.root_hash, Kind.CATALOG):
                self._report.remarks.append(f"tag {tag.name}: its snapshot was removed by garbage collection")
            elif every_snapshot:
                root = catalog_ref(tag.root_hash, tag.size_bytes, f"root catalog of tag {tag.name}")
                self.check_snapshot(root, tag.size_bytes, tag.revision)
        if tags:
            for name in branches.keys() - {tag.branch for tag in tags}:
                self._problem(f"there is a branch {name!r} without tags")

    def check_named_objects(self, manifest: Manifest) -> None:
        """What the manifest names besides catalogs and tags."""
        if manifest.metainfo_hash is not None:
            try:
                self._storage.read_content(manifest.metainfo_hash, Kind.METAINFO)
            except CvmfsError as error:
                self._problem(f"the description of the repository cannot be read: {error}")
        if manifest.has_alternative_paths:
            for content_hash, kind in (
                (manifest.root_hash, Kind.CATALOG),
                (manifest.certificate_hash, Kind.CERTIFICATE),
            ):
                if self._storage.read_file(f".cvmfsalt-{content_hash}{kind.value}") is None:
                    self._problem(f"the alternative name .cvmfsalt-{content_hash}{kind.value} is missing")

    def check_reflog(self, manifest: Manifest) -> None:
        if manifest.reflog_hash is None:
            return
        stored = self._storage.read_file(REFLOG)
        if self._storage.read_file(LAST_SNAPSHOT) is not None:
            # The manifest is a copy, and names the reflog of where it comes from.
            self._report.remarks.append("this is a replica: its reflog, of its own making, is left out")
            return
        if stored is None:
            self._problem("the manifest names a reflog, and there is none")
            return
        if hash_bytes(manifest.reflog_hash.algorithm, stored) != manifest.reflog_hash:
            self._problem("the reflog is not the one that the manifest names")
            return
        path = Path(self._stored.workdir, "reflog")
        path.write_bytes(stored)
        try:
            with Reflog.open(path) as reflog:
                logged = {(one.content_hash, one.kind) for one in reflog.refs()}
        except CatalogError as error:
            self._problem(f"the reflog cannot be read: {error}")
            return
        for content_hash, kind in references_of(manifest):
            if (content_hash, kind) not in logged:
                self._problem(f"the reflog does not hold {content_hash}{kind.value}, which the manifest names")

    def _problem(self, text: str) -> None:
        self._report.problems.append(text)
