"""Lower tiers: directories of objects that somebody else fills, and that are only read here.

Two layouts: this program's own, whose seals are checked, and that of the reference client, its preloader and its
alien caches, whose objects carry no proof: there the size is compared where it is known, and the rest is the word of
whoever configured the directory. A hit is used in place, without a copy.

Concurrency: none needed; nothing changes here.
"""

from __future__ import annotations

import logging
import os
import stat
from typing import TYPE_CHECKING

from cache.errors import CacheError
from cache.layout import OUT_OF_DESCRIPTORS, DirectoryKind, Layout, recognise
from cache.pins import Pin
from cache.seal import is_sealed
from cache.smallfiles import read_small
from cache.store import exact_size_bytes

if TYPE_CHECKING:
    from cache.address import ContentHash
    from cache.ref import ObjectRef

logger = logging.getLogger(__name__)

_BREADCRUMB_LIMIT_BYTES = 164


class LowerTier:
    """One read-only directory of objects."""

    def __init__(self, directory: str) -> None:
        """Recognise the directory. Raises CacheError when it holds no objects in a known layout."""
        self.directory = os.path.abspath(directory)
        if not os.path.isdir(self.directory):
            raise CacheError(f"the lower cache tier {self.directory} is no directory; check the configuration")
        kind = recognise(self.directory)
        if kind not in (DirectoryKind.OWN, DirectoryKind.REFERENCE):
            raise CacheError(
                f"{self.directory} cannot be a lower cache tier: it is {kind.value}, and neither a cache of this"
                " program nor of the reference client"
            )
        self.is_sealed = kind is DirectoryKind.OWN
        self.objects = Layout(self.directory).objects if self.is_sealed else self.directory

    def open(self, ref: ObjectRef) -> Pin | None:
        """Pin an object; None when it is not here, or not what it should be."""
        text = str(ref.content_hash)
        path = self._path(text)
        fd = open_object(path)
        if fd is None:
            return None
        info = os.fstat(fd)
        wrong = self._what_is_wrong(ref, text, info)
        if wrong is None:
            return Pin(fd, info.st_size, ref.content_hash, path)
        os.close(fd)
        logger.warning("%s in the lower cache tier %s is not used: it %s", ref, self.directory, wrong)
        return None

    def has(self, ref: ObjectRef) -> bool:
        text = str(ref.content_hash)
        try:
            info = os.stat(self._path(text))
        except OSError:
            return False
        return self._what_is_wrong(ref, text, info) is None

    def contains(self, content_hash: ContentHash) -> bool:
        """Whether there is a file for this object, right or wrong."""
        return os.path.exists(self._path(str(content_hash)))

    def size_bytes(self, content_hash: ContentHash) -> int | None:
        """The size of the file for this object; None where there is none."""
        try:
            return os.stat(self._path(str(content_hash))).st_size
        except OSError:
            return None

    def read_breadcrumb_bytes(self, fqrn: str) -> bytes | None:
        """The root hash that was last mounted from, or preloaded into, this directory; unsigned."""
        name = f"cvmfschecksum.{fqrn}"
        directory = Layout(self.directory).state if self.is_sealed else self.directory
        data = read_small(directory, name)
        return None if data is None else data[:_BREADCRUMB_LIMIT_BYTES]

    def _path(self, text: str) -> str:
        return f"{self.objects}/{text[:2]}/{text[2:]}"

    def _what_is_wrong(self, ref: ObjectRef, text: str, info: os.stat_result) -> str | None:
        if not stat.S_ISREG(info.st_mode):
            return "is no regular file"
        expected_bytes = exact_size_bytes(ref)
        if expected_bytes is not None and info.st_size != expected_bytes:
            return f"has {info.st_size} {'byte' if info.st_size == 1 else 'bytes'} instead of {expected_bytes}"
        if self.is_sealed and not is_sealed(text, info.st_size, info.st_mtime_ns):
            return "was changed after it was stored"
        return None


def open_object(path: str) -> int | None:
    """Open an object's file for reading; None where there is none, or none that this process can read."""
    try:
        # without O_NONBLOCK, a pipe in place of an object would wait for ever
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in OUT_OF_DESCRIPTORS:
            # Without the path: it says nothing, and the same trouble with every other object is the same message.
            raise CacheError(
                f"cannot open cached objects: {error.strerror}; raise the limit of open files (ulimit -n)"
            ) from error
        # A sick disk or a foreign owner: the object can still be fetched.
        logger.warning("cannot read cached object %s: %s", path, error.strerror)
        return None
