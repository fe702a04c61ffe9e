"""Checks of stored contents, object by object. Fetches nothing.

Sealed objects are compared with the checksum in their seal. Objects of the reference client carry none; their name
is the hash of what the server stored, which is either the content itself or its zlib stream, and zlib's default level
usually reproduces that stream. Where neither fits, nothing is proven either way.

Concurrency: reads only, apart from the `discard` it is given; objects may come and go meanwhile.
"""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING

from cache.address import Digester
from cache.layout import PREFIXES, walk_prefix
from cache.reports import CheckedObject, Verdict
from cache.seal import is_sealed, keeps_checksum, matches_checksum

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cache.address import ContentHash

_BLOCK_BYTES = 2**20


def check_sealed(objects: str, discard: Callable[[ContentHash], bool] | None) -> Iterator[CheckedObject]:
    """Check a directory of sealed objects; corrupt ones are handed to `discard`."""
    for path, content_hash in _files(objects):
        if content_hash is None:
            yield _foreign(path)
            continue
        found = _check_file(path, content_hash, _judge_sealed)
        if found is not None:
            if found.verdict is Verdict.CORRUPT and discard is not None:
                found = CheckedObject(
                    path, content_hash, found.size_bytes, found.verdict, found.reason, discard(content_hash)
                )
            yield found


def check_lower(objects: str) -> Iterator[CheckedObject]:
    """Check a directory in the layout of the reference client."""
    for path, content_hash in _files(objects):
        if content_hash is None:
            yield _foreign(path)
            continue
        found = _check_file(path, content_hash, _judge_content)
        if found is not None:
            yield found


def check_content(fd: int, size_bytes: int, content_hash: ContentHash) -> bool:
    """Whether content, or its zlib stream at the default level, has this hash."""
    plain, packed = Digester(content_hash.algorithm), Digester(content_hash.algorithm)
    compressor = zlib.compressobj()
    for block in _blocks(fd, size_bytes):
        plain.update(block)
        packed.update(compressor.compress(block))
    packed.update(compressor.flush())
    return content_hash in (plain.content_hash(), packed.content_hash())


def is_intact(fd: int, content_hash: ContentHash) -> bool:
    """Whether sealed content has the checksum of its seal; true for content without one."""
    info = os.fstat(fd)
    if not is_sealed(str(content_hash), info.st_size, info.st_mtime_ns) or not keeps_checksum(info.st_mtime_ns):
        return True
    return matches_checksum(checksum(fd, info.st_size), info.st_mtime_ns)


def checksum(fd: int, size_bytes: int) -> int:
    value = 0
    for block in _blocks(fd, size_bytes):
        value = zlib.crc32(block, value)
    return value


def _files(objects: str) -> Iterator[tuple[str, ContentHash | None]]:
    for prefix in PREFIXES:
        for path, _, content_hash in walk_prefix(objects, prefix):
            yield path, content_hash


def _check_file(
    path: str, content_hash: ContentHash, judge: Callable[[int, os.stat_result, ContentHash], tuple[Verdict, str]]
) -> CheckedObject | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None  # evicted meanwhile
    except OSError as error:
        return CheckedObject(path, content_hash, 0, Verdict.UNVERIFIABLE, f"cannot be opened: {error.strerror}")
    try:
        info = os.fstat(fd)
        verdict, reason = judge(fd, info, content_hash)
        return CheckedObject(path, content_hash, info.st_size, verdict, reason)
    except OSError as error:
        return CheckedObject(path, content_hash, info.st_size, Verdict.CORRUPT, f"cannot be read: {error.strerror}")
    finally:
        os.close(fd)


def _judge_sealed(fd: int, info: os.stat_result, content_hash: ContentHash) -> tuple[Verdict, str]:
    if not is_sealed(str(content_hash), info.st_size, info.st_mtime_ns):
        return Verdict.CORRUPT, "was changed after it was stored"
    if not keeps_checksum(info.st_mtime_ns):
        return _judge_content(fd, info, content_hash)
    if not matches_checksum(checksum(fd, info.st_size), info.st_mtime_ns):
        return Verdict.CORRUPT, "has another checksum than when it was stored"
    return Verdict.OK, ""


def _judge_content(fd: int, info: os.stat_result, content_hash: ContentHash) -> tuple[Verdict, str]:
    if check_content(fd, info.st_size, content_hash):
        return Verdict.OK, ""
    return Verdict.UNVERIFIABLE, "neither the content nor its zlib stream has this hash"


def _foreign(path: str) -> CheckedObject:
    try:
        size_bytes = os.lstat(path).st_size
    except OSError:
        size_bytes = 0
    return CheckedObject(path, None, size_bytes, Verdict.FOREIGN, "is no object")


def _blocks(fd: int, size_bytes: int) -> Iterator[bytes]:
    for offset in range(0, size_bytes, _BLOCK_BYTES):
        yield os.pread(fd, _BLOCK_BYTES, offset)
