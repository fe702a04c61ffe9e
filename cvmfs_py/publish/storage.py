"""The web root of one repository: content-addressed objects below `data`, and the few files with fixed names.

Nothing half-written is ever visible: objects are written in `data/txn` and renamed. Knows no catalog and no signature.

Concurrency: safe for several processes and threads at once; each writer belongs to one of them. What deletes is for
whoever holds the repository's lock.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from cache.address import ContentHash, Digester, Kind, hash_bytes, object_path, parse_hash
from cvmfs_py.errors import IntegrityError, PublishError
from cvmfs_py.publish.stored_form import inflate_pieces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cvmfs_py.publish.settings import RepositorySettings

DATA = "data"
TRANSACTIONS = "txn"
ZLIB_LEVEL = 6
_BLOCK_BYTES = 1 << 20
_OBJECT_NAME = re.compile(r"([0-9a-f]{38}(?:-rmd160|-shake128)?)([PCXHM]?)\Z")
_KINDS = {kind.value: kind for kind in Kind}
_NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
_numbers = itertools.count()  # with the process id: names of temporary files


class ObjectWriter:
    """An object while it is written; commit or abort it. As a context manager it aborts unless committed."""

    __slots__ = ("_fd", "_storage", "_temporary", "written_bytes")

    def __init__(self, storage: Storage) -> None:
        """For `Storage.new_object`."""
        self._storage = storage
        self._temporary: str | None
        self._fd, self._temporary = storage.new_temporary()
        self.written_bytes = 0

    def write(self, stored: bytes | bytearray | memoryview) -> None:
        """Appends bytes as they are to be stored (compressed already)."""
        try:
            _write_all(self._fd, stored)
        except OSError as error:
            self.abort()
            raise self._storage.failed("written to", error) from error
        self.written_bytes += len(stored)

    def commit(self, content_hash: ContentHash, kind: Kind = Kind.BULK) -> bool:
        """Makes the object visible under its hash, which the caller computed. False: it was there already."""
        if self._temporary is None:
            raise ValueError("the object was committed or aborted before")
        if self._storage.has(content_hash, kind):
            self.abort()
            return False
        os.close(self._fd)
        temporary, self._temporary = self._temporary, None
        self._storage.move_in(temporary, content_hash, kind)
        return True

    def abort(self) -> None:
        """Drops what was written. Idempotent; does nothing after commit."""
        temporary, self._temporary = self._temporary, None
        if temporary is not None:
            os.close(self._fd)
            Path(temporary).unlink(missing_ok=True)

    def __enter__(self) -> ObjectWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()


class Storage:
    """A repository's directory on the local disk. Cheap to make; holds no descriptors."""

    __slots__ = ("_data", "_transactions", "directory")

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        self._data = os.path.join(os.fspath(directory), DATA)
        self._transactions = os.path.join(self._data, TRANSACTIONS)

    def create(self) -> None:
        """Makes the directory and `data/00` to `data/ff`, `data/txn`. What exists stays."""
        try:
            for name in (*(f"{number:02x}" for number in range(256)), TRANSACTIONS):
                os.makedirs(os.path.join(self._data, name), exist_ok=True)
        except OSError as error:
            raise self.failed("made", error) from error

    def path(self, content_hash: ContentHash, kind: Kind = Kind.BULK) -> Path:
        """Where an object is or would be."""
        return Path(self._name(content_hash, kind))

    def has(self, content_hash: ContentHash, kind: Kind = Kind.BULK) -> bool:
        return os.path.exists(self._name(content_hash, kind))

    def put_bytes(
        self, stored: bytes | bytearray | memoryview, content_hash: ContentHash, kind: Kind = Kind.BULK
    ) -> bool:
        """Stores an object's bytes as they are under their hash. False: it was there already."""
        if self.has(content_hash, kind):
            return False
        with self.new_object() as writer:
            writer.write(stored)
            return writer.commit(content_hash, kind)

    def put_content(self, content: bytes, kind: Kind, settings: RepositorySettings) -> ContentHash:
        """Compresses (zlib), hashes and stores what fits into memory: certificates, metainfo, markers."""
        stored = zlib.compress(content, ZLIB_LEVEL)
        content_hash = hash_bytes(settings.algorithm, stored)
        self.put_bytes(stored, content_hash, kind)
        return content_hash

    def put_file(self, path: str | os.PathLike[str], kind: Kind, settings: RepositorySettings) -> ContentHash:
        """Compresses (zlib), hashes and stores a local file: catalogs and histories. Bounded memory."""
        compressor = zlib.compressobj(ZLIB_LEVEL)
        digester = Digester(settings.algorithm)
        try:
            file = open(path, "rb", buffering=0)  # noqa: SIM115  # its errors are told from those of the storage
        except OSError as error:
            raise PublishError(f"{path} cannot be read: {error.strerror}") from error
        with file, self.new_object() as writer:
            while block := file.read(_BLOCK_BYTES):
                if piece := compressor.compress(block):
                    digester.update(piece)
                    writer.write(piece)
            piece = compressor.flush()
            digester.update(piece)
            writer.write(piece)
            content_hash = digester.content_hash()
            writer.commit(content_hash, kind)
        return content_hash

    def new_object(self) -> ObjectWriter:
        """An object to be written piece by piece."""
        return ObjectWriter(self)

    def open_stored(self, content_hash: ContentHash, kind: Kind = Kind.BULK) -> int:
        """A descriptor of the stored bytes, for reading. PublishError when there is no such object."""
        try:
            return os.open(self._name(content_hash, kind), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise PublishError(
                f"the object {content_hash}{kind.value} is missing in {self.directory}: the repository is damaged"
            ) from None
        except OSError as error:
            raise self.failed("read", error) from error

    def read_content(
        self, content_hash: ContentHash, kind: Kind, *, limit_bytes: int = 64 << 20, verbatim: bool = False
    ) -> bytes:
        """The verified content of a small object."""
        pieces = []
        size_bytes = 0
        for piece in self._content(content_hash, kind, verbatim):
            size_bytes += len(piece)
            if size_bytes > limit_bytes:
                raise PublishError(f"the object {content_hash}{kind.value} is larger than {limit_bytes} bytes")
            pieces.append(piece)
        return b"".join(pieces)

    def extract(
        self, content_hash: ContentHash, kind: Kind, to_path: str | os.PathLike[str], *, verbatim: bool = False
    ) -> int:
        """Writes the verified content of an object to a new file; its size in bytes."""
        size_bytes = 0
        try:
            fd = os.open(to_path, _NEW_FILE, 0o600)
            try:
                for piece in self._content(content_hash, kind, verbatim):
                    _write_all(fd, piece)
                    size_bytes += len(piece)
            except BaseException:
                os.unlink(to_path)
                raise
            finally:
                os.close(fd)
        except OSError as error:
            raise PublishError(f"{os.fspath(to_path)} cannot be written: {error.strerror}") from error
        return size_bytes

    def objects(self) -> Iterator[tuple[ContentHash, Kind, int]]:
        """All objects with the sizes of their files, directory by directory; within one in no particular order."""
        for number in range(256):
            first = f"{number:02x}"
            try:
                with os.scandir(os.path.join(self._data, first)) as found:
                    names = [(item.name, item.stat(follow_symlinks=False).st_size) for item in found]
            except FileNotFoundError:
                continue
            except OSError as error:
                raise self.failed("read", error) from error
            for name, size_bytes in names:
                match = _OBJECT_NAME.match(name)
                content_hash = parse_hash(first + match[1]) if match else None
                if match and content_hash is not None:
                    yield content_hash, _KINDS[match[2]], size_bytes

    def remove(self, content_hash: ContentHash, kind: Kind) -> bool:
        """Deletes an object. False: there was none."""
        try:
            os.unlink(self._name(content_hash, kind))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self.failed("changed", error) from error
        return True

    def read_file(self, name: str) -> bytes | None:
        """A file with a fixed name, such as `.cvmfspublished`; None: there is none."""
        try:
            return (self.directory / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self.failed("read", error) from error

    def replace_file(self, name: str, data: bytes) -> None:
        """Replaces (or makes) a file with a fixed name, atomically and durably."""
        fd, temporary = self.new_temporary()
        try:
            try:
                _write_all(fd, data)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(temporary, self.directory / name)
        except OSError as error:
            Path(temporary).unlink(missing_ok=True)
            raise self.failed("written to", error) from error
        _sync_directory(self.directory)

    def remove_leftovers(self) -> int:
        """Deletes what dead publishers left in `data/txn`; the number of files. Only under the repository's lock."""
        count = 0
        try:
            with os.scandir(self._transactions) as found:
                for item in found:
                    if item.is_file(follow_symlinks=False):
                        os.unlink(item.path)
                        count += 1
        except FileNotFoundError:
            return count
        except OSError as error:
            raise self.failed("cleaned", error) from error
        return count

    def sync(self) -> None:
        """Returns when everything written so far is on the disk: before the manifest that names it is replaced."""
        fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # One call for the file system instead of one for each of 100,000 objects.
            synchronise = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
            if synchronise is None:
                os.sync()
            elif synchronise(fd) != 0:
                error = OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
                raise self.failed("written to", error) from error
        finally:
            os.close(fd)

    # --- for ObjectWriter

    def new_temporary(self) -> tuple[int, str]:
        name = os.path.join(self._transactions, f"{os.getpid()}-{next(_numbers)}")
        try:
            try:
                return os.open(name, _NEW_FILE, 0o644), name
            except FileExistsError:  # a dead process had our number
                os.unlink(name)
            except FileNotFoundError:  # someone tidied up
                os.makedirs(self._transactions, exist_ok=True)
            return os.open(name, _NEW_FILE, 0o644), name
        except OSError as error:
            raise self.failed("written to", error) from error

    def move_in(self, temporary: str, content_hash: ContentHash, kind: Kind) -> None:
        name = self._name(content_hash, kind)
        try:
            try:
                os.rename(temporary, name)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(name), exist_ok=True)
                os.rename(temporary, name)
        except OSError as error:
            Path(temporary).unlink(missing_ok=True)
            raise self.failed("written to", error) from error

    def failed(self, what: str, error: OSError) -> PublishError:
        return PublishError(f"the storage {self.directory} cannot be {what}: {error.strerror}")

    def _name(self, content_hash: ContentHash, kind: Kind) -> str:
        return os.path.join(self.directory, object_path(content_hash, kind))

    def _content(self, content_hash: ContentHash, kind: Kind, verbatim: bool) -> Iterator[bytes]:
        """The content in pieces. What does not match its hash is only known at the end: then it raises."""
        digester = Digester(content_hash.algorithm)
        shown = f"the object {content_hash}{kind.value} in {self.directory}"
        fd = self.open_stored(content_hash, kind)
        with open(fd, "rb", buffering=0) as file:
            yield from inflate_pieces(file, digester.update, shown, verbatim)
        if digester.content_hash() != content_hash:
            raise IntegrityError(f"{shown} does not match its hash: the repository is damaged")


def _write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    written = os.write(fd, data)
    if written < len(data):
        rest = memoryview(data)[written:]
        while rest:
            rest = rest[os.write(fd, rest) :]


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
