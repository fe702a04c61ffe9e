"""The consistency check of a whole repository on its storage: signatures, catalogs, counters, and every object.

Finds and describes problems; changes nothing. One damaged catalog does not hide what is wrong elsewhere.

Concurrency: one thread. Streams: memory does not grow with the repository.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cache.address import Kind, hash_bytes
from catalog.errors import CatalogError
from catalog.history import History
from catalog.reader import Catalog
from catalog.transitions import catalog_ref
from cvmfs_py.errors import CvmfsError, PublishError, Refusal, TrustError
from cvmfs_py.publish.catalog_check import CatalogChecker, Mounted
from cvmfs_py.publish.stored_objects import StoredObjects
from cvmfs_py.trust.trusted_state import TrustedState

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.ref import ObjectRef
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
        checker.check_snapshot(manifest.root_ref, manifest.root_size_bytes)
        checker.check_history(manifest, every_snapshot=every_snapshot)
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


class _Checker:
    """One check on its way."""

    def __init__(
        self, storage: Storage, stored: StoredObjects, report: CheckReport, data: bool, advance: Callable[[], None]
    ) -> None:
        self._storage = storage
        self._stored = stored
        self._report = report
        self._catalogs = CatalogChecker(storage, stored.workdir, report, data=data, advance=advance)
        self._done: set[object] = set()  # catalogs: snapshots share most of theirs

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

    def check_snapshot(self, root: ObjectRef, size_bytes: int | None = None) -> None:
        """A root catalog and everything below it."""
        self._report.snapshots += 1
        waiting = [Mounted(root)]
        while waiting:
            ref, transition, above = waiting.pop()
            if ref.content_hash in self._done:
                continue
            self._done.add(ref.content_hash)
            try:
                local = self._stored.open(ref)
                if size_bytes is not None and size_bytes != local.size_bytes:
                    self._problem(
                        f"the manifest says that the root catalog has {size_bytes} bytes, not {local.size_bytes}"
                    )
                if transition is not None and transition.size_bytes not in (0, local.size_bytes):
                    self._problem(
                        f"{ref} has {local.size_bytes} bytes, but {transition.size_bytes} are recorded for it"
                    )
                size_bytes = None
                mountpoint = b"" if transition is None or transition.is_bind else transition.mountpoint
                catalog = Catalog.open(local, mountpoint, ref.content_hash)
            except (CatalogError, CvmfsError) as error:
                self._problem(f"{ref} cannot be read: {error}")
                continue
            try:
                waiting.extend(self._catalogs.check(catalog, above))
            except CatalogError as error:
                self._problem(str(error))
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
        except (CatalogError, CvmfsError) as error:
            self._problem(f"the tags cannot be read: {error}")
            return
        for tag in tags:
            if not self._storage.has(tag.root_hash, Kind.CATALOG):
                self._report.remarks.append(f"tag {tag.name}: its snapshot was removed by garbage collection")
            elif every_snapshot:
                self.check_snapshot(catalog_ref(tag.root_hash, tag.size_bytes, f"root catalog of tag {tag.name}"))

    def check_reflog(self, manifest: Manifest) -> None:
        if manifest.reflog_hash is None:
            return
        reflog = self._storage.read_file(".cvmfsreflog")
        if reflog is None:
            self._problem("the manifest names a reflog, and there is none")
        elif hash_bytes(manifest.reflog_hash.algorithm, reflog) != manifest.reflog_hash:
            self._problem("the reflog is not the one that the manifest names")

    def _problem(self, text: str) -> None:
        self._report.problems.append(text)
