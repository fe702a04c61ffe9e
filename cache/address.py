"""What an object is called: hash algorithms, content hashes and the kinds of objects.

Pure values, shared by every layer. Does not know files, URLs' hosts or what an object contains.
"""

from __future__ import annotations

import enum
import hashlib
import re
from dataclasses import dataclass
from typing import Protocol

from cache.ripemd import new_ripemd160


class Algorithm(enum.Enum):
    """A digest algorithm of the format. MD5 occurs for path hashes and fingerprints only, never for content."""

    MD5 = ""
    SHA1 = "sha1"
    RMD160 = "-rmd160"
    SHAKE128 = "-shake128"

    # Attributes and the hash of the object itself, because every hash of every object asks for them.
    def __init__(self, text: str) -> None:
        self.suffix = text if text.startswith("-") else ""  # follows the hex digits in a hash text
        self.digest_size_bytes = 20 if text else 16

    __hash__ = object.__hash__


class Kind(enum.Enum):
    """What an object is; the value is the last letter of its URL. Not part of its identity."""

    BULK = ""
    CHUNK = "P"
    CATALOG = "C"
    CERTIFICATE = "X"
    HISTORY = "H"
    METAINFO = "M"

    __hash__ = object.__hash__  # as above


class NativeHasher(Protocol):
    """The part of a hashlib object that is used here."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...


@dataclass(frozen=True, slots=True)
class ContentHash:
    """The digest of an object's stored bytes: its address in every store."""

    algorithm: Algorithm
    digest: bytes

    def __post_init__(self) -> None:
        if len(self.digest) != self.algorithm.digest_size_bytes:
            raise ValueError(f"a {self.algorithm.name} digest has {self.algorithm.digest_size_bytes} bytes")

    def __str__(self) -> str:
        return self.digest.hex() + self.algorithm.suffix

    def __lt__(self, other: ContentHash) -> bool:
        return str(self) < str(other)


class Digester:
    """An incremental digest in any algorithm of the format."""

    __slots__ = ("_algorithm", "_native", "update")

    def __init__(self, algorithm: Algorithm) -> None:
        self._algorithm = algorithm
        self._native = _new_native(algorithm)
        self.update = self._native.update

    def content_hash(self) -> ContentHash:
        """The hash of everything fed so far."""
        if self._algorithm is Algorithm.SHAKE128:
            return ContentHash(self._algorithm, self._native.digest(20))
        return ContentHash(self._algorithm, self._native.digest())


def hash_bytes(algorithm: Algorithm, data: bytes | bytearray | memoryview) -> ContentHash:
    digester = Digester(algorithm)
    digester.update(data)
    return digester.content_hash()


_HASH_TEXT = re.compile(r"([0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{40}-rmd160|[0-9a-f]{40}-shake128)\Z")


def parse_hash(text: str | bytes) -> ContentHash | None:
    """The hash that a text stands for; None where it stands for "no hash": odd length, all zeros, not hex."""
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    if not _HASH_TEXT.match(text):
        return None
    digits, dash, name = text.partition("-")
    digest = bytes.fromhex(digits)
    if not any(digest):
        return None
    if dash:
        return ContentHash(Algorithm("-" + name), digest)
    return ContentHash(Algorithm.MD5 if len(digits) == 32 else Algorithm.SHA1, digest)


def object_path(content_hash: ContentHash, kind: Kind) -> str:
    """The path of an object below a repository's base URL."""
    text = str(content_hash)
    return f"data/{text[:2]}/{text[2:]}{kind.value}"


def _new_native(algorithm: Algorithm):  # type: ignore[no-untyped-def]  # hashlib names no type that spans its classes
    if algorithm is Algorithm.SHA1:
        return hashlib.sha1(usedforsecurity=False)
    if algorithm is Algorithm.MD5:
        return hashlib.md5(usedforsecurity=False)
    if algorithm is Algorithm.SHAKE128:
        return hashlib.shake_128(usedforsecurity=False)
    return new_ripemd160()
