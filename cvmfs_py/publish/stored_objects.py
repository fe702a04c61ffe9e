"""Opens the objects of a storage for readers of catalogs: each is extracted, verified, into a file that goes with it.

Concurrency: one thread.
"""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache.ref import ObjectRef
    from cvmfs_py.publish.storage import Storage


class ExtractedObject:
    """An open content, with a name as long as it is open. Closing it twice is fine."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size_bytes = os.fstat(self.fd).st_size

    def read(self, size: int | None = None, offset: int = 0) -> bytes:
        return os.pread(self.fd, self.size_bytes - offset if size is None else size, offset)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            os.unlink(self.path)
            self.fd = -1


class StoredObjects:
    """Everything a storage holds, as local objects. A context manager; what is open must be closed before."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._workdir = tempfile.TemporaryDirectory(prefix="cvmfs-py-")
        self._serial = 0

    @property
    def workdir(self) -> str:
        """A directory for files that go with this."""
        return self._workdir.name

    def open(self, ref: ObjectRef) -> ExtractedObject:
        self._serial += 1
        path = os.path.join(self._workdir.name, str(self._serial))
        self._storage.extract(ref.content_hash, ref.kind, path)
        return ExtractedObject(path)

    def __enter__(self) -> StoredObjects:
        return self

    def __exit__(self, *_: object) -> None:
        self._workdir.cleanup()
