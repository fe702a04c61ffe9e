"""The seal: a modification time that proves, by one fstat, that a file is the object that was committed under its name.

The seconds depend on the hash text and the size; every later write, truncation or copy changes the time or the
size, and a file under a wrong name has the wrong seconds. The nanoseconds carry a CRC-32 of the content, so that a
check needs neither the index nor a recompression. Against accidents, not against an attacker who can write here.

Pure; no files.
"""

from __future__ import annotations

import zlib

_FIRST_S = 2**30  # 2004; with the span below every seal fits a signed 32-bit time, which some file systems keep
_SPAN_S = 2**29
_NS_PER_S = 1_000_000_000
# What file systems make of nanoseconds: all kept, 100 ns (SMB), micro- and milliseconds, nothing.
_GRAINS_NS = (1, 100, 1_000, 1_000_000, _NS_PER_S)


def seal_seconds(text: str, size_bytes: int) -> int:
    """The seconds of an object's seal; even, because some file systems keep even seconds only."""
    return _FIRST_S + 2 * (zlib.crc32(b"%s %d" % (text.encode("ascii"), size_bytes)) % _SPAN_S)


def seal_ns(text: str, size_bytes: int, checksum: int) -> int:
    """The whole seal, in nanoseconds since the epoch."""
    return seal_seconds(text, size_bytes) * _NS_PER_S + _fraction_ns(checksum)


def is_sealed(text: str, size_bytes: int, mtime_ns: int) -> bool:
    """Whether a file of this name, size and time was committed as such; says nothing about its content."""
    return mtime_ns // _NS_PER_S == seal_seconds(text, size_bytes)


def keeps_checksum(mtime_ns: int) -> bool:
    """Whether the file system kept a fraction of the second."""
    return mtime_ns % _NS_PER_S != 0


def matches_checksum(checksum: int, mtime_ns: int) -> bool:
    """Whether content of this checksum was sealed with this time, as far as the file system kept it."""
    fraction, kept = _fraction_ns(checksum), mtime_ns % _NS_PER_S
    return any(kept == fraction - fraction % grain for grain in _GRAINS_NS)


def _fraction_ns(checksum: int) -> int:
    # Never below a millisecond: zero is to mean "not kept", also where only milliseconds are.
    return 1_000_000 + checksum % (_NS_PER_S - 1_000_000)
