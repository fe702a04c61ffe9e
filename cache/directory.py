"""The store in a directory: objects are files, named by their hash and sealed.

Puts together layout, transactions, ledger and eviction; each of them does its own job elsewhere.

Concurrency: as in `store`; any number of processes may share a directory.
"""

from __future__ import annotations

import functools
import logging
import os
from typing import TYPE_CHECKING

from cache.address import Kind, parse_hash
from cache.checks import check_lower, check_sealed
from cache.errors import CacheError
from cache.eviction import Eviction, scan
from cache.layout import open_layout
from cache.ledger import Ledger
from cache.lockfile import remove_file
from cache.named_pins import NamedPins, named_pin
from cache.pins import Pin, PinCounts
from cache.reports import CacheEntry, CacheStatus
from cache.seal import is_sealed
from cache.smallfiles import read_small, remove_small, require_name, write_small
from cache.store import Store, exact_size_bytes
from cache.tiers import open_object
from cache.txn import DirectoryTransaction, Room, remove_leftovers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cache.address import ContentHash
    from cache.ref import ObjectRef
    from cache.reports import CheckedObject, CleanupReport, NamedPin
    from cache.store import Transaction
    from cache.tiers import LowerTier

logger = logging.getLogger(__name__)


class DirectoryStore(Store):
    """Verified objects in a directory of this user."""

    def __init__(self, directory: str, limit_bytes: int | None = None, lower: Iterable[LowerTier] = ()) -> None:
        """Open a cache directory, made if need be. Raises CacheError. Neither scans nor opens the index."""
        super().__init__(lower)
        self._layout = open_layout(directory)
        self._limit_bytes = limit_bytes
        self._pins = PinCounts()
        self._named = NamedPins(self._layout)
        self._ledger = Ledger(self._layout, self._pins)
        self._eviction = Eviction(self._layout, self._ledger, self._pins, self._named, limit_bytes)
        self._room = Room(self._layout.directory, self._eviction.make_room)
        self._objects = self._layout.objects
        self._is_prepared = False

    @property
    def directory(self) -> str:
        return self._layout.directory

    def begin(self, ref: ObjectRef) -> Transaction:
        self._room.run(0, self._prepare_writing)
        self._eviction.before(exact_size_bytes(ref))
        return DirectoryTransaction(ref, self._layout, self._room, functools.partial(self._committed, ref))

    def flush(self) -> None:
        self._eviction.tend()

    def room(self) -> tuple[int, int | None]:
        return self._ledger.read_gauge(), self._limit_bytes

    def status(self) -> CacheStatus:
        pinned = self._pins.sizes()
        with self._ledger.lock:
            try:
                index = self._ledger.complete()
                if index is not None:
                    used_bytes, objects = index.gauge()
                    catalogs = index.count(Kind.CATALOG)
                    pinned |= index.sizes(self._named.hashes())
            except CacheError as error:
                self._ledger.doubt_index(error)
                index = None
        if index is None:
            sizes = {text: size for text, size, _ in scan(self._layout)}
            used_bytes, objects, catalogs = sum(sizes.values()), len(sizes), 0
            pinned |= {text: sizes[text] for text in self._named.hashes() if text in sizes}
        return CacheStatus(
            directory=self.directory,
            used_bytes=used_bytes,
            objects=objects,
            catalogs=catalogs,
            limit_bytes=self._limit_bytes,
            pinned_bytes=sum(pinned.values()),
            disk_free_bytes=_disk_free_bytes(self.directory),
            lower_tiers=tuple(tier.directory for tier in self.lower),
            read_only=not os.access(self._objects, os.W_OK),
        )

    @property
    def pin_count(self) -> int:
        return self._pins.total

    def entries(self) -> Iterator[CacheEntry]:
        is_pinned = self._eviction.is_pinned()
        index = self._ledger.complete()
        if index is not None:
            yield from index.entries(is_pinned)
            return
        found = sorted(((atime_ns, text, size) for text, size, atime_ns in scan(self._layout)), reverse=True)
        for number, (_, text, size) in enumerate(found):
            content_hash = parse_hash(text)
            assert content_hash is not None
            yield CacheEntry(content_hash, size, None, False, "", len(found) - number, is_pinned(text))

    def cleanup(self, target_bytes: int) -> CleanupReport:
        report = self._eviction.clean_up(target_bytes)
        remove_leftovers(self._layout)
        return report

    def check(self) -> Iterator[CheckedObject]:
        yield from check_sealed(self._objects, self._discard_own)
        for tier in self.lower:
            yield from check_sealed(tier.objects, None) if tier.is_sealed else check_lower(tier.objects)

    def pin(
        self,
        name: str,
        label: str,
        hashes: Iterable[ContentHash],
        *,
        is_complete: bool = True,
        size_bytes: int | None = None,
    ) -> None:
        self._named.write(named_pin(name, label, hashes, is_complete, size_bytes))

    def unpin(self, name: str) -> bool:
        return self._named.remove(name)

    def named_pins(self) -> tuple[NamedPin, ...]:
        return self._named.all()

    def read_state(self, name: str) -> bytes | None:
        return read_small(self._layout.state, name)

    def write_state(self, name: str, data: bytes) -> None:
        if data:
            write_small(self._layout, self._layout.state, name, data)
        else:
            remove_small(self._layout, self._layout.state, require_name(name))

    def close(self) -> None:
        self._ledger.close()

    def _open_own(self, ref: ObjectRef) -> Pin | None:
        text = str(ref.content_hash)
        path = f"{self._objects}/{text[:2]}/{text[2:]}"
        fd = open_object(path)
        if fd is None:
            return None
        info = os.fstat(fd)
        size_bytes = info.st_size
        if not _is_right(ref, text, info):
            os.close(fd)
            logger.warning("%s in the cache is damaged (%d bytes); it is fetched again", ref, size_bytes)
            self._discard_own(ref.content_hash)
            return None
        self._ledger.used(text, size_bytes, ref)
        return self._pin(fd, size_bytes, text, ref.content_hash, path)

    def _has_own(self, ref: ObjectRef) -> bool:
        text = str(ref.content_hash)
        try:
            return _is_right(ref, text, os.stat(self._layout.object(text)))
        except OSError:
            return False

    def _own_size_bytes(self, text: str) -> int | None:
        try:
            return os.stat(self._layout.object(text)).st_size
        except OSError:
            return None

    def _discard_own(self, content_hash: ContentHash) -> bool:
        text = str(content_hash)
        try:
            removed = _remove(self._layout.object(text))
        except OSError as error:
            logger.warning("cannot remove the damaged object %s from the cache: %s", text, error.strerror)
            return False
        self._ledger.removed(text)
        return removed

    def _pin(self, fd: int, size_bytes: int, text: str, content_hash: ContentHash, path: str) -> Pin:
        self._pins.add(text, size_bytes)
        return Pin(fd, size_bytes, content_hash, path, functools.partial(self._pins.remove, text))

    def _committed(self, ref: ObjectRef, fd: int, size_bytes: int, text: str) -> Pin:
        pin = self._pin(fd, size_bytes, text, ref.content_hash, self._layout.object(text))
        self._ledger.inserted(text, size_bytes, ref)
        self._eviction.after_commit()
        return pin

    def _prepare_writing(self) -> None:
        if self._is_prepared and os.path.isdir(self._layout.txn):
            return
        if not os.path.isdir(self._layout.txn):
            self._layout.create()
            self._ledger.directory_was_remade()
        if not self._is_prepared:
            remove_leftovers(self._layout)
            self._is_prepared = True
        self._ledger.begin_work()


def _is_right(ref: ObjectRef, text: str, info: os.stat_result) -> bool:
    expected_bytes = exact_size_bytes(ref)
    if expected_bytes is not None and expected_bytes != info.st_size:
        return False
    return is_sealed(text, info.st_size, info.st_mtime_ns)


def _remove(path: str) -> bool:
    try:
        return remove_file(path)
    except IsADirectoryError:
        os.rmdir(path)  # not ours, but an empty one need not stand in the way of the object for ever
        return True


def _disk_free_bytes(directory: str) -> int | None:
    try:
        info = os.statvfs(directory)
    except OSError:
        return None
    return info.f_bavail * info.f_frsize
